"""MHA and NRRD in; both are LPS as we are.

NRRD is read by SimpleITK. MHA is read here: ITK's own reader fills damaged voxels with zeros, writes on the terminal,
and can be brought to overrun its memory by a damaged header.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundglass.errors import FormatError
from groundglass.io.limits import check_count, check_plane, check_stored, file_size, plain_values, read_bytes, shown
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan

_HEADER_LIMIT = 1 << 20  # bytes of a text header; real ones have some hundreds
_MHA_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


def read_mha(path: Path) -> Scan:
    """Read a MetaImage with its voxels inside (.mha), whatever its name.

    Raises:
        FormatError: The file is damaged, cut short, too large, coloured, 4-D, without a usable grid, or no CT.
    """
    name = shown(path)
    text, start = text_header(path, b"ElementDataFile")
    fields = header_fields(text, "=")
    where = fields.get("elementdatafile", "LOCAL")
    check_inside(name, None if where.upper() == "LOCAL" else where)
    if not _is_true(fields, "binarydata", "true"):
        raise FormatError(f"{name} holds its voxels as text, expected binary ones: save it again with ITK")
    try:
        size = tuple(int(n) for n in fields["dimsize"].split())
        axes, channels = len(size), int(fields.get("elementnumberofchannels", "1"))
        dtype = np.dtype(_MHA_TYPES[fields["elementtype"].upper()])
        spacing = _numbers(fields, ("elementspacing", "elementsize"), np.ones(axes))
        origin = _numbers(fields, ("offset", "position", "origin"), np.zeros(axes))
        direction = _numbers(fields, ("transformmatrix", "rotation", "orientation"), np.eye(axes)).T
    except (KeyError, ValueError) as error:
        raise FormatError(f"{name} has a damaged header ({error}); copy or download it again") from None
    check_shape(name, size, channels)
    if _is_true(fields, "binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")):
        dtype = dtype.newbyteorder(">")
    data = _mha_voxels(path, start, int(np.prod(size)) * dtype.itemsize, _is_true(fields, "compresseddata", "false"))
    geometry = lps_geometry(name, size, origin, spacing, direction)
    values = np.frombuffer(data, dtype).reshape(geometry.shape)
    return Scan(plain_values(name, values), geometry, path)


def text_header(path: Path, last_line: bytes) -> tuple[str, int]:
    """A header up to the line that begins with `last_line`, and the byte at which the voxels begin."""
    head, end = read_bytes(path, _HEADER_LIMIT), 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        if line.endswith(b"\n") and line.replace(b"\r", b"").startswith(last_line):
            return head[:end].decode("latin-1"), end
    raise FormatError(f"{shown(path)} is damaged or cut short: its header has no end; copy or download it again")


def header_fields(text: str, separator: str) -> dict[str, str]:
    parts = (line.partition(separator) for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in parts}


def _is_true(fields: dict[str, str], key: str, default: str) -> bool:
    return fields.get(key, default).lower() in ("true", "1")


def _numbers(fields: dict[str, str], keys: tuple[str, ...], default: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first of the fields that stands there, in the shape of the default."""
    text = next((fields[key] for key in keys if key in fields), None)
    return default if text is None else np.array([float(n) for n in text.split()]).reshape(default.shape)


def check_inside(name: str, where: str | None) -> None:
    if where is not None:
        printable = "".join(c if c.isprintable() else "?" for c in where)
        raise FormatError(
            f"{name} keeps its voxels in another file ({printable}), expected them inside: save it as one .mha or .nrrd"
        )


def check_shape(name: str, size: tuple[int, ...], channels: int) -> None:
    """Refuse by the header alone, before memory is asked for."""
    check_count(name, size)
    if channels != 1:
        raise FormatError(
            f"{name} holds {channels} numbers per voxel, expected one grey value: give the CT itself, in HU"
        )
    if len(size) < 2 or int(np.prod(size[3:])) > 1:
        raise FormatError(
            f"{name} has the shape {' x '.join(map(str, size))}, expected one volume: "
            "take one, e.g. with SimpleITK image[:, :, :, 0]"
        )


def _mha_voxels(path: Path, start: int, claimed: int, packed: bool) -> bytes:
    """As many bytes as the header states, unpacked; neither more nor less may be packed."""
    name = shown(path)
    check_stored(name, claimed, file_size(path) - start, packed)
    with path.open("rb") as file:
        file.seek(start)
        if not packed:
            return file.read(claimed)
        unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip
        try:
            data = unpacker.decompress(file.read(), claimed + 1)
        except zlib.error:
            raise FormatError(f"{name} is damaged: its voxels do not unpack; copy or download it again") from None
    if len(data) != claimed or not unpacker.eof:
        found = "more" if len(data) > claimed else f"{len(data):,}"
        raise FormatError(
            f"{name} is damaged or cut short: its header states {claimed:,} bytes of voxels, {found} were found; "
            "copy or download it again"
        )
    return data


def lps_geometry(
    name: str, size: tuple[int, ...], origin: ArrayLike, spacing: ArrayLike, direction: ArrayLike
) -> Geometry:
    """The grid from ITK's (x, y, z) terms; a 2-D slice gets a third axis, one behind the third is dropped."""
    axes = min(len(size), 3)
    affine = np.eye(4)
    affine[:axes, :axes] = np.reshape(direction, (len(size), -1))[:axes, :axes] * np.asarray(spacing)[:axes]
    affine[:axes, 3] = np.asarray(origin)[:axes]
    affine[:, :3] = affine[:, 2::-1]
    try:
        geometry = Geometry((size[2] if axes > 2 else 1, size[1], size[0]), affine)
        check_plane(name, geometry)
    except ValueError as error:
        raise FormatError(f"{name} has no usable grid: {error}; set its spacing and save it again") from None
    return geometry
