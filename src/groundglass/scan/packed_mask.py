"""Masks of a scan, packed slice by slice: whole ones in bytes would be as large as the scan itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Voxels = NDArray[np.bool_]


class PackedSlice(NamedTuple):
    """A slice of bool, or of small numbers from 0.

    Attributes:
        shape: (y, x).
        dtype: bool or uint8.
        place: The smallest box around what is not 0; None where nothing is.
        bits: What is inside, eight voxels a byte; a row for each binary digit, the lowest first.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    place: tuple[slice, ...] | None
    bits: tuple[NDArray[np.uint8], ...]

    def unpacked(self) -> NDArray[Any]:
        """(y, x)."""
        packed = np.zeros(self.shape, dtype=np.uint8)
        if self.place is not None:
            inside = packed[self.place]
            for digit, row in enumerate(self.bits):
                inside |= np.unpackbits(row, count=inside.size).reshape(inside.shape) << digit
        return packed.view(self.dtype)


def pack(packed: NDArray[Any]) -> PackedSlice:
    """(y, x) bool or uint8, packed."""
    place = extent(packed)
    if place is None:
        return PackedSlice(packed.shape, packed.dtype, None, ())
    inside = packed[place].view(np.uint8)
    digits = range(int(inside.max()).bit_length())
    return PackedSlice(packed.shape, packed.dtype, place, tuple(np.packbits(inside >> digit & 1) for digit in digits))


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask, or the numbers of classes, on a scan's grid; `numpy.asarray` makes a whole array of it.

    Attributes:
        planes: The slices, one at least.
    """

    slices: tuple[PackedSlice, ...]

    @classmethod
    def from_slices(cls, slices: Iterable[NDArray[Any]]) -> PackedMask:
        """Pack slices (y, x) of bool or uint8, each as it comes."""
        return cls(tuple(map(pack, slices)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return len(self), *self.slices[0].shape

    def __len__(self) -> int:
        return len(self.slices)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (packed.unpacked() for packed in self.slices)

    def __getitem__(self, place: int | tuple[int, slice, slice]) -> NDArray[Any]:
        """(y, x) of a slice, or of a part of it."""
        if isinstance(place, tuple):
            z, *part = place
            return self.slices[z].unpacked()[tuple(part)]
        return self.slices[place].unpacked()

    def stack(self, start: int, stop: int) -> NDArray[Any]:
        """(stop - start, y, x): some slices as an array."""
        return np.stack([packed.unpacked() for packed in self.slices[start:stop]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """(z, y, x); always new."""
        if copy is False:
            raise ValueError("a packed mask has no array to share")
        return self.stack(0, len(self)).astype(dtype or self.slices[0].dtype, copy=False)


MaskSlices: TypeAlias = Voxels | PackedMask


def counts(mask: MaskSlices) -> NDArray[np.int64]:
    """(z,) voxels inside, of each slice."""
    return np.array([np.count_nonzero(packed) for packed in mask], dtype=np.int64)


def extent(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box around what is not 0, along each axis; None where nothing is."""
    found = []
    for axis in range(mask.ndim):
        places = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(places):
            return None
        found.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(found)
