"""What only a whole volume of known spacing has: millilitres, burden, and distances between surfaces."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from groundglass.evaluation.agreement import PairedMeasurement
from groundglass.evaluation.surface import surface_scores
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.findings import NO_SPACING
from groundglass.scan.lung_field import LungField

UNRELATED = "its slices are of different patients"
PARTLY = "only some of its slices count"
ALL_LESION = "every slice that counts shows lesion"


@dataclass(frozen=True)
class VolumeScores:
    """Of one case; what is unknown is None, with its reason in `unknown`.

    Attributes:
        hd95_mm: See `surface`.
        surface_dice: See `surface`.
        volume_ml: Of lesion.
        burden_percent: Lesion inside the lung field, of the field, lesions counted in.
        false_positive_ml: Marked in slices whose reference shows no lesion.
        unknown: {attribute: why it is None}.
    """

    hd95_mm: float | None
    surface_dice: float | None
    volume_ml: PairedMeasurement | None
    burden_percent: PairedMeasurement | None
    false_positive_ml: float | None
    unknown: dict[str, str]


QUANTITIES = tuple(field.name for field in fields(VolumeScores) if field.name != "unknown")


def volume_scores(
    at: SegmentedScan, field: LungField, truth: NDArray[np.bool_], counted: NDArray[np.bool_], unrelated_slices: bool
) -> VolumeScores:
    """Measure a case in its axial view.

    Args:
        at: What was found.
        field: The lung field before what was found was counted in.
        truth: (z, y, x) the reference's lesions.
        counted: (z,) which slices count.
        strangers: Whether its slices stand alone.
    """
    voxel_ml = at.view.geometry.voxel_ml
    if voxel_ml is None or unrelated_slices:
        reason = NO_SPACING if voxel_ml is None else UNRELATED
        return VolumeScores(None, None, None, None, None, dict.fromkeys(QUANTITIES, reason))
    lesions = np.asarray(at.lesions)
    free = counted & ~truth.any((1, 2))
    false_ml = float(lesions[free].sum()) * voxel_ml if free.any() else None
    unknown = {} if free.any() else {"false_positive_ml": ALL_LESION}
    if not counted.all():
        return VolumeScores(None, None, None, None, false_ml, dict.fromkeys(QUANTITIES[:-1], PARTLY) | unknown)
    surface = surface_scores(lesions, truth, at.view.geometry.spacing)
    return VolumeScores(
        surface.hd95_mm,
        surface.surface_dice,
        PairedMeasurement(*(float(mask.sum()) * voxel_ml for mask in (lesions, truth))),
        PairedMeasurement(_burden(lesions, at.lung_field), _burden(truth, field.including_lesions(truth))),
        false_ml,
        surface.unknown | unknown,
    )


def _burden(lesions: NDArray[np.bool_], field: LungField) -> float:
    """As the findings give it: lesion inside the lung, in percent of the lung."""
    lung = np.asarray(field.mask)
    return 100 * float((lesions & lung).sum()) / float(lung.sum())
