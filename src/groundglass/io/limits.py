"""Limits and checks that hold for scans of every file format."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.plain_text import printable
from groundglass.scan.geometry import AxialView, Geometry

MAX_VOXELS = 2**30  # 4096 slices of 512 x 512
MAX_AXES = 16  # of any format, as NRRD allows; a file may state thousands
MAX_VOXEL_BYTES = 1 << 32  # that these may take as they are stored
DECODER_BYTES = 2 << 30  # of memory that the process may take which decodes compressed frames and pictures
DECODER_CORE_S = 8  # for which it may compute for one of them; a slice of 512 x 512 takes 0.05 s at most
DECODER_S = 120.0  # by the clock, also if it waits: other programs may have the cores
MIN_SIDE = 16  # pixels along each side of an axial slice
_SMALL = 1 << 16  # bytes that may be asked for of any file
MAX_DEFLATE = 1100  # bytes that one byte of zlib or gzip can unpack to; 1032 by the definition of deflate


def shown(path: Path) -> str:
    """Return a path's name for a message."""
    return printable(path.name or str(path))


def check_voxel_count(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a shape by the header alone, before memory is allocated.

    Raises:
        FormatError: A side is not positive, or there are more than `MAX_VOXELS` voxels or `MAX_AXES` axes.
    """
    if len(shape) > MAX_AXES:
        raise FormatError(f"{name} states {len(shape):,} axes, expected three: it is damaged")
    if any(n < 1 for n in shape):
        raise FormatError(
            f"{name} states the size {format_size(shape)}, expected 1 or more along each axis: it is damaged"
        )
    count = int(np.prod([int(n) for n in shape], dtype=object))
    if count > MAX_VOXELS:
        raise FormatError(
            f"{name} states {format_size(shape)} = {count:,} voxels, more than the {MAX_VOXELS:,} that are read: "
            "it is damaged, or cut it into smaller scans"
        )


def check_voxel_bytes(name: str, count: int) -> None:
    """Refuse voxels that would take too much memory, by the header alone.

    Raises:
        FormatError: There are more than `MAX_VOXEL_BYTES`.
    """
    if count > MAX_VOXEL_BYTES:
        raise FormatError(
            f"{name} states {count:,} bytes of voxels, more than the {MAX_VOXEL_BYTES:,} that are read: save it with "
            "16-bit integers, or cut it into smaller scans"
        )


def check_stored_size(name: str, claimed: int, stored: int, packed: bool) -> None:
    """Refuse a file that is too short for the voxels of its header.

    Args:
        name: The file's name, for messages.
        claimed: Bytes of voxels that the header states.
        stored: Bytes behind the header.
        packed: Whether the stored bytes are packed by zlib or gzip.

    Raises:
        FormatError: The stored bytes cannot hold the claimed ones, or these are too many.
    """
    check_voxel_bytes(name, claimed)
    if claimed > stored * (MAX_DEFLATE if packed else 1):
        raise FormatError(
            f"{name} is cut short: its header states {claimed:,} bytes of voxels, "
            f"the file holds {stored:,}{' packed ones' if packed else ''}; copy or download it again"
        )


def check_slice_size(name: str, geometry: Geometry) -> None:
    """Refuse axial slices that are too small for a CT.

    Raises:
        FormatError: An axial slice has fewer than `MIN_SIDE` pixels along a side.
    """
    height, width = AxialView(geometry).geometry.shape[1:]
    if min(height, width) < MIN_SIDE:
        raise FormatError(
            f"{name} has axial slices of {height} x {width} pixels, expected at least {MIN_SIDE} x {MIN_SIDE}: "
            "this is no CT slice, give the original scan"
        )


def native_values(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return integers unchanged and floats as float32, both in the machine's byte order.

    Raises:
        FormatError: The values are no real numbers.
    """
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind != "f":
        raise FormatError(f"{name} holds {values.dtype} voxels, expected integers or floats: convert them to int16")
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)


def read_bytes(path: Path, count: int) -> bytes:
    """Read the first `count` bytes of a file.

    Raises:
        FormatError: The file cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise FormatError(f"{shown(path)} cannot be read: {error.strerror}; check its permissions") from None


class _BoundedReader(io.BufferedReader):
    """A file whose `read` never asks for more bytes than are left."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= _SMALL:
            return super().read(size)
        left = self._size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


def open_bounded(path: Path) -> BinaryIO:
    """Open a file so that reading allocates no more memory than it has bytes, whatever length a header states."""
    return _BoundedReader(io.FileIO(path))


def file_size(path: Path) -> int:
    """Return the size of a file in bytes."""
    return path.stat().st_size


def format_size(shape: tuple[int, ...]) -> str:
    """Return the size of an array as text: `45 x 512 x 512`."""
    return " x ".join(str(int(n)) for n in shape)
