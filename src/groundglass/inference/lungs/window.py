"""The window of grey levels, estimated from tissues whose place the lungs tell.

Three tissues have known HU: the darkest part of the lungs, the soft tissue around them (muscle, heart, vessels), and
air, outside the body or in the airways, if the window shows it. The first two give a line; where air lies close to
where that line expects it, it takes the place of the lungs, which differ more from patient to patient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import IntensityError
from groundglass.scan.intensity import AIR_HU, SOFT_TISSUE_HU
from groundglass.scan.morphology import dilate
from groundglass.scan.packed_mask import Voxels

Line = tuple[float, float]  # slope, intercept: HU = slope * level + intercept
DARK_LUNG_HU = -900.0  # the darkest twentieth of the lungs
AROUND_PIXELS = 8  # how far around the lungs soft tissue is looked for, on the lung network's grid
BLACK, WHITE = 0.02, 0.006  # shares of the range of levels: nearer to its end than this, a level counts as clipped
MOST_BLACK_LUNG, MOST_WHITE_TISSUE = 0.25, 0.85  # shares of the pixels
NEAR_AIR_HU = np.arange(-1110.0, -895.0, 5.0)  # where air may lie by the first line
BRIGHTEST_AIR_HU = -935.0  # what is most frequent above is no air but lung that was missed
LEAST_CONTRAST = 0.06  # share of the range of levels
LEAST_AIR = 0.002  # share of all pixels
EXPORT = "export it in a lung window, such as -1350 to 150 HU, or as DICOM or NIfTI in HU"


def estimate_window(levels: NDArray[np.float32], lungs: Voxels) -> Line:
    """Estimate the line from grey levels to HU.

    Args:
        levels: (n, y, x) slices that share one window, on the lung network's grid.
        lungs: (n, y, x) their lungs; at least one pixel.

    Raises:
        IntensityError: The window clips lungs or soft tissue so far that lesions cannot be told.
    """
    low, high = float(levels.min()), float(levels.max())
    darkest, brightest = low + BLACK * (high - low), high - WHITE * (high - low)
    in_lung, tissue = levels[lungs], _soft_tissue(levels, lungs)
    if (in_lung <= darkest).mean() > MOST_BLACK_LUNG:
        raise IntensityError(f"the window of the grey levels shows the lungs black, so that lesions are lost: {EXPORT}")
    if not len(tissue) or (tissue >= brightest).mean() > MOST_WHITE_TISSUE:
        raise IntensityError(
            "the window of the grey levels shows all tissue around the lungs white, so that dense lesions cannot be "
            f"told from it: {EXPORT}"
        )
    dark, soft = float(np.percentile(in_lung, 5)), float(np.median(tissue))
    if soft - dark < LEAST_CONTRAST * (high - low):
        raise IntensityError(f"lungs and soft tissue are nearly of the same grey, {dark:.3g} and {soft:.3g}: {EXPORT}")
    first = _line_through(dark, DARK_LUNG_HU, soft)
    air = _air_level(levels, lungs, first, darkest)
    return first if air is None else _line_through(air, AIR_HU, soft)


def _line_through(dark: float, dark_hu: float, soft: float) -> Line:
    slope = (SOFT_TISSUE_HU - dark_hu) / (soft - dark)
    return slope, dark_hu - slope * dark


def _grown(lungs: Voxels, pixels: int) -> Voxels:
    """Return (n, y, x) each slice's lungs with what lies within `pixels` of them."""
    return np.stack([dilate(plane, pixels, square=True) for plane in lungs])


def levels_around(levels: NDArray[np.float32], lungs: Voxels) -> NDArray[np.float32]:
    """Return the levels within `AROUND_PIXELS` of the lungs."""
    return levels[_grown(lungs, AROUND_PIXELS) & ~_grown(lungs, 1)]


def _soft_tissue(levels: NDArray[np.float32], lungs: Voxels) -> NDArray[np.float32]:
    """Return the levels around the lungs that are nearer to tissue than to lung."""
    around = levels_around(levels, lungs)
    if not len(around):
        return around
    middle = (float(np.median(levels[lungs])) + float(np.percentile(around, 75))) / 2
    return around[around > middle]


def _air_level(levels: NDArray[np.float32], lungs: Voxels, line: Line, darkest: float) -> float | None:
    """Return the most frequent level near -1000 HU outside the lungs; None if too few pixels have it."""
    outside = levels[~_grown(lungs, 2)]
    slope, intercept = line
    counts, _ = np.histogram(slope * outside[outside > darkest] + intercept, bins=NEAR_AIR_HU)
    smooth = np.convolve(counts, np.ones(3), "same")
    hu = float(NEAR_AIR_HU[int(smooth.argmax())] + 2.5)
    if counts.sum() < LEAST_AIR * levels.size or hu > BRIGHTEST_AIR_HU:
        return None
    return (hu - intercept) / slope
