"""Masks of a scan, packed slice by slice: whole ones in bytes would be as large as the scan itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Voxels = NDArray[np.bool_]


class PackedPlane(NamedTuple):
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
        plane = np.zeros(self.shape, dtype=np.uint8)
        if self.place is not None:
            inside = plane[self.place]
            for digit, row in enumerate(self.bits):
                inside |= np.unpackbits(row, count=inside.size).reshape(inside.shape) << digit
        return plane.view(self.dtype)


def pack(plane: NDArray[Any]) -> PackedPlane:
    """(y, x) bool or uint8, packed."""
    place = extent(plane)
    if place is None:
        return PackedPlane(plane.shape, plane.dtype, None, ())
    inside = plane[place].view(np.uint8)
    digits = range(int(inside.max()).bit_length())
    return PackedPlane(plane.shape, plane.dtype, place, tuple(np.packbits(inside >> digit & 1) for digit in digits))


@dataclass(frozen=True, eq=False)
class Packed:
    """A mask, or the numbers of classes, on a scan's grid; `numpy.asarray` makes a whole array of it.

    Attributes:
        planes: The slices, one at least.
    """

    planes: tuple[PackedPlane, ...]

    @classmethod
    def of(cls, planes: Iterable[NDArray[Any]]) -> Packed:
        """Pack slices (y, x) of bool or uint8, each as it comes."""
        return cls(tuple(map(pack, planes)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return len(self), *self.planes[0].shape

    def __len__(self) -> int:
        return len(self.planes)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (plane.unpacked() for plane in self.planes)

    def __getitem__(self, place: int | tuple[int, slice, slice]) -> NDArray[Any]:
        """(y, x) of a slice, or of a part of it."""
        if isinstance(place, tuple):
            z, *part = place
            return self.planes[z].unpacked()[tuple(part)]
        return self.planes[place].unpacked()

    def stack(self, start: int, stop: int) -> NDArray[Any]:
        """(stop - start, y, x): some slices as an array."""
        return np.stack([plane.unpacked() for plane in self.planes[start:stop]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """(z, y, x); always new."""
        if copy is False:
            raise ValueError("a packed mask has no array to share")
        return self.stack(0, len(self)).astype(dtype or self.planes[0].dtype, copy=False)


MaskSlices: TypeAlias = Voxels | Packed


def counts(mask: MaskSlices) -> NDArray[np.int64]:
    """(z,) voxels inside, of each slice."""
    return np.array([np.count_nonzero(plane) for plane in mask], dtype=np.int64)


def extent(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box around what is not 0, along each axis; None where nothing is."""
    found = []
    for axis in range(mask.ndim):
        places = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(places):
            return None
        found.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(found)
