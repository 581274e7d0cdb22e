"""The lung field: where to look for lesions, and the lung's volume.

Air inside the body is lung, airway or bowel; what is too dark to be lung is dropped, gaps that vessels and dense
lesions leave are closed slice by slice. No learning: it holds for any scanner, and can be read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.errors import LungError
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import HuVolume
from groundglass.scan.packed import MaskSlices, Packed, PackedPlane, Voxels, counts, extent, pack
from groundglass.scan.regions import BY_CORNERS, BY_FACES, Regions, find_regions

AIR_LIKE_HU = -400.0  # below it: lung or gas
GAS_HU = -950.0  # a region of which half is below it is airway or bowel gas, or air outside
PICTURE_WIDTH_MM = 350.0  # assumed of a picture, which states no spacing
WORKING_MM = 1.4  # the field is found on about this grid
CLOSE_MM = 10.0
MARGIN_MM = 8.0
SMALLEST_SLICE_MM2 = 150.0  # less lung than this in a slice is none
RIM_PIXELS = 3  # a lesion this near to the field is at its rim
CUT_PICTURE = 0.6  # of a picture: a box that covers more shows that it was cut to the lungs
SLICES_AT_ONCE = 32
SMALLEST_REGION = 0.04  # of the largest region, in a volume: less is no lung


class FieldOfView(StrEnum):
    """What the network sees of a slice: the lung field, or the whole slice as in the paper."""

    LUNGS = "lungs"
    SLICE = "slice"


class Box(NamedTuple):
    """A part of a slice, half-open, in pixels of the axial view."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class LungField:
    """Where the lungs are.

    Attributes:
        right: (z, y, x) in the upright axial view: the patient's right lung.
        left: The patient's left lung.
        boxes: For each slice, the part to look at; None where there is no lung. Slices of a volume share one box, so
            that the scale is constant; pictures have their own.
        warnings: In plain words.
        spacing_mm: From slice to slice; None: they are pictures, and no neighbours.
    """

    right: MaskSlices
    left: MaskSlices
    boxes: tuple[Box | None, ...]
    warnings: tuple[str, ...] = ()
    spacing_mm: float | None = None

    @cached_property
    def mask(self) -> Packed:
        """(z, y, x) both lungs."""
        return Packed.of(right | left for right, left in zip(self.right, self.left, strict=True))

    def touching(self, found: MaskSlices) -> Packed:
        """(z, y, x): what was found, without the regions that touch no lung: table, bowel, skin."""
        regions = find_regions(found, BY_CORNERS)
        near = np.zeros(len(regions.sizes), dtype=np.bool_)
        whole = extent(reduce(np.logical_or, found))
        for (place, numbers), lung in zip(regions, self.mask, strict=True):
            if numbers.size:
                lung[whole] = ndimage.binary_dilation(lung[whole], iterations=RIM_PIXELS)
                near[numbers[lung[place]]] = True
        return regions.kept(near)

    def with_lesions(self, lesions: MaskSlices) -> LungField:
        """The field with the lesions in it or at its rim counted as lung.

        A threshold takes a dense lesion for chest wall. Lesions that touch no lung do not count.
        """
        joined = (_with_lesion(*planes) for planes in zip(self.right, self.left, lesions, strict=True))
        right, left = zip(*((pack(right), pack(left)) for right, left in joined), strict=True)
        return replace(self, right=Packed(right), left=Packed(left))


def _with_lesion(right: Voxels, left: Voxels, lesion: Voxels) -> tuple[Voxels, Voxels]:
    """(y, x) the right and the left lung of a slice, with the parts of the lesion in them or at their rim."""
    if not (lesion & ~right & ~left).any():
        return right, left
    place = extent(right | left | lesion) or ()
    on_right, on_left, inside = right[place], left[place], lesion[place]
    near = ndimage.binary_dilation(on_right | on_left, iterations=RIM_PIXELS)
    regions, _ = ndimage.label(inside)
    touching = np.unique(regions[near & inside])
    joined = np.isin(regions, touching[touching > 0])
    if not joined.any():
        return right, left
    right, left = right.copy(), left.copy()
    nearer_right = _distance(on_right) <= _distance(on_left)
    right[place] = _fill(on_right | (joined & nearer_right & ~on_left))
    left[place] = _fill(on_left | (joined & ~right[place]))
    right[place] &= ~left[place]
    return right, left


def _distance(mask: Voxels) -> NDArray[np.float64]:
    """Of each pixel to the mask; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask))


def _fill(mask: Voxels) -> Voxels:
    return np.asarray(ndimage.binary_fill_holes(mask))


def find_lungs(
    hu: HuVolume,
    geometry: Geometry,
    sizes: tuple[tuple[int, int], ...] | None = None,
    view: FieldOfView = FieldOfView.LUNGS,
) -> LungField:
    """Find the lungs of a scan.

    Args:
        hu: (z, y, x) in the upright axial view, HU or estimated HU.
        geometry: The view's grid.
        sizes: For pictures, the true (height, width) of each slice; what lies beyond is padding.
        view: What the boxes hold of the slices with lung.

    Raises:
        LungError: No slice shows lung.
    """
    spacing = geometry.spacing[1:] if geometry.in_mm else (PICTURE_WIDTH_MM / hu.shape[2],) * 2
    step = max(1, int(WORKING_MM / max(spacing) + 0.25))
    coarse_spacing = (spacing[0] * step, spacing[1] * step)
    air = Packed.of(_air_slices(hu, step, coarse_spacing, sizes))
    if sizes is None:
        air = _largest_regions(air)
    closed = Packed.of(_close(plane, coarse_spacing) for plane in air)
    if not counts(closed).any():
        raise LungError(
            "no lung was found: expected air-filled lung inside a body; check that it is a chest CT, and its "
            "intensities (--intensity hu|shifted-hu|8-bit-lung-window|unit-lung-window)"
        )
    right = _right_of(closed) if sizes is None else Packed.of(_right_of(Packed.of([plane]))[0] for plane in closed)
    left = (lung & ~side for lung, side in zip(closed, right, strict=True))
    fine_right, fine_left = (Packed.of(_refine(plane, hu.shape[1:], step) for plane in side) for side in (right, left))
    boxes = _boxes(closed, step, hu.shape, spacing, sizes)
    if view is FieldOfView.SLICE:
        extents = sizes or (hu.shape[1:],) * len(hu)
        boxes = tuple(box and Box(0, height, 0, width) for box, (height, width) in zip(boxes, extents, strict=True))
    warnings = _warnings(fine_right, fine_left, closed, sizes)
    spacing_mm = geometry.spacing[0] if sizes is None and geometry.in_mm else None
    return LungField(fine_right, fine_left, boxes, warnings, spacing_mm)


def _air_slices(
    hu: HuVolume, step: int, spacing: tuple[float, float], sizes: tuple[tuple[int, int], ...] | None
) -> Iterator[Voxels]:
    """(y, x) on the working grid, slice by slice."""
    for z, plane in enumerate(hu):
        air = np.zeros([-(-n // step) for n in hu.shape[1:]], dtype=np.bool_)
        height, width = (-(-n // step) for n in (hu.shape[1:] if sizes is None else sizes[z]))
        coarse = plane[::step, ::step][:height, :width]
        air[:height, :width] = _air_in_body(coarse, spacing, sizes is not None)
        yield air


def _air_in_body(plane: NDArray[np.float32], spacing: tuple[float, float], picture: bool) -> Voxels:
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
    # A picture may be cut through the lung; a volume's region at the rim is the air around the body.
    outside = (on_rim > 0.5 * len(rim)) | (dark & (on_rim > 0)) if picture else on_rim > 0
    gas = (dark & (area_mm2 < 3000)) | darkest
    keep = ~outside & ~gas & (area_mm2 > 30)
    return np.isin(regions, numbers[keep])


def _share_below(plane: NDArray[np.float32], hu: float, regions: NDArray[Any], count: int) -> NDArray[np.float64]:
    """(count,) share of each region's pixels that are below `hu`."""
    below = np.bincount(regions.ravel(), weights=(plane < hu).ravel(), minlength=count + 1)[1:]
    return np.asarray(below / np.bincount(regions.ravel(), minlength=count + 1)[1:])


def _largest_regions(air: Packed) -> Packed:
    """(z, y, x): without the small regions of a volume."""
    regions = find_regions(air, BY_FACES)
    return regions.kept(regions.sizes >= SMALLEST_REGION * regions.sizes.max())


def _close(plane: Voxels, spacing: tuple[float, float]) -> Voxels:
    """(y, x): vessels, rim lesions and holes closed over, each region of the slice on its own."""
    closed = np.zeros_like(plane)
    if plane.sum() * spacing[0] * spacing[1] < SMALLEST_SLICE_MM2:
        return closed
    pad = round(CLOSE_MM / min(spacing)) + 1
    regions, _ = ndimage.label(plane)
    for number, place in enumerate(ndimage.find_objects(regions), start=1):
        region = np.pad(regions[place] == number, pad)
        # A closing with a disc, by distances: every pixel within reach, less what is within reach of the rest.
        grown = ndimage.distance_transform_edt(~region, sampling=spacing) <= CLOSE_MM
        region = _fill(region | (ndimage.distance_transform_edt(grown, sampling=spacing) > CLOSE_MM))
        closed[place] |= region[pad:-pad, pad:-pad]
    return closed


def _right_of(lungs: Packed) -> Packed:
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
        regions = find_regions(core, BY_FACES)
        size = regions.sizes[1:]
        if not len(size):
            break
        large = np.flatnonzero(size > 0.15 * size.sum()) + 1
        centres = regions.centres(large)[:, 2]
        if len(large) >= 2 and centres.min() < middle < centres.max():
            return _nearest_core(lungs, regions, large, centres < middle, whole)
        core = Packed.of(_eroded(plane) for plane in core)
    column = np.arange(lungs.shape[2])
    share = counts(Packed.of(plane & (column < len(column) / 2) for plane in lungs)).sum() / counts(lungs).sum()
    if not 0.15 < share < 0.85:  # there is one lung only
        return lungs if share > 0.5 else Packed.of(np.zeros_like(plane) for plane in lungs)
    return Packed.of(plane & (column < middle) for plane in lungs)


def _eroded(plane: Voxels) -> Voxels:
    """(y, x): without the pixels at its rim."""
    eroded, place = np.zeros_like(plane), extent(plane)
    if place is not None:
        eroded[place] = ndimage.binary_erosion(plane[place])
    return eroded


def _nearest_core(
    lungs: Packed, regions: Regions, large: NDArray[np.int64], is_right: Voxels, whole: tuple[slice, ...]
) -> Packed:
    """(z, y, x): what of the lungs is nearest to a right one of the large regions, the cores; some slices at once."""
    core, side = (np.zeros(len(regions.sizes), dtype=np.bool_) for _ in range(2))
    core[large], side[large[is_right]] = True, True
    cores, rights = regions.kept(core), regions.kept(side)
    planes: list[PackedPlane] = []
    for start in range(0, len(lungs), SLICES_AT_ONCE):
        stop = min(len(lungs), start + SLICES_AT_ONCE)
        owned = rights.stack(start, stop)
        apart = lungs.stack(start, stop) & ~cores.stack(start, stop)
        if apart.any():
            owned[apart] = _by_nearest(np.argwhere(apart) + np.array([start, 0, 0]), cores, rights, whole)
        planes += map(pack, owned)
    return Packed(tuple(planes))


def _by_nearest(
    voxels: NDArray[np.int64], cores: Packed, rights: Packed, place: tuple[slice, ...]
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


def _boxes(
    lungs: Packed,
    step: int,
    shape: tuple[int, ...],
    spacing: tuple[float, float],
    sizes: tuple[tuple[int, int], ...] | None,
) -> tuple[Box | None, ...]:
    margin = [round(MARGIN_MM / s) for s in spacing]

    def box(plane: Voxels, height: int, width: int) -> Box:
        rows, columns = (np.flatnonzero(plane.any(axis)) * step for axis in (1, 0))
        return Box(
            max(0, int(rows[0]) - margin[0]),
            min(height, int(rows[-1]) + step + margin[0]),
            max(0, int(columns[0]) - margin[1]),
            min(width, int(columns[-1]) + step + margin[1]),
        )

    shown = counts(lungs) > 0
    if sizes is not None:
        return tuple(
            _whole_if_cut(box(plane, *size), *size) if any_lung else None
            for plane, size, any_lung in zip(lungs, sizes, shown, strict=True)
        )
    first, last = np.flatnonzero(shown)[[0, -1]]
    common = box(reduce(np.logical_or, lungs), shape[1], shape[2])
    return tuple(common if first - 1 <= z <= last + 1 else None for z in range(shape[0]))


def _whole_if_cut(box: Box, height: int, width: int) -> Box:
    """A picture that the lung fills is cut to it already: its rim may be lesion."""
    fills = (box.bottom - box.top) * (box.right - box.left) > CUT_PICTURE * height * width
    return Box(0, height, 0, width) if fills else box


def _warnings(right: Packed, left: Packed, lungs: Packed, sizes: tuple[tuple[int, int], ...] | None) -> tuple[str, ...]:
    warnings = []
    if sizes is not None:
        warnings.append("a picture states no sides: right and left follow the radiological convention by assumption")
    areas = counts(lungs)
    if sizes is None and len(areas) > 1:
        cut = [name for name, area in (("lowest", areas[0]), ("highest", areas[-1])) if area > 0.25 * areas.max()]
        if cut:
            warnings.append(
                f"the lungs reach the {' and the '.join(cut)} slice: the scan does not cover them whole, and volumes "
                "are of the covered part"
            )
    voxels = {"right": counts(right).sum(), "left": counts(left).sum()}
    warnings += [f"no {name} lung was found" for name, n in voxels.items() if n < 0.02 * sum(voxels.values())]
    return tuple(warnings)
