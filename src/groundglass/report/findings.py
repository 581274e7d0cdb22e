"""What a mask means in numbers: burden in ml and % of lung, by side, and the largest lesions.

What is unknown is None, with its reason in `unknown`; it is never 0.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundglass.report.distribution import Histogram, Profile, Zone, histogram, profile, zones
from groundglass.report.record import Record
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import HuVolume, Intensity
from groundglass.scan.lungs import LungField
from groundglass.scan.packed import MaskSlices, counts
from groundglass.scan.regions import BY_CORNERS, IN_SLICE, find_regions
from groundglass.scan.scan import Scan

SCHEMA = 3
LARGEST = 5
OUTSIDE_PERCENT = 5.0  # of the lesions outside the lung field: more is worth a warning


class Identity(Record):
    """Whose scan it is: the name of what was read, and what DICOM states of the patient. Left out unless asked for."""

    source: str | None
    patient_name: str | None
    patient_id: str | None
    birth_date: str | None


class Input(Record):
    """The scan that was read: `shape` is (z, y, x) of the file, `spacing_mm` along the same axes."""

    identity: Identity | None
    kind: Literal["volume", "pictures"]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None


class Burden(Record):
    """Lesion and lung of one side or of both; the share counts lesion inside the lung field."""

    lesion_volume_ml: float | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None


class Lesion(Record):
    """A connected lesion: its volume, its centre (L, P, S) in mm, and the slice of its centre, counted in the file."""

    volume_ml: float | None
    area_px: int | None
    centre_lps_mm: tuple[float, float, float] | None
    slice: int


class MeanIntensity(Record):
    """Mean HU of the lesions, and of the lung without them."""

    lesion_hu: float | None
    lung_hu: float | None


class IntensityFound(Record):
    """What the numbers were taken for; `calibrated` is false where HU are only estimated."""

    kind: str
    reason: str
    calibrated: bool


class ModelRef(Record):
    """The model that was used."""

    name: str
    sha256: str


class Findings(Record):
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
    scan: Scan,
    view: AxialView,
    intensity: Intensity,
    hu: HuVolume,
    lungs: LungField,
    lesions: MaskSlices,
    model: ModelRef,
    seconds: dict[str, float],
    with_identity: bool = False,
    corrected: bool = False,
) -> Findings:
    """Turn masks into findings.

    Args:
        scan: The scan.
        view: The upright axial view, on whose (z, y, x) the arrays below lie.
        intensity: What the numbers were taken for.
        hu: HU or estimated HU.
        lungs: The lung field, lesions counted in.
        lesions: The lesions, bool.
        model: What found them.
        seconds: Of each stage so far.
        with_identity: Name the source and the patient.
        corrected: A person has changed the mask.
    """
    unknown: dict[str, str] = {}
    geometry, slice_numbers = view.geometry, view.slice_numbers
    lung, per_slice = lungs.mask, counts(lesions)
    everywhere, inside = int(per_slice.sum()), _both(lesions, lung)
    whole = _burden(everywhere, inside, lung, geometry, "", "lung", unknown)
    on_right, on_left = _both(lesions, lungs.right), _both(lesions, lungs.left)
    right = _burden(on_right, on_right, lungs.right, geometry, "right_lung.", "right lung", unknown)
    left = _burden(on_left, on_left, lungs.left, geometry, "left_lung.", "left lung", unknown)
    shown = per_slice > 0
    by_hand = ("the lesions were corrected by hand",) if corrected else ()
    return Findings(
        schema_number=SCHEMA,
        input=_input(scan, with_identity, unknown),
        **whole.model_dump(),
        right_lung=right,
        left_lung=left,
        zones=_zones(view, lungs, lesions, unknown),
        profile=profile(view, lungs, lesions),
        histogram=histogram(hu, lungs, lesions, intensity),
        slices=len(lesions),
        lesion_slices=int(shown.sum()),
        lesion_slice_indices=tuple(sorted(int(n) for n in slice_numbers[shown])),
        largest_lesions=_largest(lesions, geometry, slice_numbers, unknown),
        mean_intensity=_mean_intensity(hu, lung, lesions, intensity, unknown),
        intensity=IntensityFound(kind=intensity.kind.value, reason=intensity.reason, calibrated=intensity.calibrated),
        model=model,
        corrected_by_hand=corrected,
        version=version("groundglass"),
        warnings=(
            *by_hand,
            *scan.notes,
            *lungs.warnings,
            *_warnings(everywhere, everywhere - inside, intensity, geometry),
        ),
        seconds=seconds,
        unknown=unknown,
    )


NO_SPACING = "a picture states no spacing"


def _input(scan: Scan, with_identity: bool, unknown: dict[str, str]) -> Input:
    spacing = None
    if scan.geometry.in_mm:
        z, y, x = (round(s, 4) for s in scan.geometry.spacing)
        spacing = (z, y, x)
    else:
        unknown["input.spacing_mm"] = NO_SPACING
    if not with_identity:
        unknown["input.identity"] = "left out, so that findings can be passed on: ask for it (--with-identity)"
    return Input(
        identity=_identity(scan) if with_identity else None,
        kind="pictures" if scan.is_picture else "volume",
        shape=scan.geometry.shape,
        spacing_mm=spacing,
    )


def _identity(scan: Scan) -> Identity:
    header = scan.series.headers[0] if scan.series else None
    name, number, born = (
        str(header[key].value) if header is not None and header.get(key) else None
        for key in ("PatientName", "PatientID", "PatientBirthDate")
    )
    return Identity(
        source=scan.source.name if scan.source else None, patient_name=name, patient_id=number, birth_date=born
    )


def _zones(view: AxialView, lungs: LungField, lesions: MaskSlices, unknown: dict[str, str]) -> tuple[Zone, ...] | None:
    slices = len(lesions)
    if not view.geometry.in_mm:
        unknown["zones"] = "a picture is one slice of a lung, whose height is not known"
    elif slices < 3:
        unknown["zones"] = f"{slices} slice{'s are' if slices > 1 else ' is'} too few for thirds"
    elif not counts(lungs.mask).any():
        unknown["zones"] = "no lung was found in the scan"
    else:
        return zones(view, lungs, lesions)
    return None


def _both(one: MaskSlices, other: MaskSlices) -> int:
    """Voxels of both."""
    return sum(int(np.count_nonzero(a & b)) for a, b in zip(one, other, strict=True))


def _burden(
    lesion_voxels: int,
    lesion_in_lung: int,
    lung: MaskSlices,
    geometry: Geometry,
    path: str,
    name: str,
    unknown: dict[str, str],
) -> Burden:
    lung_voxels = int(counts(lung).sum())
    values: dict[str, float | None] = dict.fromkeys(Burden.model_fields)
    if not lung_voxels:
        reasons = dict.fromkeys(values, f"no {name} was found in the scan")
    else:
        reasons = {}
        values["lesion_share_of_lung_percent"] = round(100 * lesion_in_lung / lung_voxels, 2)
        voxel_ml = geometry.voxel_ml
        for key, voxels in (("lesion_volume_ml", lesion_voxels), ("lung_volume_ml", lung_voxels)):
            if voxel_ml is None:
                reasons[key] = NO_SPACING
            else:
                values[key] = round(voxels * voxel_ml, 3)
    unknown.update({path + key: reason for key, reason in reasons.items()})
    return Burden(**values)


def _largest(
    lesions: MaskSlices, geometry: Geometry, slice_numbers: NDArray[np.int64], unknown: dict[str, str]
) -> tuple[Lesion, ...]:
    regions = find_regions(lesions, BY_CORNERS if geometry.in_mm else IN_SLICE)
    sizes = regions.sizes[1:]
    largest = np.argsort(-sizes, kind="stable")[:LARGEST] + 1
    found = []
    for rank, (number, centre) in enumerate(zip(largest, regions.centres(largest), strict=True)):
        size = int(regions.sizes[number])
        volume_ml, centre_mm, area_px = None, None, None
        if geometry.voxel_ml is not None:
            volume_ml = round(size * geometry.voxel_ml, 3)
            left, back, up = (round(float(c), 1) for c in geometry.position(centre))
            centre_mm = (left, back, up)
            unknown[f"largest_lesions.{rank}.area_px"] = "given for pictures only"
        else:
            area_px = size
            unknown[f"largest_lesions.{rank}.volume_ml"] = NO_SPACING
            unknown[f"largest_lesions.{rank}.centre_lps_mm"] = NO_SPACING
        place = int(slice_numbers[round(float(centre[0]))])
        found.append(Lesion(volume_ml=volume_ml, area_px=area_px, centre_lps_mm=centre_mm, slice=place))
    return tuple(found)


def _mean_intensity(
    hu: HuVolume,
    lung: MaskSlices,
    lesions: MaskSlices,
    intensity: Intensity,
    unknown: dict[str, str],
) -> MeanIntensity:
    means: dict[str, float | None] = {}
    total, voxels = np.zeros(2), np.zeros(2)
    for plane, lesion, inside in zip(hu, lesions, lung, strict=True):  # slice by slice: a copy of all takes memory
        for i, mask in enumerate((lesion, inside & ~lesion)):
            total[i] += plane[mask].sum(dtype=np.float64)
            voxels[i] += np.count_nonzero(mask)
    for i, (key, name) in enumerate((("lesion_hu", "lesion"), ("lung_hu", "lung without lesion"))):
        means[key] = None
        if not intensity.calibrated:
            unknown[f"mean_intensity.{key}"] = "the file holds no HU, only a lung window"
        elif not voxels[i]:
            unknown[f"mean_intensity.{key}"] = f"no {name} was found"
        else:
            means[key] = round(float(total[i] / voxels[i]), 1)
    return MeanIntensity(**means)


def _warnings(everywhere: int, outside: int, intensity: Intensity, geometry: Geometry) -> tuple[str, ...]:
    """`everywhere` and `outside` are the lesions' voxels, and those of them outside the lung field."""
    warnings = []
    if not intensity.calibrated:
        warnings.append(f"the intensities are {intensity.kind.value}: HU are estimated, lesions are less certain")
    if outside > OUTSIDE_PERCENT / 100 * max(1, everywhere):
        amount = f"{outside} pixels" if geometry.voxel_ml is None else f"{outside * geometry.voxel_ml:.1f} ml"
        warnings.append(f"{amount} of lesion lie outside the lung field: look at the mask")
    return tuple(warnings)
