"""Connected regions of a volume, found slice by slice: a label volume would need twice the memory of the scan.

Within a slice, connected pixels form a *part*; parts that touch parts of the next slice form a *region*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.morphology import Labels, erode, label_parts
from groundglass.scan.packed_mask import BoundingBox, MaskSlices, PackedMask, Voxels, bounding_box

Connectivity = NDArray[np.bool_]

_FROM_MIDDLE = np.abs(np.indices((3, 3, 3)) - 1).sum(0)  # steps along the axes
CONNECTIVITY_6: Connectivity = _FROM_MIDDLE <= 1
CONNECTIVITY_26: Connectivity = _FROM_MIDDLE <= 3
CONNECTIVITY_8_IN_SLICE: Connectivity = CONNECTIVITY_26 & np.array([False, True, False])[:, None, None]
_EMPTY_BOX = slice(0, 0), slice(0, 0)


@dataclass(frozen=True, eq=False)
class ConnectedComponents:
    """The connected regions of a mask, numbered from 1 in the order of `scipy.ndimage.label`; 0 is the background.

    Attributes:
        mask: (z, y, x).
        connectivity: (3, 3, 3) True where a neighbour is connected to the voxel in the middle.
        region_of_part: For each slice (parts + 1,): the region that each part belongs to; entry 0 is the background.
        sizes: (regions + 1,) voxels of each region; entry 0 is 0.
    """

    mask: MaskSlices
    connectivity: Connectivity
    region_of_part: tuple[Labels, ...]
    sizes: NDArray[np.int64]

    def __iter__(self) -> Iterator[tuple[BoundingBox, Labels]]:
        """Yield for each slice the smallest box around its regions (perhaps empty), and in it (y, x) the regions."""
        for plane, region_of_part in zip(self.mask, self.region_of_part, strict=True):
            box, parts = _label_slice(plane, self.connectivity)
            yield box, region_of_part[parts]

    def centroids(self, regions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, 3) the mean (z, y, x) of n regions, given by number."""
        total = np.zeros((len(regions), 3), dtype=np.int64)
        for z, ((rows, columns), labels) in enumerate(self):
            if not labels.size:
                continue
            y, x = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
            for i, region in enumerate(regions):
                inside = labels == region
                per_row, per_column = inside.sum(1), inside.sum(0)
                total[i] += per_row.sum() * z, per_row @ y, per_column @ x
        return np.asarray(total / self.sizes[regions, None])

    def select(self, keep: Voxels) -> PackedMask:
        """Return (z, y, x) the mask of some regions alone; `keep` is (regions + 1,), its entry 0 has no effect."""
        keep = keep & (self.sizes > 0)

        def slices() -> Iterator[Voxels]:
            for box, labels in self:
                plane = np.zeros(self.mask.shape[1:], dtype=np.bool_)
                plane[box] = keep[labels]
                yield plane

        return PackedMask.from_slices(slices())


def find_components(mask: MaskSlices, connectivity: Connectivity) -> ConnectedComponents:
    """Find the connected regions of a mask.

    Args:
        mask: (z, y, x).
        connectivity: (3, 3, 3) True where a neighbour is connected to the voxel in the middle; symmetric.
    """
    height, width = mask.shape[1:]
    empty: Labels = np.zeros((height + 2, width + 2), dtype=np.int32)  # with a rim of one pixel, as all neighbours
    below = empty
    sizes = [np.zeros(1, dtype=np.int64)]
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    # All parts of the volume are numbered through; each slice's parts begin at its start, the background is number 0.
    starts = [0, 1]
    for plane in mask:
        box, parts = _label_slice(plane, connectivity)
        above = empty
        if parts.size:
            above = empty.copy()
            above[1:-1, 1:-1][box] = parts
            pairs.append(_touching_parts(below, box, parts, connectivity[0]) + np.array([starts[-2:]]).T - 1)
        sizes.append(np.bincount(parts.ravel(), minlength=1)[1:])
        starts.append(starts[-1] + len(sizes[-1]))
        below = above
    regions = _join_parts(pairs, starts[-1])
    region_of_part = tuple(np.append(regions[:1], regions[start:end]) for start, end in pairwise(starts[1:]))
    voxels = np.bincount(regions, np.concatenate(sizes)).astype(np.int64)
    return ConnectedComponents(mask, connectivity, region_of_part, voxels)


def _label_slice(plane: Voxels, connectivity: Connectivity) -> tuple[BoundingBox, Labels]:
    """Return the smallest box around a slice's mask, and in it (y, x) the parts, numbered from 1."""
    box = bounding_box(plane) or _EMPTY_BOX
    inside = plane[box]
    parts = label_parts(inside, diagonal=bool(connectivity[1].all())) if inside.size else np.zeros((0, 0), np.int32)
    return box, parts


def _touching_parts(
    below: Labels, box: BoundingBox, parts: Labels, connectivity: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Find the pairs of parts of two neighbouring slices that touch.

    Each pair is coded as one integer, part below * base + part above: `np.unique` of pairs would take several times
    the memory.

    Args:
        below: (y, x) parts of the lower slice, with an empty rim of one pixel.
        box: The box of the upper slice that holds its parts.
        parts: (y, x) these parts.
        connectivity: (3, 3) True where a pixel below is connected to the pixel above in the middle.

    Returns:
        (2, pairs): the part below and the part above of each pair.
    """
    base, width = int(parts.max(initial=0)) + 1, below.shape[1]
    inside = parts > 0
    rim = inside & ~erode(inside, 1, square=True)  # what lies beside a pixel elsewhere lies below another of its part
    steps = (np.argwhere(connectivity) - 1) @ (width, 1)

    def codes(where: Voxels, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        rows, columns = np.nonzero(where)
        pixels = (rows + box[0].start + 1) * width + columns + box[1].start + 1
        part_below = below.ravel()[pixels + steps[:, None]].astype(np.int64)
        code: NDArray[np.int64] = (part_below * base + parts[rows, columns]).ravel()
        return code[np.flatnonzero(np.diff(code, prepend=-1))]  # most pixels repeat the pair before them

    unique = np.unique(np.concatenate((codes(inside, steps[steps == 0]), codes(rim, steps[steps != 0]))))
    return np.stack(np.divmod(unique[unique >= base], base))  # smaller codes have the background below


def _join_parts(pairs: Sequence[NDArray[np.int64]], count: int) -> Labels:
    """Return (count,) the region of each part; `pairs` are (2, n) parts that touch."""
    below, above = np.concatenate(pairs, axis=1)
    regions = np.arange(count, dtype=np.int32)  # of each part, the lowest number found so far in its region
    while (regions[below] != regions[above]).any():
        lowest = np.minimum(regions[below], regions[above])
        for ends in (below, above, regions[below], regions[above]):
            np.minimum.at(regions, ends, lowest)
        regions = regions[regions]
    return np.unique(regions, return_inverse=True)[1].astype(np.int32)
