"""The findings of a scan, as `findings.json` holds them: burden in ml and % of lung, by side, and the largest lesions.

A value that is not known is None, never 0; `unknown` gives the reason.
"""

from __future__ import annotations

from typing import Literal

from groundglass.report.distribution import Histogram, Profile, Zone
from groundglass.strict_model import StrictModel

SCHEMA = 3


class Identity(StrictModel):
    """Name of the source, and the patient as DICOM states it; included only on request."""

    source: str | None
    patient_name: str | None
    patient_id: str | None
    birth_date: str | None


class Input(StrictModel):
    """The scan that was read; `shape` is (z, y, x) of the file, `spacing_mm` is along the same axes."""

    identity: Identity | None
    kind: Literal["volume", "pictures"]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None


class Burden(StrictModel):
    """Lesion and lung of one side or of both sides; the share counts lesion inside the lung field."""

    lesion_volume_ml: float | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None


class Lesion(StrictModel):
    """A connected lesion: its size, its centre (L, P, S) in mm, and the slice of its centre, counted as in the file."""

    volume_ml: float | None
    area_px: int | None
    centre_lps_mm: tuple[float, float, float] | None
    slice: int


class MeanIntensity(StrictModel):
    """Mean HU of the lesions, and of the lung without them."""

    lesion_hu: float | None
    lung_hu: float | None


class IntensityFound(StrictModel):
    """How the intensities were interpreted, and why; `calibrated` is false where HU are only estimated."""

    kind: str
    reason: str
    calibrated: bool


class ModelRef(StrictModel):
    """The model that was used."""

    name: str
    sha256: str


class Findings(StrictModel):
    """Everything that is known of a scan's lesions; `to_json` gives the text of `findings.json`.

    Attributes:
        schema_number: Version of this layout; `schema` in JSON.
        input: The scan.
        lesion_volume_ml: Volume of all lesions.
        lung_volume_ml: Volume of both lungs, lesions included.
        lesion_share_of_lung_percent: Lesion inside the lung field, in % of the lung's volume (images: of its area).
        right_lung: Burden of the patient's right lung.
        left_lung: Burden of the patient's left lung.
        zones: Each lung by thirds of its height, the upper right one first.
        profile: Lesion and lung of every slice, in the order of the file.
        histogram: HU of lung and lesions.
        slices: Number of slices of the scan.
        lesion_slices: Number of slices with lesion.
        lesion_slice_indices: Indices of the slices with lesion, from 0 in the order of the file.
        largest_lesions: Up to five lesions, largest first; 26-connected, in images 8-connected.
        mean_intensity: Mean HU of lesions and lung.
        intensity: How the intensities were interpreted, and why.
        model: Name and SHA-256 of the model.
        corrected_by_hand: Whether a person changed the model's mask.
        version: Version of groundglass.
        warnings: What a reader should know before using the numbers.
        seconds: {stage: its duration}.
        unknown: {path of a null: why the value is unknown}.
    """

    schema_number: int
    input: Input
    lesion_volume_ml: float | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None
    right_lung: Burden
    left_lung: Burden
    zones: tuple[Zone, ...] | None
    profile: Profile
    histogram: Histogram
    slices: int
    lesion_slices: int
    lesion_slice_indices: tuple[int, ...]
    largest_lesions: tuple[Lesion, ...]
    mean_intensity: MeanIntensity
    intensity: IntensityFound
    model: ModelRef
    corrected_by_hand: bool
    version: str
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
    def summary(self) -> str:
        """The findings on one line, for a person."""
        share = self.lesion_share_of_lung_percent
        percent = "an unknown share" if share is None else f"{share:.1f} %"
        where = f"in {self.lesion_slices} of {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.lesion_slices == 0:
            return f"no lesion found in {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.lesion_volume_ml is None:
            whole = "the lung's area" if self.input.kind == "pictures" else "the lung"
            return f"lesion covers {percent} of {whole}, {where}"
        return f"lesion {self.lesion_volume_ml:.1f} ml, {percent} of the lung, {where}"
