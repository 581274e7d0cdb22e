"""Finding the lungs by thresholds: where to look for lesions, and what the burden is a share of.

Air inside the body is lung, airway or bowel. Regions too dark to be lung are dropped, and the gaps that vessels and
dense lesions leave are closed slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.errors import LungError
from groundglass.scan.components import CONNECTIVITY_6, ConnectedComponents, find_components
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import HuVolume
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box, LungField, fill_holes
from groundglass.scan.packed_mask import PackedMask, PackedSlice, Voxels, counts, extent, pack
from groundglass.scan.scan import ImageStack, Scan

AIR_LIKE_HU = -400.0  # below it: lung or gas
GAS_HU = -950.0  # a region of which half is below it is airway or bowel gas, or air outside the body
IMAGE_WIDTH_MM = 350.0  # assumed for an image, which states no spacing
WORKING_MM = 1.4  # approximate spacing of the grid on which the lungs are found
CLOSE_MM = 10.0
MARGIN_MM = 8.0
SMALLEST_SLICE_MM2 = 150.0  # a slice with less lung than this counts as a slice without lung
CROPPED_IMAGE = 0.6  # share of an image: a box that covers more shows that the image was cropped to the lungs
SLICES_AT_ONCE = 32
SMALLEST_REGION = 0.04  # share of the largest region of a volume: smaller regions are no lung


def find_lungs(
    scan: Scan, hu: HuVolume, geometry: Geometry, field_of_view: FieldOfView = FieldOfView.LUNGS
) -> LungField:
    """Find the lungs of a volume, or of each image of a stack.

    Args:
        scan: The scan itself, whose type tells a volume from a stack of unrelated images.
        hu: (z, y, x) upright axial slices, HU or estimated HU.
        geometry: The grid of those slices.
        field_of_view: What the boxes hold of the slices with lung.

    Raises:
        LungError: No slice shows lung.
    """
    if isinstance(scan, ImageStack):
        return find_lungs_in_images(hu, geometry, scan.sizes, field_of_view)
    return find_lungs_in_volume(hu, geometry, field_of_view)


def find_lungs_in_volume(hu: HuVolume, geometry: Geometry, field_of_view: FieldOfView = FieldOfView.LUNGS) -> LungField:
    """Find the lungs of a volume. All slices share one box, so that the scale is constant.

    Args:
        hu: (z, y, x) upright axial slices, HU or estimated HU.
        geometry: The grid of those slices.
        field_of_view: What the boxes hold of the slices with lung.

    Raises:
        LungError: No slice shows lung.
    """
    grid = _WorkingGrid.of(geometry)
    coarse = (plane[:: grid.step, :: grid.step] for plane in hu)
    air = PackedMask.from_slices(_air_in_body(plane, grid.spacing, may_be_cropped=False) for plane in coarse)
    lungs = _closed(_without_small_regions(air), grid)
    right, left = _sides(lungs, split_left_right(lungs), grid, hu.shape[1:])
    shown = np.flatnonzero(counts(lungs))
    box = _box(reduce(np.logical_or, lungs), grid, *hu.shape[1:])
    if field_of_view is FieldOfView.SLICE:
        box = Box(0, hu.shape[1], 0, hu.shape[2])
    boxes = tuple(box if shown[0] - 1 <= z <= shown[-1] + 1 else None for z in range(len(hu)))
    warnings = (*_coverage_warnings(lungs), *_side_warnings(right, left))
    return LungField(right, left, boxes, warnings, geometry.spacing[0] if geometry.in_mm else None)


def find_lungs_in_images(
    hu: HuVolume,
    geometry: Geometry,
    sizes: Sequence[tuple[int, int]],
    field_of_view: FieldOfView = FieldOfView.LUNGS,
) -> LungField:
    """Find the lungs of unrelated images, each on its own and with a box of its own.

    Args:
        hu: (z, y, x) upright axial slices, HU or estimated HU.
        geometry: The grid of those slices.
        sizes: The true (height, width) of each image; what lies beyond is padding.
        field_of_view: What the boxes hold of the images with lung.

    Raises:
        LungError: No image shows lung.
    """
    grid = _WorkingGrid.of(geometry)
    lungs = _closed(PackedMask.from_slices(_air_in_images(hu, sizes, grid)), grid)
    by_image = (split_left_right(PackedMask.from_slices([plane]))[0] for plane in lungs)
    right, left = _sides(lungs, PackedMask.from_slices(by_image), grid, hu.shape[1:])
    boxes = tuple(
        _image_box(plane, grid, size, field_of_view) if plane.any() else None
        for plane, size in zip(lungs, sizes, strict=True)
    )
    sides = "a picture states no sides: right and left follow the radiological convention by assumption"
    return LungField(right, left, boxes, (sides, *_side_warnings(right, left)))


@dataclass(frozen=True)
class _WorkingGrid:
    """Every `step`-th pixel of a slice, and their (y, x) spacing in mm."""

    step: int
    spacing: tuple[float, float]
    fine_spacing: tuple[float, float]

    @classmethod
    def of(cls, geometry: Geometry) -> _WorkingGrid:
        fine = geometry.spacing[1:] if geometry.in_mm else (IMAGE_WIDTH_MM / geometry.shape[2],) * 2
        step = max(1, int(WORKING_MM / max(fine) + 0.25))
        return cls(step, (fine[0] * step, fine[1] * step), fine)


def _air_in_images(hu: HuVolume, sizes: Sequence[tuple[int, int]], grid: _WorkingGrid) -> Iterator[Voxels]:
    """(y, x) on the working grid, image by image; padding is no air."""
    for plane, size in zip(hu, sizes, strict=True):
        air = np.zeros([-(-n // grid.step) for n in plane.shape], dtype=np.bool_)
        height, width = (-(-n // grid.step) for n in size)
        coarse = plane[:: grid.step, :: grid.step][:height, :width]
        air[:height, :width] = _air_in_body(coarse, grid.spacing, may_be_cropped=True)
        yield air


def _closed(air: Iterable[Voxels], grid: _WorkingGrid) -> PackedMask:
    """(z, y, x) the lungs with their gaps closed.

    Raises:
        LungError: There is none.
    """
    lungs = PackedMask.from_slices(_close(plane, grid.spacing) for plane in air)
    if not counts(lungs).any():
        raise LungError(
            "no lung was found: expected air-filled lung inside a body; check that it is a chest CT, and its "
            "intensities (--intensity hu|shifted-hu|8-bit-lung-window|unit-lung-window)"
        )
    return lungs


def _sides(
    lungs: PackedMask, right: PackedMask, grid: _WorkingGrid, shape: tuple[int, ...]
) -> tuple[PackedMask, PackedMask]:
    """The right and the left lung, on the scan's own pixels of (y, x) `shape`."""
    left = (lung & ~side for lung, side in zip(lungs, right, strict=True))
    fine_right, fine_left = (
        PackedMask.from_slices(_refine(plane, shape, grid.step) for plane in side) for side in (right, left)
    )
    return fine_right, fine_left


def _air_in_body(plane: NDArray[np.float32], spacing: tuple[float, float], may_be_cropped: bool) -> Voxels:
    """(y, x): the air-like pixels of a slice that are neither outside the body nor plain gas."""
    smooth = ndimage.gaussian_filter(plane, [0.8 / s for s in spacing])
    regions, count = ndimage.label(smooth < AIR_LIKE_HU)
    if not count:
        return np.zeros(plane.shape, dtype=np.bool_)
    numbers = np.arange(1, count + 1)
    area_mm2 = np.bincount(regions.ravel(), minlength=count + 1)[1:] * spacing[0] * spacing[1]
    dark, darkest = (_share_below(plane, hu, regions, count) > 0.5 for hu in (GAS_HU, GAS_HU - 30))
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    on_rim = np.bincount(rim, minlength=count + 1)[1:]
    # An image may be cropped through the lung; in a volume, a region at the rim is the air around the body.
    outside = (on_rim > 0.5 * len(rim)) | (dark & (on_rim > 0)) if may_be_cropped else on_rim > 0
    gas = (dark & (area_mm2 < 3000)) | darkest
    keep = ~outside & ~gas & (area_mm2 > 30)
    return np.isin(regions, numbers[keep])


def _share_below(plane: NDArray[np.float32], hu: float, regions: NDArray[Any], count: int) -> NDArray[np.float64]:
    """(count,) the share of each region's pixels that are below `hu`."""
    below = np.bincount(regions.ravel(), weights=(plane < hu).ravel(), minlength=count + 1)[1:]
    return np.asarray(below / np.bincount(regions.ravel(), minlength=count + 1)[1:])


def _without_small_regions(air: PackedMask) -> PackedMask:
    """(z, y, x) the air without the small regions of a volume."""
    regions = find_components(air, CONNECTIVITY_6)
    return regions.select(regions.sizes >= SMALLEST_REGION * regions.sizes.max())


def _close(plane: Voxels, spacing: tuple[float, float]) -> Voxels:
    """(y, x) with vessels, lesions at the rim and holes closed over, each region of the slice on its own."""
    closed = np.zeros_like(plane)
    if plane.sum() * spacing[0] * spacing[1] < SMALLEST_SLICE_MM2:
        return closed
    pad = round(CLOSE_MM / min(spacing)) + 1
    regions, _ = ndimage.label(plane)
    for number, place in enumerate(ndimage.find_objects(regions), start=1):
        region = np.pad(regions[place] == number, pad)
        # A closing with a disc, by distances: every pixel within reach, less what is within reach of the rest.
        grown = ndimage.distance_transform_edt(~region, sampling=spacing) <= CLOSE_MM
        region = fill_holes(region | (ndimage.distance_transform_edt(grown, sampling=spacing) > CLOSE_MM))
        closed[place] |= region[pad:-pad, pad:-pad]
    return closed


def split_left_right(lungs: PackedMask) -> PackedMask:
    """(z, y, x): the patient's right lung, at small x, split from the left one where they touch.

    Erode until two large regions part; each voxel then belongs to the side of the nearest core. Where they never part,
    a lone lung belongs to its side of the middle column.
    """
    whole = extent(reduce(np.logical_or, lungs))
    if whole is None:
        return lungs
    middle = (whole[1].start + whole[1].stop - 1) / 2
    core = lungs
    for _ in range(12):
        regions = find_components(core, CONNECTIVITY_6)
        size = regions.sizes[1:]
        if not len(size):
            break
        large = np.flatnonzero(size > 0.15 * size.sum()) + 1
        centres = regions.centroids(large)[:, 2]
        if len(large) >= 2 and centres.min() < middle < centres.max():
            return _nearest_core(lungs, regions, large, centres < middle, whole)
        core = PackedMask.from_slices(_eroded(plane) for plane in core)
    column = np.arange(lungs.shape[2])
    share = (
        counts(PackedMask.from_slices(plane & (column < len(column) / 2) for plane in lungs)).sum()
        / counts(lungs).sum()
    )
    if not 0.15 < share < 0.85:  # there is one lung only
        return lungs if share > 0.5 else PackedMask.from_slices(np.zeros_like(plane) for plane in lungs)
    return PackedMask.from_slices(plane & (column < middle) for plane in lungs)


def _eroded(plane: Voxels) -> Voxels:
    """(y, x): without the pixels at its rim."""
    eroded, place = np.zeros_like(plane), extent(plane)
    if place is not None:
        eroded[place] = ndimage.binary_erosion(plane[place])
    return eroded


def _nearest_core(
    lungs: PackedMask,
    regions: ConnectedComponents,
    large: NDArray[np.int64],
    is_right: Voxels,
    whole: tuple[slice, ...],
) -> PackedMask:
    """(z, y, x): what of the lungs is nearest to a right one of the large regions, the cores; some slices at once."""
    core, side = (np.zeros(len(regions.sizes), dtype=np.bool_) for _ in range(2))
    core[large], side[large[is_right]] = True, True
    cores, rights = regions.select(core), regions.select(side)
    planes: list[PackedSlice] = []
    for start in range(0, len(lungs), SLICES_AT_ONCE):
        stop = min(len(lungs), start + SLICES_AT_ONCE)
        owned = rights.stack(start, stop)
        apart = lungs.stack(start, stop) & ~cores.stack(start, stop)
        if apart.any():
            owned[apart] = _by_nearest(np.argwhere(apart) + np.array([start, 0, 0]), cores, rights, whole)
        planes += map(pack, owned)
    return PackedMask(tuple(planes))


def _by_nearest(
    voxels: NDArray[np.int64], cores: PackedMask, rights: PackedMask, place: tuple[slice, ...]
) -> NDArray[np.bool_]:
    """(voxels,) whether the core that is nearest to each is a right one, a slice counting as four pixels.

    Args:
        voxels: (voxels, 3) z, y, x, in order.
        cores: (z, y, x).
        rights: Those of them on the right.
        place: Rows and columns that hold voxels and cores.
    """
    sampling = np.array([4.0, 1.0, 1.0])
    reach = 8
    while True:  # a core beyond the slices that are looked at is farther than they reach
        start, stop = max(0, int(voxels[0, 0]) - reach), min(len(cores), int(voxels[-1, 0]) + reach + 1)
        near = cores.stack(start, stop)[:, place[0], place[1]]
        if near.any():
            where = ndimage.distance_transform_edt(~near, sampling, return_distances=False, return_indices=True)
            corner = np.array([start, place[0].start, place[1].start])
            nearest = np.asarray(where)[(slice(None), *(voxels - corner).T)].T
            away = (nearest + corner - voxels) * sampling
            if len(near) == len(cores) or (away**2).sum(1).max() <= (sampling[0] * reach) ** 2:
                return np.asarray(rights.stack(start, stop)[:, place[0], place[1]][tuple(nearest.T)])
        reach *= 2


def _refine(plane: Voxels, shape: tuple[int, ...], step: int) -> Voxels:
    """(y, x) from the working grid to the scan's own."""
    if step == 1:
        return plane
    fine = plane.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]
    # The sampled pixel is the block's first: half a block back and forth brings the rim to where it was seen.
    return np.roll(fine, -(step // 2), axis=(0, 1))


def _box(lung: Voxels, grid: _WorkingGrid, height: int, width: int) -> Box:
    """The lung of the working grid with a margin, in pixels of a slice of this height and width."""
    margin = [round(MARGIN_MM / mm) for mm in grid.fine_spacing]
    rows, columns = (np.flatnonzero(lung.any(axis)) * grid.step for axis in (1, 0))
    return Box(
        max(0, int(rows[0]) - margin[0]),
        min(height, int(rows[-1]) + grid.step + margin[0]),
        max(0, int(columns[0]) - margin[1]),
        min(width, int(columns[-1]) + grid.step + margin[1]),
    )


def _image_box(lung: Voxels, grid: _WorkingGrid, size: tuple[int, int], field_of_view: FieldOfView) -> Box:
    """The whole of an image that the lung fills: it was cropped to the lungs, and its rim may be lesion."""
    box, whole = _box(lung, grid, *size), Box(0, size[0], 0, size[1])
    is_cropped = (box.bottom - box.top) * (box.right - box.left) > CROPPED_IMAGE * size[0] * size[1]
    return whole if is_cropped or field_of_view is FieldOfView.SLICE else box


def _coverage_warnings(lungs: PackedMask) -> list[str]:
    areas = counts(lungs)
    cut = [name for name, area in (("lowest", areas[0]), ("highest", areas[-1])) if area > 0.25 * areas.max()]
    if len(areas) == 1 or not cut:
        return []
    return [
        f"the lungs reach the {' and the '.join(cut)} slice: the scan does not cover them whole, and volumes "
        "are of the covered part"
    ]


def _side_warnings(right: PackedMask, left: PackedMask) -> list[str]:
    voxels = {"right": counts(right).sum(), "left": counts(left).sum()}
    return [f"no {name} lung was found" for name, n in voxels.items() if n < 0.02 * sum(voxels.values())]
