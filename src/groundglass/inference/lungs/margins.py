"""The part of a picture that shows the slice: the page or the frame around it is left out.

The lung network has learned from slices alone. A white page around one takes the place of the brightest tissue, and a
wide black border leaves the slice few of the network's pixels: lungs are missed then. A slice itself has no row of one
level, but for air that the window shows black.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.lung_field import Box

ALIKE = 0.02  # share of the range of levels: levels that differ by less are one, as after JPEG compression
WIDE_BLACK = 1 / 3  # share of the rows or the columns: less that is black may be air
BLANKED = 0.2  # share of what is inside: if more is of the grey of the margins, they are no page, but blanked tissue


def without_margins(picture: NDArray[Any]) -> Box:
    """Return the part of a picture (y, x) inside margins of one grey level; all of it if there are none."""
    height, width = picture.shape
    darkest, brightest = float(picture.min()), float(picture.max())
    alike = ALIKE * (brightest - darkest)
    top, bottom = _inside(picture.min(1), picture.max(1), darkest, alike)
    left, right = _inside(picture.min(0), picture.max(0), darkest, alike)
    inside = Box(top, bottom, left, right)
    if top >= bottom or left >= right or _is_blanked(picture, inside, alike):
        return Box(0, height, 0, width)
    return inside


def _is_blanked(picture: NDArray[Any], inside: Box, alike: float) -> bool:
    """Return whether the margins are of a grey, neither black nor white, that fills much of what is inside them too."""
    is_margin = np.ones(picture.shape, dtype=np.bool_)
    is_margin[inside.top : inside.bottom, inside.left : inside.right] = False
    if not is_margin.any():
        return False
    grey = np.median(picture[is_margin]).astype(np.float32)
    is_grey = picture.min() + alike < grey < picture.max() - alike
    return bool(is_grey and (abs(picture[~is_margin] - grey) <= alike).mean() > BLANKED)


def _inside(low: NDArray[Any], high: NDArray[Any], darkest: float, alike: float) -> tuple[int, int]:
    """Return the first row or column inside the margins and the one just outside.

    Args:
        low: (n,) the darkest level of each row or column.
        high: (n,) the brightest one.
        darkest: The darkest level of the picture.
        alike: Levels that differ by no more are one.
    """
    margins = [_margin(low, high, alike), _margin(low[::-1], high[::-1], alike)]
    black = [low[0] <= darkest + alike, low[-1] <= darkest + alike]
    if sum(n for n, is_black in zip(margins, black, strict=True) if is_black) <= WIDE_BLACK * len(low):
        margins = [0 if is_black else n for n, is_black in zip(margins, black, strict=True)]
    return margins[0], len(low) - margins[1]


def _margin(low: NDArray[Any], high: NDArray[Any], alike: float) -> int:
    """Count the first rows or columns that are all of the level of the first."""
    is_margin = (high <= float(low[0]) + alike) & (low >= float(high[0]) - alike)
    return len(low) if is_margin.all() else int(is_margin.argmin())
