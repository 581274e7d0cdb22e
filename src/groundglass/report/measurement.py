"""Measuring a segmented scan: its findings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from groundglass.inference.model_card import BurdenInterval
from groundglass.inference.pipeline import SegmentedScan
from groundglass.plain_text import in_unicode
from groundglass.report.amounts import percent_of
from groundglass.report.density import NO_HU, measure_density
from groundglass.report.distribution import NO_THIRDS, Zone, measure_profile, measure_zones
from groundglass.report.extent import Extent, classify_extent
from groundglass.report.findings import SCHEMA, Burden, Findings, Identity, Interval, ModelRef
from groundglass.report.image_numbers import image_numbers, slice_positions
from groundglass.report.lesion_list import Unknowns, measure_lesions
from groundglass.report.plausibility import check_plausibility
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.packed_mask import MaskSlices, shared_voxels_per_slice, voxels_per_slice
from groundglass.scan.scan import ImageStack, Scan
from groundglass.unknown import Unknown, known, resolve

OUTSIDE_PERCENT = 5.0  # a larger share of the lesion voxels outside the lung field is worth a warning
NO_SPACING = "the file states no usable spacing"
NO_SPACING_OF_PICTURES = "a picture states no spacing"
NO_DIRECTIONS = "the file does not state how the patient lies in it"
NO_INTERVAL = "the model's calibration gives no interval"
NOT_DICOM = "only DICOM states it"
UNCLEAR_SIDES = "which lung is the right one and which the left one cannot be told from the slices"


def measure(
    segmented: SegmentedScan,
    model: ModelRef,
    with_identity: bool = False,
    corrected: bool = False,
    label: str | None = None,
    classes: Sequence[str] = (),
    interval: BurdenInterval | None = None,
) -> Findings:
    """Measure a segmented scan.

    Args:
        segmented: The scan with its lungs and lesions.
        model: The model that found the lesions.
        with_identity: Name the source and the patient.
        corrected: Whether a person has changed the model's mask.
        label: What the user calls the scan.
        classes: Names of the classes of lesions, in the order of their numbers in the class map.
        interval: How certain the model's shares are; None: not known.

    Raises:
        LungError: What was found as lung cannot be lung.
    """
    scan, view, intensity = segmented.scan, segmented.view, segmented.intensity
    lungs, lesions = segmented.lung_field, segmented.lesions
    lesion_voxels = voxels_per_slice(lesions)
    has_lesion, total = lesion_voxels > 0, int(lesion_voxels.sum())
    density = measure_density(segmented)
    in_lung, on_right, on_left = (
        int(shared_voxels_per_slice(lesions, lung).sum()) for lung in (lungs.mask, lungs.right, lungs.left)
    )
    both = _burden(total, in_lung, lungs.mask, scan, "lung")
    outside_ml = (total - in_lung) * (scan.geometry.voxel_ml or 0.0)
    intervals = _intervals(both, None if corrected else interval, outside_ml)
    lesion_count, largest = measure_lesions(segmented, _unknowns_of_lesions(segmented))
    tree = {
        "schema_number": SCHEMA,
        **both,
        **intervals,
        "extent": _extent(
            both["lesion_share_of_lung_percent"], intervals["lesion_share_interval_percent"], scan, corrected
        ),
        "classes": _classes(segmented, classes),
        "right_lung": _burden_of_side(on_right, lungs.right, segmented, "right lung"),
        "left_lung": _burden_of_side(on_left, lungs.left, segmented, "left lung"),
        "input": _input(segmented, with_identity, label),
        "zones": _zones(segmented),
        "profile": measure_profile(segmented),
        "histogram": density.histogram(estimated=not intensity.calibrated),
        "density_bands": density.bands(intensity.calibrated, scan.geometry.voxel_ml, _no_spacing(scan)),
        "slices": len(lesions),
        "lesion_slices": int(has_lesion.sum()),
        "lesion_slice_indices": sorted(int(n) for n in view.slice_numbers[has_lesion]),
        "lesion_count": lesion_count,
        "largest_lesions": largest,
        "mean_intensity": density.means(intensity.calibrated),
        "intensity": {"kind": intensity.kind.value, "reason": intensity.reason, "calibrated": intensity.calibrated},
        "model": model,
        "corrected_by_hand": corrected,
        "version": version("groundglass"),
        "analysed": datetime.now().astimezone().replace(microsecond=0),
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


def _input(segmented: SegmentedScan, with_identity: bool, label: str | None) -> dict[str, Any]:
    scan, view = segmented.scan, segmented.view
    spacing = tuple(round(mm, 4) for mm in scan.geometry.spacing) if scan.geometry.in_mm else None
    left_out = Unknown("left out, so that findings can be passed on: ask for it (--with-identity)")
    has_positions = scan.geometry.in_mm and scan.geometry.has_directions
    no_positions = NO_DIRECTIONS if scan.geometry.in_mm else _no_spacing(scan)
    return {
        "label": known(label and in_unicode(label), "no label was given"),
        "identity": _identity(scan) if with_identity else left_out,
        "kind": "pictures" if isinstance(scan, ImageStack) else "volume",
        "shape": scan.geometry.shape,
        "spacing_mm": known(spacing, _no_spacing(scan)),
        **_series(scan),
        "image_numbers": image_numbers(scan, view),
        "slice_positions_mm": slice_positions(view) if has_positions else Unknown(no_positions),
    }


def _series(scan: Scan) -> dict[str, Any]:
    """Return the fields of an `Input` that only DICOM states."""
    if scan.series is None:
        return dict.fromkeys(("scanned", "series", "slice_thickness_mm", "kernel"), Unknown(NOT_DICOM))
    from groundglass.io.dicom_header import kernel_of, thickness_of  # pydicom loads slowly, and only DICOM needs it

    header, not_stated = scan.series.headers[0], "the headers do not state it"
    return {
        "scanned": known(scan.series.acquired, not_stated),
        "series": known(scan.series.name or None, not_stated),
        "slice_thickness_mm": known(thickness_of(header), not_stated),
        "kernel": known(kernel_of(header) or None, not_stated),
    }


def _no_spacing(scan: Scan) -> str:
    """Return why lengths are unknown in a scan without spacing."""
    return NO_SPACING_OF_PICTURES if isinstance(scan, ImageStack) else NO_SPACING


def _identity(scan: Scan) -> Identity:
    header = scan.series.headers[0] if scan.series else None

    def stated(keyword: str) -> str | None:
        return str(header[keyword].value) if header is not None and header.get(keyword) else None

    return Identity(
        source=in_unicode(scan.source.name) if scan.source else None,
        patient_name=stated("PatientName"),
        patient_id=stated("PatientID"),
        birth_date=stated("PatientBirthDate"),
    )


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
    return measure_zones(segmented) or Unknown(NO_THIRDS)


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
        "lesion_share_of_lung_percent": percent_of(lesion_in_lung, lung_voxels),
    }


def _classes(segmented: SegmentedScan, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the fields of a `ClassBurden` for each class of lesions."""
    voxels, lung = np.zeros(len(names) + 1, dtype=np.int64), int(voxels_per_slice(segmented.lung_field.mask).sum())
    in_lung, voxel_ml = voxels.copy(), segmented.scan.geometry.voxel_ml
    for z, packed in enumerate(segmented.class_map.slices):
        if packed.box is None:
            continue
        rows, columns = packed.box
        plane, inside = (mask[z, rows, columns] for mask in (segmented.class_map, segmented.lung_field.mask))
        voxels += np.bincount(plane.ravel(), minlength=len(voxels))[: len(voxels)]
        in_lung += np.bincount(plane[inside], minlength=len(voxels))[: len(voxels)]
    no_spacing, no_lung = _no_spacing(segmented.scan), "no lung was found in the scan"
    return [
        {
            "name": name,
            "volume_ml": Unknown(no_spacing) if voxel_ml is None else round(int(voxels[number]) * voxel_ml, 3),
            "lesion_share_of_lung_percent": percent_of(int(in_lung[number]), lung) if lung else Unknown(no_lung),
        }
        for number, name in enumerate(names, start=1)
    ]


def _intervals(burden: dict[str, Any], interval: BurdenInterval | None, outside_ml: float) -> dict[str, Any]:
    """Return the intervals of the volume and of the share.

    That of the volume is that of the share times the lung, and what of the lesions lies outside the lung.
    """
    share, lung_ml = burden["lesion_share_of_lung_percent"], burden["lung_volume_ml"]
    if interval is None or isinstance(share, Unknown):
        return dict.fromkeys(("lesion_volume_interval_ml", "lesion_share_interval_percent"), Unknown(NO_INTERVAL))
    ends = interval.of(share)
    volumes = (
        lung_ml if isinstance(lung_ml, Unknown) else tuple(round(end / 100 * lung_ml + outside_ml, 1) for end in ends)
    )
    return {
        "lesion_volume_interval_ml": volumes,
        "lesion_share_interval_percent": tuple(round(end, 2) for end in ends),
    }


def _extent(
    share_percent: float | Unknown, interval: Interval | Unknown, scan: Scan, corrected: bool
) -> Extent | Unknown:
    if isinstance(scan, ImageStack):
        return Unknown("a picture is one slice of a lung, whose volume is not known")
    if isinstance(share_percent, Unknown):
        return share_percent
    if corrected:  # a person marks nothing that is marked in healthy lungs
        return classify_extent(share_percent, (share_percent, share_percent))
    return classify_extent(share_percent, None if isinstance(interval, Unknown) else interval)


def _unknowns_of_lesions(segmented: SegmentedScan) -> Unknowns:
    """Return why parts of the description of a lesion are unknown."""
    geometry, are_pictures = segmented.view.geometry, isinstance(segmented.scan, ImageStack)
    side = _no_sides(segmented)
    no_spacing = None if geometry.in_mm else _no_spacing(segmented.scan)
    return Unknowns(
        size=no_spacing,
        side=side,
        zone="a picture is one slice of a lung, whose height is not known" if are_pictures else side,
        density=None if segmented.intensity.calibrated else NO_HU,
        position=no_spacing or (None if geometry.has_directions else NO_DIRECTIONS),
    )


def _warnings(lesion_voxels: int, outside: int, intensity: Intensity, geometry: Geometry) -> tuple[str, ...]:
    """Warn of estimated intensities, and of lesions of which many voxels (`outside`) lie outside the lungs."""
    warnings = []
    if not intensity.calibrated:
        warnings.append(f"the intensities are {intensity.kind.value}: HU are estimated, lesions are less certain")
    if outside > OUTSIDE_PERCENT / 100 * max(1, lesion_voxels):
        amount = f"{outside} pixels" if geometry.voxel_ml is None else f"{outside * geometry.voxel_ml:.1f} ml"
        warnings.append(f"{amount} of lesion lie outside the lung field: look at the mask")
    return tuple(warnings)
