"""Distances between the surfaces of two masks, in millimetres.

A voxel belongs to the surface if one of its six faces borders on the outside of the mask or on the rim of the array.
Distances run from the centre of each surface voxel to the centre of the nearest one of the other mask, the convention
of MONAI without subvoxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCE_MM = 2.0
_ROUNDING_MM = 1e-5  # possible error of a spacing that comes from a float32 affine
PERCENTILE = 95
EMPTY_MASK = "the reference or the prediction is empty"
BOTH_EMPTY = "the reference and the prediction are empty"
COARSE = f"the pixels are wider than the tolerance of {TOLERANCE_MM:g} mm"


@dataclass(frozen=True)
class SurfaceScores:
    """Surface scores of one volume.

    Attributes:
        hd95_mm: The larger of the two directions' 95th percentile of the distances; None where either mask is empty.
        surface_dice: Share of both surfaces' voxels within `TOLERANCE_MM` of the other; 0 where one mask is empty, None
            where both are, or where the pixels are wider than the tolerance.
        unknown: {attribute: reason why it is None}.
    """

    hd95_mm: float | None
    surface_dice: float | None
    unknown: dict[str, str]


def compare_surfaces(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> SurfaceScores:
    """Compare two (z, y, x) masks on a grid of `spacing_mm` along (z, y, x)."""
    empty = not predicted.any(), not truth.any()
    unknown = {}
    if any(empty):
        unknown["hd95_mm"] = EMPTY_MASK
    if max(spacing_mm[1:]) > TOLERANCE_MM + _ROUNDING_MM:
        unknown["surface_dice"] = COARSE
    if all(empty):
        unknown["surface_dice"] = BOTH_EMPTY
    if any(empty):
        return SurfaceScores(None, None if "surface_dice" in unknown else 0.0, unknown)
    to_truth, to_predicted = _surface_distances(predicted, truth, spacing_mm)
    hd95 = max(float(np.percentile(distances, PERCENTILE)) for distances in (to_truth, to_predicted))
    within = np.concatenate([to_truth, to_predicted]) <= TOLERANCE_MM + _ROUNDING_MM
    return SurfaceScores(hd95, None if unknown else float(within.mean()), unknown)


def _surface_distances(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of the surface voxels of `a` to the surface of `b`, and of those of `b` to that of `a`."""
    (bounding_box,) = ndimage.find_objects((a | b).astype(np.uint8))
    surface_a, surface_b = (mask[bounding_box] & ~ndimage.binary_erosion(mask[bounding_box]) for mask in (a, b))
    return _distance_map(surface_b, spacing_mm)[surface_a], _distance_map(surface_a, spacing_mm)[surface_b]


def _distance_map(surface: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """(z, y, x) distance of every voxel to the nearest voxel of a surface."""
    return np.asarray(ndimage.distance_transform_edt(~surface, sampling=spacing_mm))
