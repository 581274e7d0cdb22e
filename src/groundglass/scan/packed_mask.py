"""Masks packed slice by slice: as bytes, a mask would need as much memory as the scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Voxels = NDArray[np.bool_]
BoundingBox = tuple[slice, ...]


class PackedSlice(NamedTuple):
    """A packed slice of booleans or class numbers.

    Attributes:
        shape: (y, x).
        dtype: bool or uint8.
        box: The smallest box around the non-zero pixels; None if all are 0.
        bits: The pixels in the box, eight to a byte: an array for each binary digit, the lowest first.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    box: BoundingBox | None
    bits: tuple[NDArray[np.uint8], ...]

    def unpacked(self) -> NDArray[Any]:
        """Return (y, x) the slice as an array of its own."""
        plane = np.zeros(self.shape, dtype=self.dtype)
        if self.box is not None:
            plane[self.box] = self.inside()
        return plane

    def inside(self) -> NDArray[Any]:
        """Return (y, x) what lies in the box."""
        assert self.box is not None, "an empty slice has no box"
        shape = tuple(side.stop - side.start for side in self.box)
        digits = (np.unpackbits(packed, count=prod(shape)) << digit for digit, packed in enumerate(self.bits))
        return reduce(np.bitwise_or, digits).reshape(shape).view(self.dtype)

    @property
    def foreground(self) -> PackedSlice:
        """The same slice as booleans: True where it is not 0."""
        inside = (reduce(np.bitwise_or, self.bits),) if self.bits else ()
        return PackedSlice(self.shape, np.dtype(np.bool_), self.box, inside)

    @property
    def pixels(self) -> int:
        """Number of pixels that are not 0."""
        return int(np.bitwise_count(reduce(np.bitwise_or, self.bits)).sum(dtype=np.int64)) if self.bits else 0


def pack_slice(plane: NDArray[Any]) -> PackedSlice:
    """Pack a slice (y, x) of bool or uint8."""
    box = bounding_box(plane)
    if box is None:
        return PackedSlice(plane.shape, plane.dtype, None, ())
    inside = plane[box].view(np.uint8)
    digits = range(int(inside.max()).bit_length())
    return PackedSlice(plane.shape, plane.dtype, box, tuple(np.packbits(inside >> digit & 1) for digit in digits))


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask, or a map of class numbers, on a scan's grid; `numpy.asarray` unpacks it into one array.

    Attributes:
        slices: The packed slices along z, at least one.
    """

    slices: tuple[PackedSlice, ...]

    @classmethod
    def from_slices(cls, slices: Iterable[NDArray[Any]]) -> PackedMask:
        """Pack slices (y, x) of bool or uint8, one after the other."""
        return cls(tuple(map(pack_slice, slices)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size along (z, y, x)."""
        return len(self), *self.slices[0].shape

    def __len__(self) -> int:
        return len(self.slices)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (packed.unpacked() for packed in self.slices)

    def __getitem__(self, index: int | tuple[int, slice, slice]) -> NDArray[Any]:
        """Return (y, x) a slice, or the part of it that `mask[z, rows, columns]` names."""
        if isinstance(index, tuple):
            z, *part = index
            packed = self.slices[z]
            return packed.inside() if packed.box == tuple(part) else packed.unpacked()[*part]
        return self.slices[index].unpacked()

    def stack(self, start: int, stop: int) -> NDArray[Any]:
        """Return (stop - start, y, x) some slices as one array."""
        return np.stack([packed.unpacked() for packed in self.slices[start:stop]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return (z, y, x) the whole mask as a new array."""
        if copy is False:
            raise ValueError("a packed mask has no array to share")
        return self.stack(0, len(self)).astype(dtype or self.slices[0].dtype, copy=False)


MaskSlices: TypeAlias = Voxels | PackedMask


def voxels_per_slice(mask: MaskSlices) -> NDArray[np.int64]:
    """Return (z,) the number of non-zero voxels of each slice."""
    if isinstance(mask, PackedMask):
        return np.array([packed.pixels for packed in mask.slices], dtype=np.int64)
    return np.array([np.count_nonzero(plane) for plane in mask], dtype=np.int64)


def shared_voxels_per_slice(one: MaskSlices, other: MaskSlices) -> NDArray[np.int64]:
    """Return (z,) the number of voxels of each slice that are in both masks of bool; fastest if `one` has few."""
    shared = np.zeros(len(one), dtype=np.int64)
    for z in np.flatnonzero(voxels_per_slice(one)).tolist():
        box = one.slices[z].box if isinstance(one, PackedMask) else None
        rows, columns = box or (slice(None), slice(None))
        shared[z] = np.count_nonzero(one[z, rows, columns] & other[z, rows, columns])
    return shared


def bounding_box(mask: NDArray[Any]) -> BoundingBox | None:
    """Return the smallest box around the non-zero elements, a slice for each axis; None if all are 0."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(occupied):
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
