"""Connected regions of a volume, found slice by slice: the numbers of all voxels would take twice the scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.packed_mask import MaskSlices, PackedMask, Voxels, extent

Structure = NDArray[np.bool_]
Numbers = NDArray[np.int32]
BoundingBox = tuple[slice, ...]

CONNECTIVITY_6: Structure = ndimage.generate_binary_structure(3, 1)
CONNECTIVITY_26: Structure = ndimage.generate_binary_structure(3, 3)
CONNECTIVITY_8_IN_SLICE: Structure = (
    CONNECTIVITY_26 & np.array([False, True, False])[:, None, None]
)  # slices are strangers
_NOWHERE = slice(0, 0), slice(0, 0)


@dataclass(frozen=True, eq=False)
class ConnectedComponents:
    """The connected regions of a mask, numbered from 1 as `scipy.ndimage.label` does; 0 is outside.

    Attributes:
        mask: (z, y, x).
        connected: (3, 3, 3) which of its neighbours a voxel is connected to.
        numbers: For each slice (parts + 1,): the region of each part that is connected within the slice; 0 of 0.
        sizes: (regions + 1,) voxels of each; 0 of 0.
    """

    mask: MaskSlices
    connectivity: Structure
    numbers: tuple[Numbers, ...]
    sizes: NDArray[np.int64]

    def __iter__(self) -> Iterator[tuple[BoundingBox, Numbers]]:
        """Of each slice: the smallest box around its regions, empty where there is none; (y, x) in it the regions."""
        for plane, numbers in zip(self.mask, self.numbers, strict=True):
            box, parts = _parts(plane, self.connectivity)
            yield box, numbers[parts]

    def centroids(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        """(wanted, 3) the mean (z, y, x) of the regions of these numbers."""
        total = np.zeros((len(wanted), 3), dtype=np.int64)
        for z, ((rows, columns), plane) in enumerate(self):
            for rank, number in enumerate(wanted if plane.size else ()):
                here = plane == number
                in_row, in_column = here.sum(1), here.sum(0)
                y, x = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
                total[rank] += in_row.sum() * z, in_row @ y, in_column @ x
        return np.asarray(total / self.sizes[wanted, None])

    def select(self, wanted: Voxels) -> PackedMask:
        """(z, y, x): the mask without the regions that are not wanted, of (regions + 1,)."""
        wanted = wanted & (self.sizes > 0)

        def select(box: BoundingBox, numbers: Numbers) -> Voxels:
            plane = np.zeros(self.mask.shape[1:], dtype=np.bool_)
            plane[box] = wanted[numbers]
            return plane

        return PackedMask.from_slices(select(*here) for here in self)


def find_components(mask: MaskSlices, connectivity: Structure) -> ConnectedComponents:
    """The connected regions of a mask.

    Args:
        mask: (z, y, x).
        connected: (3, 3, 3) which of its neighbours a voxel is connected to; symmetric.
    """
    height, width = mask.shape[1:]
    below: Numbers = np.zeros((height + 2, width + 2), dtype=np.int32)
    sizes, pairs = [np.zeros(1, dtype=np.int64)], [np.zeros((2, 0), dtype=np.int64)]
    ends = [0, 1]  # of each slice's parts in the list of all, which begins with the outside
    for plane in mask:
        box, parts = _parts(plane, connectivity)
        above = np.zeros_like(below)
        above[1:-1, 1:-1][box] = parts
        pairs.append(_touching(below, above, connectivity[0]) + np.array([ends[-2:]]).T - 1)
        sizes.append(np.bincount(parts.ravel(), minlength=1)[1:])
        ends.append(ends[-1] + len(sizes[-1]))
        below = above
    ones, others = np.concatenate(pairs, axis=1)
    region = _joined(ones, others, ends[-1])
    numbers = (np.append(region[:1], region[start:end]) for start, end in pairwise(ends[1:]))
    return ConnectedComponents(
        mask, connectivity, tuple(numbers), np.bincount(region, np.concatenate(sizes)).astype(np.int64)
    )


def _joined(ones: NDArray[np.int64], others: NDArray[np.int64], count: int) -> Numbers:
    """(count,) the region of each part, from the pairs that touch."""
    if not len(ones):
        return np.arange(count, dtype=np.int32)
    from scipy.sparse import coo_array  # takes a tenth of a second, which a picture does not need
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(ones)), (ones, others)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int32)


def _parts(plane: Voxels, connectivity: Structure) -> tuple[BoundingBox, Numbers]:
    """The smallest box around a slice's mask; (y, x) in it the parts that are connected within the slice, from 1."""
    box = extent(plane) or _NOWHERE
    inside = plane[box]
    parts = np.zeros(inside.shape, dtype=np.int32)
    if inside.size:
        ndimage.label(inside, connectivity[1], output=parts)
    return box, parts


def _touching(below: Numbers, above: Numbers, connectivity: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, pairs): the parts of two neighbouring slices, with a rim of one pixel, that touch; `connectivity` is (3, 3)."""
    inside = np.flatnonzero(above)
    part, pairs = above.ravel()[inside].astype(np.int64), [np.zeros(0, dtype=np.int64)]
    for row, column in np.argwhere(connectivity).tolist():
        beside = below.ravel()[inside + ((row - 1) * below.shape[1] + column - 1)]
        pair = beside.astype(np.int64) << 32 | part
        pairs.append(pair[np.flatnonzero(np.diff(pair, prepend=-1))])  # most are as the one before
    found = np.unique(np.concatenate(pairs))
    found = found[found >> 32 > 0]
    return np.stack([found >> 32, found & 0xFFFFFFFF])
