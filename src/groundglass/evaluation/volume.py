"""Scores that need a whole volume of known spacing: millilitres, burden, and distances between surfaces."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from groundglass.evaluation.agreement import PairedMeasurement
from groundglass.evaluation.surface import compare_surfaces
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.measurement import NO_SPACING
from groundglass.scan.lung_field import LungField

UNRELATED = "its slices are of different patients"
PARTLY = "only some of its slices count"
ALL_LESION = "every slice that counts shows lesion"


@dataclass(frozen=True)
class VolumeScores:
    """Scores of one case as a volume; a score that is unknown is None, with its reason in `unknown`.

    Attributes:
        hd95_mm: 95th percentile of the surface distances, see `SurfaceScores`.
        surface_dice: Surface Dice, see `SurfaceScores`.
        volume_ml: Volume of the lesions.
        burden_percent: Lesion inside the lung field in percent of the field, which includes the lesions.
        false_positive_ml: Volume predicted in slices whose reference shows no lesion.
        unknown: {attribute: reason why it is None}.
    """

    hd95_mm: float | None
    surface_dice: float | None
    volume_ml: PairedMeasurement | None
    burden_percent: PairedMeasurement | None
    false_positive_ml: float | None
    unknown: dict[str, str]


QUANTITIES = tuple(field.name for field in fields(VolumeScores) if field.name != "unknown")


def measure_volume(
    segmented: SegmentedScan,
    lungs: LungField,
    truth: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    unrelated_slices: bool,
) -> VolumeScores:
    """Score a case as a volume, in its upright axial view.

    Args:
        segmented: The prediction.
        lungs: The lung field before the predicted lesions were included.
        truth: (z, y, x) lesions of the reference.
        counted: (z,) True for the slices that count.
        unrelated_slices: True if the slices are of different patients, or pictures.
    """
    voxel_ml = segmented.view.geometry.voxel_ml
    if voxel_ml is None or unrelated_slices:
        reason = NO_SPACING if voxel_ml is None else UNRELATED
        return VolumeScores(None, None, None, None, None, dict.fromkeys(QUANTITIES, reason))
    lesions = np.asarray(segmented.lesions)
    lesion_free = counted & ~truth.any((1, 2))
    false_positive_ml = float(lesions[lesion_free].sum()) * voxel_ml if lesion_free.any() else None
    unknown = {} if lesion_free.any() else {"false_positive_ml": ALL_LESION}
    if not counted.all():
        partly = dict.fromkeys(QUANTITIES[:-1], PARTLY)
        return VolumeScores(None, None, None, None, false_positive_ml, partly | unknown)
    surface = compare_surfaces(lesions, truth, segmented.view.geometry.spacing)
    burdens = _burden(lesions, segmented.lung_field), _burden(truth, lungs.including_lesions(truth))
    return VolumeScores(
        surface.hd95_mm,
        surface.surface_dice,
        PairedMeasurement(*(float(mask.sum()) * voxel_ml for mask in (lesions, truth))),
        PairedMeasurement(*burdens),
        false_positive_ml,
        surface.unknown | unknown,
    )


def _burden(lesions: NDArray[np.bool_], lungs: LungField) -> float:
    """Lesion inside the lung field in percent of the field, as the findings give it."""
    lung = np.asarray(lungs.mask)
    return 100 * float((lesions & lung).sum()) / float(lung.sum())
