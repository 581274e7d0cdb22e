"""Finding the lungs by thresholds.

The lungs define where lesions are searched for, and the volume that their share refers to. Air inside the body is lung,
airway or bowel. Regions that are too dark for lung are dropped, and the gaps that vessels and dense lesions leave are
closed slice by slice.
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
from groundglass.inference.lung_sides import split_left_right
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import HuVolume
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box, LungField, fill_holes
from groundglass.scan.packed_mask import PackedMask, Voxels, voxels_per_slice
from groundglass.scan.scan import ImageStack, Scan

AIR_LIKE_HU = -400.0  # pixels below this are lung or gas
GAS_HU = -950.0  # a region with more than half of its pixels below this is gas: airway, bowel, or outside the body
IMAGE_WIDTH_MM = 350.0  # assumed for an image, which states no spacing
WORKING_MM = 1.4  # approximate spacing of the grid on which the lungs are found
CLOSE_MM = 10.0  # radius of the closing
MARGIN_MM = 8.0  # of the box around the lungs
SMALLEST_SLICE_MM2 = 150.0  # a slice with less lung than this counts as a slice without lung
CROPPED_IMAGE = 0.6  # share of an image: a box that covers more shows that the image was cropped to the lungs
SMALLEST_REGION = 0.04  # share of the largest region of a volume: smaller regions are no lung


def find_lungs(
    scan: Scan, hu: HuVolume, geometry: Geometry, field_of_view: FieldOfView = FieldOfView.LUNGS
) -> LungField:
    """Find the lungs of a volume, or of each image of a stack.

    Args:
        scan: The scan itself, whose type distinguishes a volume from a stack of unrelated images.
        hu: (z, y, x) upright axial slices, HU or estimated HU.
        geometry: The grid of those slices.
        field_of_view: The part of a slice with lung that its box holds.

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
        field_of_view: The part of a slice with lung that its box holds.

    Raises:
        LungError: No slice shows lung.
    """
    grid = _WorkingGrid.for_geometry(geometry)
    coarse = (plane[:: grid.step, :: grid.step] for plane in hu)
    air = PackedMask.from_slices(_air_in_body(plane, grid.spacing, may_be_cropped=False) for plane in coarse)
    lungs = _close_gaps(_remove_small_regions(air), grid)
    right, left = _restore_sides(lungs, split_left_right(lungs), grid, hu.shape[1:])
    shown = np.flatnonzero(voxels_per_slice(lungs))
    box = _box(reduce(np.logical_or, lungs), grid, *hu.shape[1:])
    if field_of_view is FieldOfView.SLICE:
        box = Box(0, hu.shape[1], 0, hu.shape[2])
    boxes = tuple(box if shown[0] - 1 <= z <= shown[-1] + 1 else None for z in range(len(hu)))
    side_warnings = _side_warnings(right, left) if geometry.has_directions else []
    warnings = (*_coverage_warnings(lungs), *side_warnings)
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
        field_of_view: The part of an image with lung that its box holds.

    Raises:
        LungError: No image shows lung.
    """
    grid = _WorkingGrid.for_geometry(geometry)
    lungs = _close_gaps(PackedMask.from_slices(_air_in_images(hu, sizes, grid)), grid)
    by_image = (split_left_right(PackedMask.from_slices([plane]))[0] for plane in lungs)
    right, left = _restore_sides(lungs, PackedMask.from_slices(by_image), grid, hu.shape[1:])
    boxes = tuple(
        _image_box(plane, grid, size, field_of_view) if plane.any() else None
        for plane, size in zip(lungs, sizes, strict=True)
    )
    assumption = "a picture states no sides: right and left follow the radiological convention by assumption"
    return LungField(right, left, boxes, (assumption, *_side_warnings(right, left)))


@dataclass(frozen=True)
class _WorkingGrid:
    """The grid on which lungs are found: every `step`-th pixel of a slice.

    Attributes:
        step: Distance in pixels of the slice.
        spacing: (y, x) in mm.
        fine_spacing: (y, x) spacing of the slice itself in mm.
    """

    step: int
    spacing: tuple[float, float]
    fine_spacing: tuple[float, float]

    @classmethod
    def for_geometry(cls, geometry: Geometry) -> _WorkingGrid:
        """Choose the step for a scan's spacing."""
        fine = geometry.spacing[1:] if geometry.in_mm else (IMAGE_WIDTH_MM / geometry.shape[2],) * 2
        step = max(1, int(WORKING_MM / max(fine) + 0.25))
        return cls(step, (fine[0] * step, fine[1] * step), fine)


def _air_in_images(hu: HuVolume, sizes: Sequence[tuple[int, int]], grid: _WorkingGrid) -> Iterator[Voxels]:
    """Yield (y, x) bool on the working grid for each image: its air, without the padding."""
    for plane, size in zip(hu, sizes, strict=True):
        air = np.zeros([-(-n // grid.step) for n in plane.shape], dtype=np.bool_)
        height, width = (-(-n // grid.step) for n in size)
        coarse = plane[:: grid.step, :: grid.step][:height, :width]
        air[:height, :width] = _air_in_body(coarse, grid.spacing, may_be_cropped=True)
        yield air


def _close_gaps(air: Iterable[Voxels], grid: _WorkingGrid) -> PackedMask:
    """Return (z, y, x) bool on the working grid: the lungs with their gaps closed.

    Raises:
        LungError: No slice shows lung.
    """
    lungs = PackedMask.from_slices(_close_slice(plane, grid.spacing) for plane in air)
    if not voxels_per_slice(lungs).any():
        raise LungError(
            "no lung was found: expected air-filled lung inside a body; check that it is a chest CT, and its "
            "intensities (--intensity hu|shifted-hu|8-bit-lung-window|unit-lung-window)"
        )
    return lungs


def _restore_sides(
    lungs: PackedMask, right: PackedMask, grid: _WorkingGrid, shape: tuple[int, ...]
) -> tuple[PackedMask, PackedMask]:
    """Return the right and the left lung on the scan's own pixels, from the lungs on the working grid."""
    left = (lung & ~side for lung, side in zip(lungs, right, strict=True))
    fine_right, fine_left = (
        PackedMask.from_slices(_refine(plane, shape, grid.step) for plane in side) for side in (right, left)
    )
    return fine_right, fine_left


def _air_in_body(plane: NDArray[np.float32], spacing: tuple[float, float], may_be_cropped: bool) -> Voxels:
    """Return (y, x) bool: the air-like pixels of a slice that are neither outside the body nor gas."""
    smooth = ndimage.gaussian_filter(plane, [0.8 / s for s in spacing])
    regions, count = ndimage.label(smooth < AIR_LIKE_HU)
    if not count:
        return np.zeros(plane.shape, dtype=np.bool_)
    labels = np.arange(1, count + 1)
    area_mm2 = np.bincount(regions.ravel(), minlength=count + 1)[1:] * spacing[0] * spacing[1]
    dark, darkest = (_share_below(plane, hu, regions, count) > 0.5 for hu in (GAS_HU, GAS_HU - 30))
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    on_rim = np.bincount(rim, minlength=count + 1)[1:]
    # An image may be cropped through the lung; in a volume, a region at the rim is the air around the body.
    outside = (on_rim > 0.5 * len(rim)) | (dark & (on_rim > 0)) if may_be_cropped else on_rim > 0
    gas = (dark & (area_mm2 < 3000)) | darkest
    keep = ~outside & ~gas & (area_mm2 > 30)
    return np.isin(regions, labels[keep])


def _share_below(plane: NDArray[np.float32], hu: float, regions: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return (count,) the share of each region's pixels that are below `hu`."""
    below = np.bincount(regions.ravel(), weights=(plane < hu).ravel(), minlength=count + 1)[1:]
    return np.asarray(below / np.bincount(regions.ravel(), minlength=count + 1)[1:])


def _remove_small_regions(air: PackedMask) -> PackedMask:
    """Return (z, y, x) bool: the air of a volume without its small regions."""
    regions = find_components(air, CONNECTIVITY_6)
    return regions.select(regions.sizes >= SMALLEST_REGION * regions.sizes.max())


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


def _box(lung: Voxels, grid: _WorkingGrid, height: int, width: int) -> Box:
    """Return the box around the lung of a slice with a margin, in the slice's own pixels."""
    margin = [round(MARGIN_MM / mm) for mm in grid.fine_spacing]
    rows, columns = (np.flatnonzero(lung.any(axis)) * grid.step for axis in (1, 0))
    return Box(
        max(0, int(rows[0]) - margin[0]),
        min(height, int(rows[-1]) + grid.step + margin[0]),
        max(0, int(columns[0]) - margin[1]),
        min(width, int(columns[-1]) + grid.step + margin[1]),
    )


def _image_box(lung: Voxels, grid: _WorkingGrid, size: tuple[int, int], field_of_view: FieldOfView) -> Box:
    """Return the box of an image: all of it where the lung fills it, because its rim may then be lesion."""
    box, whole = _box(lung, grid, *size), Box(0, size[0], 0, size[1])
    is_cropped = (box.bottom - box.top) * (box.right - box.left) > CROPPED_IMAGE * size[0] * size[1]
    return whole if is_cropped or field_of_view is FieldOfView.SLICE else box


def _coverage_warnings(lungs: PackedMask) -> list[str]:
    areas = voxels_per_slice(lungs)
    cut = [name for name, area in (("lowest", areas[0]), ("highest", areas[-1])) if area > 0.25 * areas.max()]
    if len(areas) == 1 or not cut:
        return []
    return [
        f"the lungs reach the {' and the '.join(cut)} slice: the scan does not cover them whole, and volumes "
        "are of the covered part"
    ]


def _side_warnings(right: PackedMask, left: PackedMask) -> list[str]:
    voxels = {"right": voxels_per_slice(right).sum(), "left": voxels_per_slice(left).sum()}
    return [f"no {name} lung was found" for name, n in voxels.items() if n < 0.02 * sum(voxels.values())]
