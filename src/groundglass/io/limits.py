"""What no scan may exceed or miss, whatever file it came from."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.scan.geometry import AxialView, Geometry

MAX_VOXELS = 2**30  # 4096 slices of 512 x 512
MIN_SIDE = 16  # pixels along each side of an axial slice
MAX_DEFLATE = 1100  # bytes that one byte of zlib or gzip can stand for; 1032 by its definition


def shown(path: Path) -> str:
    """A path's name for a message: on one line, and printable."""
    return "".join(c if c.isprintable() else "?" for c in path.name or str(path))


def check_count(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a claimed shape before memory is asked for.

    Raises:
        FormatError: A side is zero or negative, or there are more than `MAX_VOXELS` voxels.
    """
    if any(n < 1 for n in shape):
        raise FormatError(f"{name} states the size {_times(shape)}, expected 1 or more along each axis: it is damaged")
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if count > MAX_VOXELS:
        raise FormatError(
            f"{name} states {_times(shape)} = {count:,} voxels, more than the {MAX_VOXELS:,} that are read: "
            "it is damaged, or cut it into smaller scans"
        )


def check_stored(name: str, claimed: int, stored: int, packed: bool) -> None:
    """Refuse a file too short for the bytes of voxels its header claims.

    Raises:
        FormatError: `stored` bytes on disk cannot hold `claimed` bytes.
    """
    if claimed > stored * (MAX_DEFLATE if packed else 1):
        raise FormatError(
            f"{name} is cut short: its header states {claimed:,} bytes of voxels, "
            f"the file holds {stored:,}{' packed ones' if packed else ''}; copy or download it again"
        )


def check_plane(name: str, geometry: Geometry) -> None:
    """Refuse slices too small for a CT.

    Raises:
        FormatError: An axial slice has fewer than `MIN_SIDE` pixels along a side.
    """
    height, width = AxialView(geometry).geometry.shape[1:]
    if min(height, width) < MIN_SIDE:
        raise FormatError(
            f"{name} has axial slices of {height} x {width} pixels, expected at least {MIN_SIDE} x {MIN_SIDE}: "
            "this is no CT slice, give the original scan"
        )


def plain_values(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Integers as they are, floats as float32, both in the machine's byte order.

    Raises:
        FormatError: A value is NaN or infinite, or no real number.
    """
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind != "f":
        raise FormatError(f"{name} holds {values.dtype} voxels, expected integers or floats: save it as int16")
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32, copy=False)
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        raise FormatError(
            f"{name} has {wrong:,} of {values.size:,} voxels that are NaN or infinite, expected numbers: "
            "set them to the value of air (-1024 in HU) and save it again"
        )
    return values


def read_bytes(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file.

    Raises:
        FormatError: The file cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise FormatError(f"{shown(path)} cannot be read: {error.strerror}; check its permissions") from None


class _Bounded(io.BufferedReader):
    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


def open_bounded(path: Path) -> BinaryIO:
    """A file that asks for no more memory than it holds bytes, whatever length a damaged header claims."""
    return _Bounded(io.FileIO(path))


def file_size(path: Path) -> int:
    """Bytes on disk."""
    return path.stat().st_size


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(int(n)) for n in shape)
