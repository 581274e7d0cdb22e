"""The findings of a scan, as `findings.json` holds them: burden in ml and % of lung, where it lies, how dense it is.

A value that is not known is None, never 0; `unknown` gives the reason.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from groundglass.report.amounts import format_ml, format_number
from groundglass.report.density import DensityBand, Histogram, MeanIntensity
from groundglass.report.distribution import Profile, Zone
from groundglass.report.extent import Extent, is_negligible
from groundglass.report.lesion_list import Lesion
from groundglass.strict_model import StrictModel

SCHEMA = 4
Interval = tuple[float, float]


class Identity(StrictModel):
    """Name of the source, and the patient as DICOM states it; included only on request.

    Attributes:
        source: Name of the file or folder.
        patient_name: PatientName.
        patient_id: PatientID.
        birth_date: PatientBirthDate.
    """

    source: str | None
    patient_name: str | None
    patient_id: str | None
    birth_date: str | None


class Input(StrictModel):
    """The scan that was read.

    Attributes:
        label: What the user calls the scan.
        identity: Source and patient; only on request.
        kind: A volume, or pictures that are unrelated slices.
        shape: (z, y, x) of the file.
        spacing_mm: Along the same axes.
        scanned: Date of the scan, with its time where it is stated.
        series: Number, kernel, number and distance of the slices of the DICOM series.
        slice_thickness_mm: As DICOM states it.
        kernel: Convolution kernel of the reconstruction, as DICOM states it.
        image_numbers: The number that viewers show of each slice, in the order of the file: the InstanceNumber, or the
            frame's number, of DICOM; otherwise counted from 1.
        slice_positions_mm: The position of each slice from feet to head.
    """

    label: str | None
    identity: Identity | None
    kind: Literal["volume", "pictures"]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    scanned: datetime | None
    series: str | None
    slice_thickness_mm: float | None
    kernel: str | None
    image_numbers: tuple[int, ...]
    slice_positions_mm: tuple[float, ...] | None

    @property
    def slice_distance_mm(self) -> float | None:
        """Distance of neighbouring axial slices, along whichever axis of the file they lie; None if it is unknown."""
        if self.spacing_mm is None:
            return None
        positions = self.slice_positions_mm
        if positions is None or len(positions) < 2:
            return self.spacing_mm[0]
        rise = abs(positions[-1] - positions[0]) / (len(positions) - 1)
        along = [mm for n, mm in zip(self.shape, self.spacing_mm, strict=True) if n == len(positions)]
        return min(along, key=lambda mm: abs(mm - rise))


class Burden(StrictModel):
    """Lesion and lung of one side or of both sides; the share counts lesion inside the lung field.

    Attributes:
        lesion_volume_ml: Volume of the lesions.
        lung_volume_ml: Volume of the lung, lesions included.
        lesion_share_of_lung_percent: Lesion inside the lung field, in % of the lung's volume (images: of its area).
    """

    lesion_volume_ml: float | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None


class ClassBurden(StrictModel):
    """The part of the lesions that is of one class, such as ground-glass or consolidation.

    Attributes:
        name: The class.
        volume_ml: Volume of the lesions of this class.
        lesion_share_of_lung_percent: Their share of the lung.
    """

    name: str
    volume_ml: float | None
    lesion_share_of_lung_percent: float | None


class IntensityFound(StrictModel):
    """How the intensities were interpreted, and why.

    Attributes:
        kind: Meaning of the scan's numbers, such as `hu`.
        reason: What was recognised, and from what.
        calibrated: False where HU are only estimated.
    """

    kind: str
    reason: str
    calibrated: bool


class ModelRef(StrictModel):
    """The model that was used.

    Attributes:
        name: Name of the model.
        sha256: SHA-256 of its ONNX file.
    """

    name: str
    sha256: str


class Findings(StrictModel):
    """Everything that is known of a scan's lesions; `to_json` gives the text of `findings.json`.

    Attributes:
        schema_number: Version of this layout; `schema` in JSON.
        input: The scan.
        lesion_volume_ml: Volume of all lesions.
        lesion_volume_interval_ml: Interval that holds 80 % of what readers measure, by the model's calibration.
        lung_volume_ml: Volume of both lungs, lesions included.
        lesion_share_of_lung_percent: Lesion inside the lung field, in % of the lung's volume (images: of its area).
        lesion_share_interval_percent: The same interval of the share.
        extent: The share in words.
        classes: The lesions by class; empty for a model without classes.
        right_lung: Burden of the patient's right lung.
        left_lung: Burden of the patient's left lung.
        zones: Each lung by thirds of its height, the upper right one first.
        profile: Lesion and lung of every slice, in the order of the file.
        histogram: HU of lung and lesions.
        density_bands: Shares of the lung that are hyperinflated, normally, poorly and not aerated.
        slices: Number of slices of the scan.
        lesion_slices: Number of slices with lesion.
        lesion_slice_indices: Indices of the slices with lesion, from 0 in the order of the file.
        lesion_count: Number of lesions; 26-connected, in images 8-connected.
        largest_lesions: The lesions, largest first, 200 at most.
        mean_intensity: Mean HU of lesions and lung.
        intensity: How the intensities were interpreted, and why.
        model: Name and SHA-256 of the model.
        corrected_by_hand: Whether a person changed the model's mask.
        version: Version of groundglass.
        analysed: When the scan was measured.
        warnings: What a reader should know before using the numbers.
        seconds: {stage: its duration}.
        unknown: {path of a null: why the value is unknown}.
    """

    schema_number: int
    input: Input
    lesion_volume_ml: float | None
    lesion_volume_interval_ml: Interval | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None
    lesion_share_interval_percent: Interval | None
    extent: Extent | None
    classes: tuple[ClassBurden, ...]
    right_lung: Burden
    left_lung: Burden
    zones: tuple[Zone, ...] | None
    profile: Profile
    histogram: Histogram
    density_bands: tuple[DensityBand, ...] | None
    slices: int
    lesion_slices: int
    lesion_slice_indices: tuple[int, ...]
    lesion_count: int
    largest_lesions: tuple[Lesion, ...]
    mean_intensity: MeanIntensity
    intensity: IntensityFound
    model: ModelRef
    corrected_by_hand: bool
    version: str
    analysed: datetime
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    unknown: dict[str, str]

    def to_json(self) -> str:
        """Format as strict JSON, without NaN or Infinity."""
        text = self.model_dump_json(indent=2)
        return text.replace('"schema_number"', '"schema"', 1)

    @property
    def both_lungs(self) -> Burden:
        """Burden of both lungs together."""
        return Burden(**{name: getattr(self, name) for name in Burden.model_fields})

    @property
    def is_negligible(self) -> bool:
        """Whether the model marked lesion, but so little as in healthy lungs."""
        share = self.lesion_share_of_lung_percent
        if self.lesion_slices == 0 or share is None or self.corrected_by_hand:
            return False
        return is_negligible(share, self.lesion_share_interval_percent, self.lesion_volume_ml, self.lung_volume_ml)

    @property
    def summary(self) -> str:
        """The findings on one line, for a person."""
        share = self.lesion_share_of_lung_percent
        percent = "an unknown share" if share is None else f"{format_number(share)} %"
        where = f"in {self.lesion_slices} of {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.lesion_slices == 0:
            return f"no lesion found in {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.is_negligible:
            amount = percent if self.lesion_volume_ml is None else f"{format_ml(self.lesion_volume_ml)} ml"
            return f"no lesion of relevant size ({amount} marked, as in healthy lungs)"
        if self.lesion_volume_ml is None:
            whole = "the lung's area" if self.input.kind == "pictures" else "the lung"
            return f"lesion covers {percent} of {whole}, {where}"
        return f"lesion {format_ml(self.lesion_volume_ml)} ml, {percent} of the lung, {where}"
