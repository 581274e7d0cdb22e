"""Lungs of whole volumes in HU by thresholds: they label the training slices whose lungs no mask states.

Air inside the body is lung, airway or bowel. Regions that are too dark for lung are dropped, and the gaps that vessels
and dense lesions leave are closed slice by slice. Right on most scans, wrong where the field of view cuts the lungs, or
bowel holds much air: what is labelled so has to be looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.geometry import Geometry
from groundglass.scan.morphology import fill_holes
from groundglass.scan.packed_mask import PackedMask, Voxels

AIR_LIKE_HU = -400.0  # pixels below this are lung or gas
GAS_HU = -950.0  # a region with more than half of its pixels below this is gas: airway, bowel, or outside the body
WORKING_MM = 1.4  # approximate spacing of the grid on which the lungs are found
CLOSE_MM = 10.0  # radius of the closing
SMALLEST_SLICE_MM2 = 150.0  # a slice with less lung than this counts as a slice without lung
SMALLEST_REGION = 0.04  # share of the largest region: smaller regions are no lung


def lungs_by_thresholds(hu: NDArray[np.float32], geometry: Geometry) -> Voxels:
    """Find the lungs of a volume.

    Args:
        hu: (z, y, x) upright axial slices.
        geometry: The grid of those slices, in mm.

    Returns:
        (z, y, x) both lungs.
    """
    step = max(1, int(WORKING_MM / max(geometry.spacing[1:]) + 0.25))
    spacing = (geometry.spacing[1] * step, geometry.spacing[2] * step)
    air = PackedMask.from_slices(_air_in_body(plane[::step, ::step], spacing) for plane in hu)
    regions = find_components(air, CONNECTIVITY_6)
    lungs = regions.select(regions.sizes >= SMALLEST_REGION * regions.sizes.max())
    return np.stack([_refine(_close_slice(plane, spacing), hu.shape[1:], step) for plane in lungs])


def _air_in_body(plane: NDArray[np.float32], spacing: tuple[float, float]) -> Voxels:
    """Return (y, x) bool: the air-like pixels of a slice that are neither outside the body nor gas."""
    smooth = ndimage.gaussian_filter(plane, [0.8 / s for s in spacing])
    regions, count = ndimage.label(smooth < AIR_LIKE_HU)
    if not count:
        return np.zeros(plane.shape, dtype=np.bool_)
    labels = np.arange(1, count + 1)
    area_mm2 = np.bincount(regions.ravel(), minlength=count + 1)[1:] * spacing[0] * spacing[1]
    dark, darkest = (_share_below(plane, hu, regions, count) > 0.5 for hu in (GAS_HU, GAS_HU - 30))
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outside = np.bincount(rim, minlength=count + 1)[1:] > 0  # the air around the body
    gas = (dark & (area_mm2 < 3000)) | darkest
    keep = ~outside & ~gas & (area_mm2 > 30)
    return np.isin(regions, labels[keep])


def _share_below(plane: NDArray[np.float32], hu: float, regions: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return (count,) the share of each region's pixels that are below `hu`."""
    below = np.bincount(regions.ravel(), weights=(plane < hu).ravel(), minlength=count + 1)[1:]
    return np.asarray(below / np.bincount(regions.ravel(), minlength=count + 1)[1:])


def _close_slice(plane: Voxels, spacing: tuple[float, float]) -> Voxels:
    """Return (y, x) bool: a slice with vessels, lesions at the rim and holes closed, each region on its own."""
    closed = np.zeros_like(plane)
    if plane.sum() * spacing[0] * spacing[1] < SMALLEST_SLICE_MM2:
        return closed
    pad = round(CLOSE_MM / min(spacing)) + 1
    regions, _ = ndimage.label(plane)
    for label, bounds in enumerate(ndimage.find_objects(regions), start=1):
        region = np.pad(regions[bounds] == label, pad)
        # Closing with a disc by distance transforms: a dilation, then an erosion.
        grown = ndimage.distance_transform_edt(~region, sampling=spacing) <= CLOSE_MM
        region = fill_holes(region | (ndimage.distance_transform_edt(grown, sampling=spacing) > CLOSE_MM))
        closed[bounds] |= region[pad:-pad, pad:-pad]
    return closed


def _refine(plane: Voxels, shape: tuple[int, ...], step: int) -> Voxels:
    """Return (y, x) bool on the scan's own pixels, from the working grid."""
    if step == 1:
        return plane
    fine = plane.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]
    # The sampled pixel is the first of its block: a shift by half a block centres the block on it.
    return np.roll(fine, -(step // 2), axis=(0, 1))
