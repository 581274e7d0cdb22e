"""The lung field: both lungs of a scan, and the part of each slice that the network sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

from groundglass.scan.components import CONNECTIVITY_26, Connectivity, find_components
from groundglass.scan.morphology import dilate, distance_to, fill_holes, label_parts
from groundglass.scan.packed_mask import MaskSlices, PackedMask, Voxels, bounding_box, pack_slice

RIM_PIXELS = 3  # a lesion within this distance touches the lung field


class Box(NamedTuple):
    """A part of a slice in pixels of the axial view.

    Attributes:
        top: First row.
        bottom: The row just outside.
        left: First column.
        right: The column just outside.
        mirrored: Numbers of rows above and below, and columns to the left and to the right, the network sees besides:
            they lie beyond the slice, and its mirror image takes their place.
    """

    top: int
    bottom: int
    left: int
    right: int
    mirrored: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def spans(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The first row and the one just outside, and the same of the columns."""
        return (self.top, self.bottom), (self.left, self.right)

    @property
    def pixels(self) -> int:
        """Number of pixels inside."""
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True, eq=False)
class LungField:
    """The lungs of a scan, in the upright axial view.

    Attributes:
        right: (z, y, x) the patient's right lung.
        left: (z, y, x) the patient's left lung.
        boxes: For each slice, the part that the network sees; None if there is no lung. Slices of a volume share one
            box, so that the scale is constant; each picture has its own.
        warnings: Sentences for the user.
        spacing_mm: Distance between slices; None if they are unrelated pictures.
        sides_known: False if it cannot be told which lung is which.
        pixel_aspect: Height of a pixel of the slices as a multiple of its width.
    """

    right: MaskSlices
    left: MaskSlices
    boxes: tuple[Box | None, ...]
    warnings: tuple[str, ...] = ()
    spacing_mm: float | None = None
    sides_known: bool = True
    pixel_aspect: float = 1.0

    @cached_property
    def mask(self) -> PackedMask:
        """(z, y, x) both lungs."""
        return PackedMask.from_slices(right | left for right, left in zip(self.right, self.left, strict=True))

    @cached_property
    def outline(self) -> Voxels:
        """(y, x) the pixels that are lung in any slice."""
        return np.asarray(reduce(np.logical_or, self.mask))

    def remove_extrapulmonary(
        self, found: MaskSlices, smallest: float = 0, connectivity: Connectivity = CONNECTIVITY_26
    ) -> PackedMask:
        """Return (z, y, x) a mask without the regions that touch no lung: table, bowel, skin.

        Args:
            found: (z, y, x).
            smallest: Number of voxels below which a region is left out too.
            connectivity: Neighbours that are of one region: for pictures, those in the slice alone.
        """
        regions = find_components(found, connectivity)
        touches_lung = np.zeros(len(regions.sizes), dtype=np.bool_)
        around = bounding_box(reduce(np.logical_or, found)) or ()
        near = tuple(slice(max(0, side.start - RIM_PIXELS), side.stop + RIM_PIXELS) for side in around)
        for (box, labels), lung in zip(regions, self.mask, strict=True):
            if labels.size:
                lung[near] = dilate(lung[near], RIM_PIXELS)
                touches_lung[labels[lung[box]]] = True
        return regions.select(touches_lung & (regions.sizes >= smallest))

    def including_lesions(self, lesions: MaskSlices) -> LungField:
        """Return the field with the lesions that touch it counted as lung.

        The lung network may take a part of a dense lesion for chest wall.
        """
        extended = (_with_lesion(*planes) for planes in zip(self.right, self.left, lesions, strict=True))
        right, left = zip(*((pack_slice(right), pack_slice(left)) for right, left in extended), strict=True)
        return replace(self, right=PackedMask(right), left=PackedMask(left))


def _with_lesion(right: Voxels, left: Voxels, lesion: Voxels) -> tuple[Voxels, Voxels]:
    """Return (y, x) the right and the left lung of a slice, extended by the parts of the lesion that touch them."""
    if not (lesion & ~right & ~left).any():
        return right, left
    box = bounding_box(right | left | lesion) or ()
    on_right, on_left, inside = right[box], left[box], lesion[box]
    near = dilate(on_right | on_left, RIM_PIXELS)
    parts = label_parts(inside, diagonal=False)
    touching = np.unique(parts[near & inside])
    added = np.isin(parts, touching[touching > 0])
    if not added.any():
        return right, left
    right, left = right.copy(), left.copy()
    nearer_right = distance_to(on_right) <= distance_to(on_left)
    right[box] = fill_holes(on_right | (added & nearer_right & ~on_left))
    left[box] = fill_holes(on_left | (added & ~right[box]))
    right[box] &= ~left[box]
    return right, left
