"""Masks of a slice grown, shrunk, filled and labelled: by OpenCV, which needs a tenth of the time of SciPy.

Every function gives exactly what its counterpart in `scipy.ndimage` gives.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from groundglass.scan.packed_mask import Voxels

Labels = NDArray[np.int32]
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))  # a pixel and the four beside it
_SQUARE = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 3))  # the four at its corners too
_OUTSIDE = cv2.BORDER_CONSTANT


def dilate(mask: Voxels, pixels: int, square: bool = False) -> Voxels:
    """Return (y, x) the mask with what that many steps along rows and columns lead to; `square`: diagonal ones too."""
    return cv2.dilate(mask.view(np.uint8), _SQUARE if square else _CROSS, iterations=pixels).view(np.bool_)


def erode(mask: Voxels, pixels: int, square: bool = False) -> Voxels:
    """Return (y, x) the mask without what that many steps lead to from outside, where also what is beyond the edge is.

    Args:
        mask: The mask.
        pixels: Number of steps along rows and columns.
        square: Whether diagonal ones count too.
    """
    kernel, inside = _SQUARE if square else _CROSS, mask.view(np.uint8)
    return cv2.erode(inside, kernel, iterations=pixels, borderType=_OUTSIDE, borderValue=[0]).view(np.bool_)


def fill_holes(mask: Voxels) -> Voxels:
    """Return (y, x) the mask with its holes filled: what cannot be reached from the edge along rows and columns."""
    filled = np.pad(mask.view(np.uint8), 1)
    cv2.floodFill(filled, None, (0, 0), [2], flags=4)
    return np.asarray(filled[1:-1, 1:-1] != 2)


def label_parts(mask: Voxels, diagonal: bool) -> Labels:
    """Number the connected parts of a mask (y, x) from 1, in the order of their first pixels; 0 is the background.

    Args:
        mask: The mask.
        diagonal: Whether pixels that touch at a corner are connected.
    """
    connectivity, order_kept = 8 if diagonal else 4, cv2.CCL_WU
    _, labels = cv2.connectedComponentsWithAlgorithm(mask.view(np.uint8), connectivity, cv2.CV_32S, order_kept)
    return np.asarray(labels)


def distance_to(mask: Voxels) -> NDArray[np.float32]:
    """Return (y, x) each pixel's distance to the mask; infinite if the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance.astype(np.float32, copy=False)
