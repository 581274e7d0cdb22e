"""How far two masks' surfaces lie apart, in millimetres.

A voxel is surface where its mask ends at one of its six faces, the rim of the array included. Distances run from the
centre of each surface voxel to the centre of the nearest one of the other mask: MONAI's convention without subvoxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCE_MM = 2.0
_ROUNDING_MM = 1e-5  # what a spacing that comes from a float32 affine may be off by
PERCENTILE = 95
EMPTY_MASK = "the reference or the prediction is empty"
BOTH_EMPTY = "the reference and the prediction are empty"
COARSE = f"the pixels are wider than the tolerance of {TOLERANCE_MM:g} mm"


@dataclass(frozen=True)
class SurfaceScores:
    """Of one volume.

    Attributes:
        hd95_mm: The larger of the two directions' 95th percentile of the distances; None where either mask is empty.
        surface_dice: Share of both surfaces' voxels within `TOLERANCE_MM` of the other; 0 where one mask is empty, None
            where both are, or where the pixels are wider than the tolerance.
        unknown: {name of a None: why}.
    """

    hd95_mm: float | None
    surface_dice: float | None
    unknown: dict[str, str]


def surface_scores(
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
    there, back = _distances(predicted, truth, spacing_mm)
    hd95 = max(float(np.percentile(part, PERCENTILE)) for part in (there, back))
    distances = np.concatenate([there, back])
    dice = None if unknown else float((distances <= TOLERANCE_MM + _ROUNDING_MM).mean())
    return SurfaceScores(hd95, dice, unknown)


def _distances(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each surface voxel of `a` to the surface of `b`, and the other way round."""
    (place,) = ndimage.find_objects((a | b).astype(np.uint8))
    surface_a, surface_b = (mask[place] & ~ndimage.binary_erosion(mask[place]) for mask in (a, b))
    return _to(surface_b, spacing_mm)[surface_a], _to(surface_a, spacing_mm)[surface_b]


def _to(surface: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(~surface, sampling=spacing_mm))
