"""Telling the right lung from the left one, also where they touch."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.components import CONNECTIVITY_6, ConnectedComponents, find_components
from groundglass.scan.packed_mask import PackedMask, PackedSlice, Voxels, bounding_box, pack_slice, voxels_per_slice

MAX_EROSIONS = 12
CORE_SHARE = 0.15  # a core has at least this share of what the erosions leave of the lungs
SIDE_SHARE = 0.15  # with less than this share of its pixels on one half of the image, there is one lung only
SLICES_AT_ONCE = 32
SLICE_DISTANCE_PX = 4.0  # a slice counts as this many pixels when distances to the cores are compared


def split_left_right(lungs: PackedMask) -> PackedMask:
    """Return (z, y, x) bool: the patient's right lung, which lies at small x.

    The lungs are eroded until they fall into two large regions, the cores; each voxel then belongs to the side of the
    nearest core. If they never do, the middle column divides them, and a single lung belongs to the side it lies on.
    """
    bounds = bounding_box(reduce(np.logical_or, lungs))
    if bounds is None:
        return lungs
    middle = (bounds[1].start + bounds[1].stop - 1) / 2
    eroded = lungs
    for _ in range(MAX_EROSIONS):
        regions = find_components(eroded, CONNECTIVITY_6)
        sizes = regions.sizes[1:]
        if not len(sizes):
            break
        large = np.flatnonzero(sizes > CORE_SHARE * sizes.sum()) + 1
        centres = regions.centroids(large)[:, 2]
        if len(large) >= 2 and centres.min() < middle < centres.max():
            return assign_to_nearest_core(lungs, regions, large, centres < middle, bounds)
        eroded = PackedMask.from_slices(_erode(plane) for plane in eroded)
    column = np.arange(lungs.shape[2])
    on_right = PackedMask.from_slices(plane & (column < len(column) / 2) for plane in lungs)
    share = voxels_per_slice(on_right).sum() / voxels_per_slice(lungs).sum()
    if not SIDE_SHARE < share < 1 - SIDE_SHARE:
        return lungs if share > 0.5 else PackedMask.from_slices(np.zeros_like(plane) for plane in lungs)
    return PackedMask.from_slices(plane & (column < middle) for plane in lungs)


def _erode(plane: Voxels) -> Voxels:
    """Return (y, x) bool: a slice of a mask without the pixels at its rim."""
    eroded, bounds = np.zeros_like(plane), bounding_box(plane)
    if bounds is not None:
        eroded[bounds] = ndimage.binary_erosion(plane[bounds])
    return eroded


def assign_to_nearest_core(
    lungs: PackedMask,
    regions: ConnectedComponents,
    cores: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    bounds: tuple[slice, ...],
) -> PackedMask:
    """Return (z, y, x) bool: the voxels of the lungs whose nearest core is a right one.

    Args:
        lungs: (z, y, x) both lungs.
        regions: What the erosions leave of the lungs.
        cores: (cores,) labels of the regions that are cores.
        is_right: (cores,) whether each core is part of the right lung.
        bounds: Rows and columns that hold all lung voxels.
    """
    is_core, is_right_core = (np.zeros(len(regions.sizes), dtype=np.bool_) for _ in range(2))
    is_core[cores], is_right_core[cores[is_right]] = True, True
    all_cores, right_cores = regions.select(is_core), regions.select(is_right_core)
    planes: list[PackedSlice] = []
    for start in range(0, len(lungs), SLICES_AT_ONCE):
        stop = min(len(lungs), start + SLICES_AT_ONCE)
        right = right_cores.stack(start, stop)
        beside_cores = lungs.stack(start, stop) & ~all_cores.stack(start, stop)
        if beside_cores.any():
            voxels = np.argwhere(beside_cores) + np.array([start, 0, 0])
            right[beside_cores] = _nearest_is_right(voxels, all_cores, right_cores, bounds)
        planes += map(pack_slice, right)
    return PackedMask(tuple(planes))


def _nearest_is_right(
    voxels: NDArray[np.int64], all_cores: PackedMask, right_cores: PackedMask, bounds: tuple[slice, ...]
) -> NDArray[np.bool_]:
    """Return (voxels,) bool: whether the core that is nearest to each voxel is a right one.

    One distance transform of the whole scan would be shorter, but its indices take 12 bytes a voxel. The transform is
    therefore limited to the slices around the voxels, and repeated with more of them until no core in the slices
    outside can be nearer than one inside. A k-d tree is no substitute: of two cores at the same distance it may choose
    the other one.

    Args:
        voxels: (voxels, 3) z, y, x, sorted by z.
        all_cores: (z, y, x) cores of both lungs.
        right_cores: (z, y, x) cores of the right lung.
        bounds: Rows and columns that hold all voxels and cores.
    """
    rows, columns = bounds
    spacing = np.array([SLICE_DISTANCE_PX, 1.0, 1.0])
    reach = 8  # slices below and above the voxels
    while True:
        start, stop = max(0, int(voxels[0, 0]) - reach), min(len(all_cores), int(voxels[-1, 0]) + reach + 1)
        is_core = all_cores.stack(start, stop)[:, rows, columns]
        if is_core.any():
            indices = ndimage.distance_transform_edt(~is_core, spacing, return_distances=False, return_indices=True)
            origin = np.array([start, rows.start, columns.start])
            nearest = np.asarray(indices)[(slice(None), *(voxels - origin).T)].T
            offsets = (nearest + origin - voxels) * spacing
            all_slices = len(is_core) == len(all_cores)
            if all_slices or (offsets**2).sum(1).max() <= (SLICE_DISTANCE_PX * reach) ** 2:
                return np.asarray(right_cores.stack(start, stop)[:, rows, columns][tuple(nearest.T)])
        reach *= 2
