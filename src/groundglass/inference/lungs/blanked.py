"""Scans in which all outside the lungs was set to one number, as some data sets do.

In HU they are seen with soft tissue in its place: the lesion network takes healthy lung beside air for lesion. Of grey
levels the window cannot be told without a body, and they are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import IntensityError
from groundglass.inference.lungs.parts import View
from groundglass.inference.lungs.window import levels_around
from groundglass.scan.intensity import HuSlices, StoredNumbers
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import PackedMask

SAMPLED_SLICES, STEP = 40, 4  # slices and pixels that are looked at
BLANK = 0.4  # share of all pixels: with fewer of the most frequent number, nothing was blanked
AIR_LIKE_HU, SOFT_TISSUE_FROM_HU = -950.0, -200.0
LEAST_SOFT_TISSUE = 0.4  # share of what is no air: with less, there is no body around the lungs
MOST_ALIKE = 0.6  # share of the pixels around the lungs: with more of one grey level, what was there is gone


def blank_number(values: NDArray[Any], numbers: StoredNumbers) -> float | None:
    """Return the number that all outside the lungs was set to; None if there is a body, or HU are not known.

    Args:
        values: (z, y, x) the scan's numbers.
        numbers: What they are.
    """
    if numbers.kind.is_window:
        return None
    sample = values[:: max(1, len(values) // SAMPLED_SLICES), ::STEP, ::STEP]
    found, counts = np.unique(sample, return_counts=True)
    blank = found[counts.argmax()]
    hu = sample[sample != blank] - numbers.shift_hu
    soft = hu[hu > AIR_LIKE_HU] > SOFT_TISSUE_FROM_HU
    is_blanked = counts.max() > BLANK * sample.size and soft.size > 0 and soft.mean() < LEAST_SOFT_TISSUE
    return float(blank) if is_blanked else None


def with_soft_tissue(hu: HuSlices, blank: float, lung_field: LungField) -> tuple[HuSlices, LungField]:
    """Return HU with soft tissue in place of the blanked number outside the lungs, and the lungs with a warning.

    Args:
        hu: (z, y, x) as stored.
        blank: The number that all outside the lungs was set to.
        lung_field: The lungs.
    """
    blanked = ((plane == blank) & ~lungs for plane, lungs in zip(hu.values, lung_field.mask, strict=True))
    warning = f"all outside the lungs is {blank:g}: it was blanked, and is taken for soft tissue"
    return (
        replace(hu, blanked=PackedMask.from_slices(blanked)),
        replace(lung_field, warnings=(*lung_field.warnings, warning)),
    )


def check_not_blanked(located: Sequence[View]) -> None:
    """Refuse grey levels without a body: nothing tells their window. White is left to the estimate of the window.

    Args:
        located: What the lung network said of the slices, and their levels on its grid.

    Raises:
        IntensityError: What lies around the lungs of a part is of one grey level.
    """
    for view in located:
        around = levels_around(view.levels, view.lungs)
        found, counts = np.unique(around, return_counts=True)
        if not found.size or counts.max() <= MOST_ALIKE * around.size:
            continue
        blank = found[counts.argmax()]
        if blank < view.levels.max():
            raise IntensityError(
                f"all outside the lungs is of the grey level {blank:.3g}, so that nothing tells the window of the "
                "others: use the scan from before the lungs were cut out, or one in HU"
            )
