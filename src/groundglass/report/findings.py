"""What a mask means in numbers: burden in ml and % of lung, by side, and the largest lesions.

What is unknown is None, with its reason in `unknown`; it is never 0.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.distribution import Histogram, Profile, Zone, histogram, profile, zones
from groundglass.scan.components import CONNECTIVITY_8_IN_SLICE, CONNECTIVITY_26, find_components
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.packed_mask import MaskSlices, counts
from groundglass.scan.scan import ImageStack, Scan
from groundglass.strict_model import StrictModel
from groundglass.unknown import Unknown, known, resolve

SCHEMA = 3
LARGEST = 5
OUTSIDE_PERCENT = 5.0  # of the lesions outside the lung field: more is worth a warning


class Identity(StrictModel):
    """Whose scan it is: the name of what was read, and what DICOM states of the patient. Left out unless asked for."""

    source: str | None
    patient_name: str | None
    patient_id: str | None
    birth_date: str | None


class Input(StrictModel):
    """The scan that was read: `shape` is (z, y, x) of the file, `spacing_mm` along the same axes."""

    identity: Identity | None
    kind: Literal["volume", "pictures"]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None


class Burden(StrictModel):
    """Lesion and lung of one side or of both; the share counts lesion inside the lung field."""

    lesion_volume_ml: float | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None


class Lesion(StrictModel):
    """A connected lesion: its volume, its centre (L, P, S) in mm, and the slice of its centre, counted in the file."""

    volume_ml: float | None
    area_px: int | None
    centre_lps_mm: tuple[float, float, float] | None
    slice: int


class MeanIntensity(StrictModel):
    """Mean HU of the lesions, and of the lung without them."""

    lesion_hu: float | None
    lung_hu: float | None


class IntensityFound(StrictModel):
    """What the numbers were taken for; `calibrated` is false where HU are only estimated."""

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
        schema_number: Of this layout; `schema` in JSON.
        input: The scan.
        lesion_volume_ml: Of all lesions.
        lung_volume_ml: Of both lungs, lesions included.
        lesion_share_of_lung_percent: Lesion inside the lung field, of the lung's volume (pictures: of its area).
        right_lung: The same for the patient's right lung.
        left_lung: The same for the left.
        zones: Each lung by thirds of its height, the upper right one first.
        profile: Lesion and lung of every slice, in the order of the file.
        histogram: HU of lung and lesions.
        slices: Slices of the scan.
        lesion_slices: How many of them show lesion.
        lesion_slice_indices: Which, from 0 along the axis that runs from feet to head (or head to feet, as the file has
            it), or in the order of the pictures.
        largest_lesions: Up to five, largest first; 26-connected, in pictures 8-connected.
        mean_intensity: In HU.
        intensity: What the numbers were taken for, and why.
        model: Name and sha256.
        corrected_by_hand: Whether a person changed the model's mask.
        version: Of groundglass.
        warnings: In plain words.
        seconds: Of each stage.
        unknown: {path of a null: why it is unknown}.
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
        """Strict JSON: never NaN or Infinity."""
        text = self.model_dump_json(indent=2)
        return text.replace('"schema_number"', '"schema"', 1)

    @property
    def both_lungs(self) -> Burden:
        """The burden of both lungs together, as `right_lung` and `left_lung` have theirs."""
        return Burden(**{name: getattr(self, name) for name in Burden.model_fields})

    @property
    def summary(self) -> str:
        """One line for a person."""
        share = self.lesion_share_of_lung_percent
        percent = "an unknown share" if share is None else f"{share:.1f} %"
        where = f"in {self.lesion_slices} of {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.lesion_slices == 0:
            return f"no lesion found in {self.slices} slice{'s' if self.slices > 1 else ''}"
        if self.lesion_volume_ml is None:
            return f"lesion covers {percent} of the lung's area, {where}"
        return f"lesion {self.lesion_volume_ml:.1f} ml, {percent} of the lung, {where}"


def measure(
    segmented: SegmentedScan, model: ModelRef, with_identity: bool = False, corrected: bool = False
) -> Findings:
    """Measure a segmented scan.

    Args:
        segmented: The scan with its lungs and lesions.
        model: The model that found the lesions.
        with_identity: Name the source and the patient.
        corrected: A person has changed the model's mask.
    """
    scan, view, intensity = segmented.scan, segmented.view, segmented.intensity
    lungs, lesions = segmented.lung_field, segmented.lesions
    voxels = counts(lesions)
    in_lung = _overlap(lesions, lungs.mask)
    on_right, on_left = _overlap(lesions, lungs.right), _overlap(lesions, lungs.left)
    has_lesion = voxels > 0
    by_hand = ("the lesions were corrected by hand",) if corrected else ()
    total = int(voxels.sum())
    tree = {
        "schema_number": SCHEMA,
        **_burden(total, in_lung, lungs.mask, view.geometry, "lung"),
        "right_lung": _burden(on_right, on_right, lungs.right, view.geometry, "right lung"),
        "left_lung": _burden(on_left, on_left, lungs.left, view.geometry, "left lung"),
        "input": _input(scan, with_identity),
        "zones": _zones(segmented),
        "profile": profile(segmented),
        "histogram": histogram(segmented),
        "slices": len(lesions),
        "lesion_slices": int(has_lesion.sum()),
        "lesion_slice_indices": sorted(int(n) for n in view.slice_numbers[has_lesion]),
        "largest_lesions": _largest(lesions, view),
        "mean_intensity": _mean_intensity(segmented),
        "intensity": {"kind": intensity.kind.value, "reason": intensity.reason, "calibrated": intensity.calibrated},
        "model": model,
        "corrected_by_hand": corrected,
        "version": version("groundglass"),
        "warnings": (
            *by_hand,
            *scan.notes,
            *lungs.warnings,
            *_warnings(total, total - in_lung, intensity, view.geometry),
        ),
        "seconds": {},
    }
    values, unknown = resolve(tree)
    return Findings.model_validate(values | {"unknown": unknown})


NO_SPACING = "a picture states no spacing"


def _input(scan: Scan, with_identity: bool) -> dict[str, Any]:
    spacing = tuple(round(mm, 4) for mm in scan.geometry.spacing) if scan.geometry.in_mm else None
    left_out = Unknown("left out, so that findings can be passed on: ask for it (--with-identity)")
    return {
        "kind": "pictures" if isinstance(scan, ImageStack) else "volume",
        "shape": scan.geometry.shape,
        "spacing_mm": known(spacing, NO_SPACING),
        "identity": _identity(scan) if with_identity else left_out,
    }


def _identity(scan: Scan) -> Identity:
    header = scan.series.headers[0] if scan.series else None
    name, number, born = (
        str(header[key].value) if header is not None and header.get(key) else None
        for key in ("PatientName", "PatientID", "PatientBirthDate")
    )
    return Identity(
        source=scan.source.name if scan.source else None, patient_name=name, patient_id=number, birth_date=born
    )


def _zones(segmented: SegmentedScan) -> tuple[Zone, ...] | Unknown:
    slices = len(segmented.lesions)
    if not segmented.view.geometry.in_mm:
        return Unknown("a picture is one slice of a lung, whose height is not known")
    if slices < 3:
        return Unknown(f"{slices} slice{'s are' if slices > 1 else ' is'} too few for thirds")
    if not counts(segmented.lung_field.mask).any():
        return Unknown("no lung was found in the scan")
    return zones(segmented)


def _overlap(one: MaskSlices, other: MaskSlices) -> int:
    """The number of voxels that two masks share."""
    return sum(int(np.count_nonzero(a & b)) for a, b in zip(one, other, strict=True))


def _burden(
    lesion_voxels: int, lesion_in_lung: int, lung: MaskSlices, geometry: Geometry, name: str
) -> dict[str, float | Unknown]:
    """The fields of a `Burden`; `name` is what the lung is called where there is none."""
    lung_voxels, voxel_ml = int(counts(lung).sum()), geometry.voxel_ml
    if not lung_voxels:
        return dict.fromkeys(Burden.model_fields, Unknown(f"no {name} was found in the scan"))

    def volume(voxels: int) -> float | Unknown:
        return Unknown(NO_SPACING) if voxel_ml is None else round(voxels * voxel_ml, 3)

    return {
        "lesion_volume_ml": volume(lesion_voxels),
        "lung_volume_ml": volume(lung_voxels),
        "lesion_share_of_lung_percent": round(100 * lesion_in_lung / lung_voxels, 2),
    }


def _largest(lesions: MaskSlices, view: AxialView) -> list[dict[str, Any]]:
    """The fields of the largest lesions, largest first."""
    geometry = view.geometry
    regions = find_components(lesions, CONNECTIVITY_26 if geometry.in_mm else CONNECTIVITY_8_IN_SLICE)
    largest = np.argsort(-regions.sizes[1:], kind="stable")[:LARGEST] + 1
    found: list[dict[str, Any]] = []
    for number, centre in zip(largest, regions.centroids(largest), strict=True):
        voxels, index = int(regions.sizes[number]), int(view.slice_numbers[round(float(centre[0]))])
        if geometry.voxel_ml is None:
            size: dict[str, Any] = {
                "area_px": voxels,
                "volume_ml": Unknown(NO_SPACING),
                "centre_lps_mm": Unknown(NO_SPACING),
            }
        else:
            size = {
                "area_px": Unknown("given for pictures only"),
                "volume_ml": round(voxels * geometry.voxel_ml, 3),
                "centre_lps_mm": tuple(round(float(mm), 1) for mm in geometry.position(centre)),
            }
        found.append({**size, "slice": index})
    return found


def _mean_intensity(segmented: SegmentedScan) -> dict[str, float | Unknown]:
    """The fields of a `MeanIntensity`, summed slice by slice to spare memory."""
    if not segmented.intensity.calibrated:
        return dict.fromkeys(MeanIntensity.model_fields, Unknown("the file holds no HU, only a lung window"))
    total, voxels = np.zeros(2), np.zeros(2)
    for hu, lesion, lung in zip(segmented.hu, segmented.lesions, segmented.lung_field.mask, strict=True):
        for i, mask in enumerate((lesion, lung & ~lesion)):
            total[i] += hu[mask].sum(dtype=np.float64)
            voxels[i] += np.count_nonzero(mask)
    names = {"lesion_hu": "lesion", "lung_hu": "lung without lesion"}
    return {
        key: round(float(total[i] / voxels[i]), 1) if voxels[i] else Unknown(f"no {name} was found")
        for i, (key, name) in enumerate(names.items())
    }


def _warnings(lesion_voxels: int, outside: int, intensity: Intensity, geometry: Geometry) -> tuple[str, ...]:
    """Warnings about the intensities, and about the `outside` of the lesion voxels that lie outside the lungs."""
    warnings = []
    if not intensity.calibrated:
        warnings.append(f"the intensities are {intensity.kind.value}: HU are estimated, lesions are less certain")
    if outside > OUTSIDE_PERCENT / 100 * max(1, lesion_voxels):
        amount = f"{outside} pixels" if geometry.voxel_ml is None else f"{outside * geometry.voxel_ml:.1f} ml"
        warnings.append(f"{amount} of lesion lie outside the lung field: look at the mask")
    return tuple(warnings)
