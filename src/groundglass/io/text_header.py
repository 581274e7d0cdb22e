"""The common parts of MHA and NRRD: a text header, and the voxels behind it or in a file beside it."""

from __future__ import annotations

import contextlib
import re
import unicodedata
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from groundglass.errors import FormatError
from groundglass.io.limits import (
    check_slice_size,
    check_stored_size,
    check_voxel_count,
    file_size,
    read_bytes,
    shown,
)
from groundglass.io.other_formats import join_advice
from groundglass.scan.geometry import Geometry

HEADER_SUFFIXES = (".mhd", ".nhdr")  # of headers whose voxels lie in a file beside them
_VOXEL_FILE = re.compile(rb"^(?:ElementDataFile[ \t]*=|data ?file:)[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_VOXEL_SUFFIXES = (".raw", ".zraw", ".raw.gz")  # that programs give to voxels beside a header
_FROM_ROOT = re.compile(r"[/\\]|[A-Za-z]:")  # begins a whole path
_HEADER_LIMIT = 1 << 20  # bytes of a text header; real ones have some hundreds
_MAX_TRAILING = 4096  # bytes that may follow voxels that are not packed; fewer than a slice of a CT has


def split_header(path: Path, last_line: bytes) -> tuple[str, int]:
    """Read a text header up to the line that begins with `last_line`.

    That line may be the last of the file, without a line break, if the voxels lie in another file.

    Returns:
        The header, and the byte at which the voxels begin.

    Raises:
        FormatError: There is no such line.
    """
    head, end = read_bytes(path, _HEADER_LIMIT), 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        is_complete = line.endswith(b"\n") or end == len(head) < _HEADER_LIMIT
        if is_complete and line.replace(b"\r", b"").startswith(last_line):
            return head[:end].decode("latin-1"), end
    raise FormatError(f"{shown(path)} is damaged or cut short: its header has no end; copy or download it again")


def voxel_file(path: Path, data_file: str) -> tuple[Path, tuple[str, ...]]:
    """Return the file beside a header that holds its voxels, and notes for the user.

    Where a header names a whole path, as of the computer that wrote it, the file of that name beside it is meant.

    Args:
        path: The header.
        data_file: What it names as the file of its voxels.

    Raises:
        FormatError: It names several files or one in another folder, or there is no such file.
    """
    name, stated = shown(path), data_file.strip().removeprefix("./")
    keeps = f"{name} keeps its voxels in another file ({_kind_of(stated)})"
    from_root = _FROM_ROOT.match(stated)
    if re.search(r"[%\0]", stated) or stated.upper().startswith("LIST"):
        raise FormatError(f"{keeps}, expected inside, or in one file in the same folder: {join_advice(name)}")
    if re.search(r"[/\\:]", stated) and not from_root:
        raise FormatError(
            f"{keeps}, expected inside, or in one file in the same folder: put that file there, and name it"
        )
    if found := _beside(path, stated):
        where = "names its voxels by a path of the computer that wrote it: the file of that name beside it is read"
        return found, (f"the header {where}",) if from_root else ()
    renamed = next(filter(None, (_beside(path, f"{path.stem}{suffix}") for suffix in _VOXEL_SUFFIXES)), None)
    mend = "find that file, and put it there under the name that the header states"
    if renamed:
        mend = f"if {shown(renamed)} is that file, write its name into the header"
    raise FormatError(f"{keeps}, which is not beside it: {mend}")


def _beside(path: Path, data_file: str) -> Path | None:
    """Return the file in the folder of a header that it names; None if there is none.

    A header is decoded as Latin-1, but may be UTF-8; case counts only where names differ in nothing else.
    """
    named = re.split(r"[/\\:]", data_file)[-1]
    with contextlib.suppress(UnicodeError):
        named = named.encode("latin-1").decode("utf-8")
    try:
        files = [file for file in path.parent.iterdir() if _is_alike(file.name, named) and file.is_file()]
    except OSError:
        return None
    exact = path.with_name(named) if named not in ("", ".", "..") else path
    return exact if exact in files else files[0] if len(files) == 1 else None


def _is_alike(one: str, other: str) -> bool:
    one, other = (unicodedata.normalize("NFC", name).casefold() for name in (one, other))
    return one == other


def files_of(path: Path) -> list[Path]:
    """Return the files that hold a scan: the file itself, and of a header the file beside it that it names too.

    Raises:
        FormatError: The file cannot be read.
    """
    if not path.name.lower().endswith(HEADER_SUFFIXES):
        return [path]
    named = _VOXEL_FILE.search(read_bytes(path, _HEADER_LIMIT))
    voxels = _beside(path, named[1].decode("latin-1").strip()) if named else None
    return [path, voxels] if voxels else [path]


def _kind_of(data_file: str) -> str:
    """Return the extension of a file; its name may be that of a patient."""
    suffix = re.fullmatch(r".*(\.[A-Za-z0-9]{1,8})", data_file.strip())
    return suffix[1].lower() if suffix else "without an extension"


def check_shape(name: str, size: tuple[int, ...], channels: int) -> None:
    """Refuse what is not one grey volume or slice by its header, before memory is allocated.

    Args:
        name: The file's name, for messages.
        size: Voxels along (x, y, z, ...).
        channels: Numbers for each voxel.

    Raises:
        FormatError: The size is impossible or too large, or the file holds colours or several volumes.
    """
    check_voxel_count(name, size)
    if channels != 1:
        raise FormatError(
            f"{name} holds {channels} numbers per voxel, expected one grey value: give the CT itself, in HU"
        )
    if len(size) < 2 or int(np.prod(size[3:])) > 1:
        single = size.index(1) if len(size) == 4 and 1 in size else 3
        what = "take one" if single == 3 else "save it without the axis of length 1"
        raise FormatError(
            f"{name} has the shape {' x '.join(map(str, size))}, expected one volume: "
            f"{what}, e.g. with SimpleITK image[{', '.join('0' if i == single else ':' for i in range(4))}]"
        )


def read_voxels(path: Path, start: int, byte_count: int, packed: bool) -> bytes:
    """Read the voxels behind a header, without unpacking more than the header states.

    Args:
        path: The file.
        start: The byte at which its voxels begin.
        byte_count: Bytes of voxels that the header states.
        packed: Whether they are packed by zlib or gzip.

    Raises:
        FormatError: The file holds fewer or more bytes, or unpacks to fewer or more.
    """
    name, stored = shown(path), file_size(path) - start
    check_stored_size(name, byte_count, stored, packed)
    if not packed and stored - byte_count > _MAX_TRAILING:
        raise FormatError(
            f"{name} holds {stored:,} bytes of voxels, its header states {byte_count:,}: they do not belong together, "
            "or one of them is damaged; export the CT again"
        )
    with path.open("rb") as file:
        file.seek(start)
        if not packed:
            return file.read(byte_count)
        unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip
        try:
            data = unpacker.decompress(file.read(), byte_count + 1)
        except zlib.error:
            raise FormatError(f"{name} is damaged: its voxels do not unpack; copy or download it again") from None
    if len(data) != byte_count or not unpacker.eof:
        found = "more" if len(data) > byte_count else f"{len(data):,}"
        raise FormatError(
            f"{name} is damaged or cut short: its header states {byte_count:,} bytes of voxels, {found} were found; "
            "copy or download it again"
        )
    return data


def lps_geometry(name: str, size: tuple[int, ...], origin: ArrayLike, steps: ArrayLike) -> Geometry:
    """Build the grid from (x, y, z) order; a 2-D slice gets a third axis, axes behind the third are dropped.

    Args:
        name: The file's name, for messages.
        size: Voxels along the `axes` axes (x, y, z, ...).
        origin: (axes,) the centre of the first voxel, in LPS mm.
        steps: (axes, axes) in column i the way from a voxel to its neighbour along axis i, in LPS mm.

    Raises:
        FormatError: The grid is degenerate, or its axial slices are too small.
    """
    axes = min(len(size), 3)
    affine = np.eye(4)
    affine[:axes, :axes] = np.asarray(steps)[:axes, :axes]
    affine[:axes, 3] = np.asarray(origin)[:axes]
    affine[:, :3] = affine[:, 2::-1]
    try:
        geometry = Geometry((size[2] if axes > 2 else 1, size[1], size[0]), affine)
        check_slice_size(name, geometry)
    except ValueError as error:
        raise FormatError(f"{name} has no usable grid: {error}; set its spacing and save it again") from None
    return geometry
