"""Where the lungs are in a scan, and the part of each slice that the network looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.components import CONNECTIVITY_26, find_components
from groundglass.scan.packed_mask import MaskSlices, PackedMask, Voxels, extent, pack

RIM_PIXELS = 3  # a lesion this near to the field is at its rim


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
    def mask(self) -> PackedMask:
        """(z, y, x) both lungs."""
        return PackedMask.from_slices(right | left for right, left in zip(self.right, self.left, strict=True))

    def remove_extrapulmonary(self, found: MaskSlices) -> PackedMask:
        """(z, y, x): what was found, without the regions that touch no lung: table, bowel, skin."""
        regions = find_components(found, CONNECTIVITY_26)
        near = np.zeros(len(regions.sizes), dtype=np.bool_)
        whole = extent(reduce(np.logical_or, found))
        for (place, numbers), lung in zip(regions, self.mask, strict=True):
            if numbers.size:
                lung[whole] = ndimage.binary_dilation(lung[whole], iterations=RIM_PIXELS)
                near[numbers[lung[place]]] = True
        return regions.select(near)

    def including_lesions(self, lesions: MaskSlices) -> LungField:
        """The field with the lesions in it or at its rim counted as lung.

        A threshold takes a dense lesion for chest wall. Lesions that touch no lung do not count.
        """
        joined = (_with_lesion(*planes) for planes in zip(self.right, self.left, lesions, strict=True))
        right, left = zip(*((pack(right), pack(left)) for right, left in joined), strict=True)
        return replace(self, right=PackedMask(right), left=PackedMask(left))


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
    right[place] = fill_holes(on_right | (joined & nearer_right & ~on_left))
    left[place] = fill_holes(on_left | (joined & ~right[place]))
    right[place] &= ~left[place]
    return right, left


def _distance(mask: Voxels) -> NDArray[np.float64]:
    """Of each pixel to the mask; infinite where there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask))


def fill_holes(mask: Voxels) -> Voxels:
    return np.asarray(ndimage.binary_fill_holes(mask))
