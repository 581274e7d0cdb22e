"""Measuring a segmented scan: its findings."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.distribution import Zone, measure_histogram, measure_profile, measure_zones
from groundglass.report.findings import SCHEMA, Burden, Findings, Identity, MeanIntensity, ModelRef
from groundglass.report.plausibility import check_plausibility
from groundglass.scan.components import CONNECTIVITY_8_IN_SLICE, CONNECTIVITY_26, find_components
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.packed_mask import MaskSlices, voxels_per_slice
from groundglass.scan.scan import ImageStack, Scan
from groundglass.unknown import Unknown, known, resolve

LARGEST = 5  # lesions that the findings list
OUTSIDE_PERCENT = 5.0  # a larger share of the lesion voxels outside the lung field is worth a warning
NO_SPACING = "the file states no usable spacing"
NO_SPACING_OF_PICTURES = "a picture states no spacing"
NO_DIRECTIONS = "the file does not state how the patient lies in it"
UNCLEAR_SIDES = "which lung is the right one and which the left one cannot be told from the slices"


def measure(
    segmented: SegmentedScan, model: ModelRef, with_identity: bool = False, corrected: bool = False
) -> Findings:
    """Measure a segmented scan.

    Args:
        segmented: The scan with its lungs and lesions.
        model: The model that found the lesions.
        with_identity: Name the source and the patient.
        corrected: Whether a person has changed the model's mask.

    Raises:
        LungError: What was found as lung cannot be lung.
    """
    scan, view, intensity = segmented.scan, segmented.view, segmented.intensity
    lungs, lesions = segmented.lung_field, segmented.lesions
    lesion_voxels = voxels_per_slice(lesions)
    has_lesion, total = lesion_voxels > 0, int(lesion_voxels.sum())
    in_lung = _overlap(lesions, lungs.mask)
    on_right, on_left = _overlap(lesions, lungs.right), _overlap(lesions, lungs.left)
    tree = {
        "schema_number": SCHEMA,
        **_burden(total, in_lung, lungs.mask, scan, "lung"),
        "right_lung": _burden_of_side(on_right, lungs.right, segmented, "right lung"),
        "left_lung": _burden_of_side(on_left, lungs.left, segmented, "left lung"),
        "input": _input(scan, with_identity),
        "zones": _zones(segmented),
        "profile": measure_profile(segmented),
        "histogram": measure_histogram(segmented),
        "slices": len(lesions),
        "lesion_slices": int(has_lesion.sum()),
        "lesion_slice_indices": sorted(int(n) for n in view.slice_numbers[has_lesion]),
        "largest_lesions": _largest(segmented),
        "mean_intensity": _mean_intensity(segmented),
        "intensity": {"kind": intensity.kind.value, "reason": intensity.reason, "calibrated": intensity.calibrated},
        "model": model,
        "corrected_by_hand": corrected,
        "version": version("groundglass"),
        "warnings": (
            *(("the lesions were corrected by hand",) if corrected else ()),
            *scan.notes,
            *lungs.warnings,
            *check_plausibility(segmented),
            *_warnings(total, total - in_lung, intensity, view.geometry),
        ),
        "seconds": {},
    }
    values, unknown = resolve(tree)
    return Findings.model_validate(values | {"unknown": unknown})


def _input(scan: Scan, with_identity: bool) -> dict[str, Any]:
    spacing = tuple(round(mm, 4) for mm in scan.geometry.spacing) if scan.geometry.in_mm else None
    left_out = Unknown("left out, so that findings can be passed on: ask for it (--with-identity)")
    return {
        "kind": "pictures" if isinstance(scan, ImageStack) else "volume",
        "shape": scan.geometry.shape,
        "spacing_mm": known(spacing, _no_spacing(scan)),
        "identity": _identity(scan) if with_identity else left_out,
    }


def _no_spacing(scan: Scan) -> str:
    """Return why lengths are unknown in a scan without spacing."""
    return NO_SPACING_OF_PICTURES if isinstance(scan, ImageStack) else NO_SPACING


def _identity(scan: Scan) -> Identity:
    header = scan.series.headers[0] if scan.series else None

    def stated(keyword: str) -> str | None:
        return str(header[keyword].value) if header is not None and header.get(keyword) else None

    return Identity(
        source=_in_unicode(scan.source.name) if scan.source else None,
        patient_name=stated("PatientName"),
        patient_id=stated("PatientID"),
        birth_date=stated("PatientBirthDate"),
    )


def _in_unicode(name: str) -> str:
    """Return a file name with `?` for each byte that was no character, which no JSON or HTML could hold."""
    return name.encode("utf-8", "replace").decode()


def _zones(segmented: SegmentedScan) -> tuple[Zone, ...] | Unknown:
    slices = len(segmented.lesions)
    if isinstance(segmented.scan, ImageStack):
        return Unknown("a picture is one slice of a lung, whose height is not known")
    if reason := _no_sides(segmented):
        return Unknown(reason)
    if not segmented.view.geometry.in_mm:
        return Unknown(NO_SPACING)
    if slices < 3:
        return Unknown(f"{slices} slice{'s are' if slices > 1 else ' is'} too few for thirds")
    if not voxels_per_slice(segmented.lung_field.mask).any():
        return Unknown("no lung was found in the scan")
    return measure_zones(segmented)


def _overlap(one: MaskSlices, other: MaskSlices) -> int:
    """Count the voxels that two masks share."""
    return sum(int(np.count_nonzero(a & b)) for a, b in zip(one, other, strict=True))


def _burden_of_side(
    lesion_voxels: int, lung: MaskSlices, segmented: SegmentedScan, name: str
) -> dict[str, float | Unknown]:
    """Return the fields of a `Burden` of one lung, whose lesions all lie in it."""
    if reason := _no_sides(segmented):
        return dict.fromkeys(Burden.model_fields, Unknown(reason))
    return _burden(lesion_voxels, lesion_voxels, lung, segmented.scan, name)


def _no_sides(segmented: SegmentedScan) -> str | None:
    """Return why it is not known which lung is which; None if it is known."""
    if not segmented.view.geometry.has_directions:
        return NO_DIRECTIONS
    return None if segmented.lung_field.sides_known else UNCLEAR_SIDES


def _burden(
    lesion_voxels: int, lesion_in_lung: int, lung: MaskSlices, scan: Scan, name: str
) -> dict[str, float | Unknown]:
    """Return the fields of a `Burden`; `name` is what the reason calls a lung that was not found."""
    lung_voxels, voxel_ml = int(voxels_per_slice(lung).sum()), scan.geometry.voxel_ml
    if not lung_voxels:
        return dict.fromkeys(Burden.model_fields, Unknown(f"no {name} was found in the scan"))

    def volume(voxels: int) -> float | Unknown:
        return Unknown(_no_spacing(scan)) if voxel_ml is None else round(voxels * voxel_ml, 3)

    return {
        "lesion_volume_ml": volume(lesion_voxels),
        "lung_volume_ml": volume(lung_voxels),
        "lesion_share_of_lung_percent": round(100 * lesion_in_lung / lung_voxels, 2),
    }


def _largest(segmented: SegmentedScan) -> list[dict[str, Any]]:
    """Return the fields of a `Lesion` for each of the largest lesions, largest first."""
    lesions, view, geometry = segmented.lesions, segmented.view, segmented.view.geometry
    are_pictures = isinstance(segmented.scan, ImageStack)
    no_spacing = Unknown(_no_spacing(segmented.scan))
    regions = find_components(lesions, CONNECTIVITY_8_IN_SLICE if are_pictures else CONNECTIVITY_26)
    largest = np.argsort(-regions.sizes[1:], kind="stable")[:LARGEST] + 1
    found: list[dict[str, Any]] = []
    for label, centre in zip(largest, regions.centroids(largest), strict=True):
        voxels, index = int(regions.sizes[label]), int(view.slice_numbers[round(float(centre[0]))])
        position = tuple(round(float(mm), 1) for mm in geometry.position(centre))
        has_position = geometry.in_mm and geometry.has_directions
        size: dict[str, Any] = {
            "area_px": voxels if are_pictures else Unknown("given for pictures only"),
            "volume_ml": no_spacing if geometry.voxel_ml is None else round(voxels * geometry.voxel_ml, 3),
            "centre_lps_mm": position if has_position else Unknown(NO_DIRECTIONS) if geometry.in_mm else no_spacing,
        }
        found.append({**size, "slice": index})
    return found


def _mean_intensity(segmented: SegmentedScan) -> dict[str, float | Unknown]:
    """Return the fields of a `MeanIntensity`, summed slice by slice to save memory."""
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
    """Warn of estimated intensities, and of lesions of which many voxels (`outside`) lie outside the lungs."""
    warnings = []
    if not intensity.calibrated:
        warnings.append(f"the intensities are {intensity.kind.value}: HU are estimated, lesions are less certain")
    if outside > OUTSIDE_PERCENT / 100 * max(1, lesion_voxels):
        amount = f"{outside} pixels" if geometry.voxel_ml is None else f"{outside * geometry.voxel_ml:.1f} ml"
        warnings.append(f"{amount} of lesion lie outside the lung field: look at the mask")
    return tuple(warnings)
