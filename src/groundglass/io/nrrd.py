"""Read NRRD: pynrrd parses the header; voxels are read here, so that no more is unpacked than the header states."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import with_known_grid, with_unit
from groundglass.io.limits import check_voxel_count, file_size, native_values, read_bytes, shown
from groundglass.io.text_header import check_shape, lps_geometry, read_voxels, split_header, voxel_file
from groundglass.scan.scan import Scan

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
_ENCODINGS = {
    **{"raw": "raw", "gzip": "gzip", "gz": "gzip", "hex": "hex"},
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
}
_DATA_FILE = re.compile(rb"^data ?file:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_DETACHED_BYTES = 1 << 16  # in which a header names the file of its voxels
_BLANKS_IN_VECTOR = re.compile(r"(?<=[(,])\s+|\s+(?=[,)])")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_REQUIRED = ("type", "dimension", "sizes", "encoding")
# Signs of the first two coordinates that bring a space to LPS.
_PATIENT_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1)),
}
# The others do not name the patient's directions: they are placed as LPS, as ITK does.
_TO_LPS = {
    **_PATIENT_SPACES,
    **dict.fromkeys(("scanner-xyz", "3d-right-handed", "3d-left-handed"), (1, 1)),
}
_MILLIMETRES = {  # in a unit; others, such as pixels, are taken as millimetres
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1e-3),
}
_ROUNDING = 0.01  # a part by which lengths may differ that count as one
_GRID_KINDS = ("domain", "space", "time", "none", "???")  # other kinds, such as `vector`: numbers of one voxel


def read_nrrd(path: Path) -> Scan:
    """Read an NRRD file with its voxels inside (.nrrd) or in a file beside it (.nhdr), whatever its name.

    Raises:
        FormatError: The file is damaged, cut short, too large, coloured, 4-D, without a usable grid, or not a CT.
    """
    (scan,) = _read_layers(path, may_be_several=False)
    return scan


def read_nrrd_layers(path: Path) -> tuple[Scan, ...]:
    """Read the layers of a segmentation of 3D Slicer, which has several where segments overlap.

    Raises:
        FormatError: As for `read_nrrd`, but for several numbers of a voxel.
    """
    return _read_layers(path, may_be_several=True)


def _read_layers(path: Path, may_be_several: bool) -> tuple[Scan, ...]:
    """Read a scan for each of the numbers that a voxel has."""
    name = shown(path)
    text, start, voxels, file_notes = _parts(path)
    header = _parse(name, text)
    try:
        sizes = tuple(int(n) for n in header["sizes"])
        check_voxel_count(name, sizes)
        on_grid = _on_grid(header, len(sizes))
        size = tuple(np.array(sizes, dtype=np.int64)[on_grid].tolist())
        count = int(np.prod(size))
        check_shape(name, size, channels=1 if may_be_several else int(np.prod(sizes)) // count)
        origin, steps, millimetres, notes = _grid(header, on_grid)
        dtype, encoding = _stored_as(header)
        start = _after_skip(header, encoding, start, file_size(voxels) - int(np.prod(sizes)) * dtype.itemsize)
    except ValueError as error:
        raise _refused(name, error) from None
    values = _read_values(voxels, start, int(np.prod(sizes)), dtype, encoding).reshape(sizes[::-1])
    geometry, unit_notes = with_unit(lps_geometry(name, size, origin, steps), np.append(millimetres, 1.0)[:3])
    geometry = replace(geometry, has_directions=_names_directions(header))
    states_spacing = "space directions" in header or "spacings" in header
    beside_grid = np.flatnonzero(~on_grid[::-1]).tolist()
    layers = np.moveaxis(values, beside_grid, range(len(beside_grid))).reshape(-1, *geometry.shape)
    scans = (Scan(native_values(name, layer), geometry, path, (*file_notes, *notes, *unit_notes)) for layer in layers)
    return tuple(fill_empty_voxels(name, with_known_grid(scan, states_spacing, len(size) > 2)) for scan in scans)


def _parts(path: Path) -> tuple[str, int, Path, tuple[str, ...]]:
    """Return the header, the byte at which the voxels begin, the file that holds them, and notes for the user.

    Raises:
        FormatError: There is no end of the header, or no file of the voxels.
    """
    header = _HEADER_END.split(read_bytes(path, _DETACHED_BYTES), maxsplit=1)[0]
    if found := _DATA_FILE.search(header):  # such a header needs no end
        return header.decode("latin-1"), 0, *voxel_file(path, found[1].decode("latin-1"))
    return *split_header(path, b"\n"), path, ()


def _parse(name: str, text: str) -> Mapping[str, Any]:
    """Return {field: value} of a header, with names in lower case; the author's own `key:=value` pairs are left out."""
    import nrrd  # here, so that the program starts quickly

    magic, *lines = (line.rstrip() for line in text.split("\n"))
    fields = []
    for line in lines:
        field, colon, value = line.partition(":")
        if line and not line.startswith("#") and not value.startswith("="):
            fields.append(field.lower() + colon + _BLANKS_IN_VECTOR.sub("", value))  # pynrrd reads no (1, 0, 0)
    try:
        with np.errstate(invalid="ignore"):  # infinite sizes become negative, and are refused
            header: Mapping[str, Any] = nrrd.read_header([magic, *fields])
    except (nrrd.NRRDError, ValueError, IndexError, OverflowError):  # what they say quotes the header
        raise _refused(name, "a field is missing, or cannot be read") from None
    missing = [field for field in _REQUIRED if field not in header]
    if missing:
        raise _refused(name, f"no {', '.join(missing)}")
    return header


def _refused(name: str, reason: object) -> FormatError:
    """Return the error for a header that cannot be used."""
    return FormatError(
        f"{name} has a header that is damaged or not supported ({reason}): "
        "copy or download it again, or save it anew with another program"
    )


def _on_grid(header: Mapping[str, Any], axes: int) -> NDArray[np.bool_]:
    """Return (axes,) True for an axis of the grid, False for one along the numbers of a voxel, such as colours."""
    kinds = header.get("kinds", ["domain"] * axes)
    directions = header.get("space directions", np.zeros((axes, 1)))
    spacings = header.get("spacings", np.ones(axes))
    if not header["dimension"] == axes == len(kinds) == len(directions) == len(spacings):
        raise ValueError(f"sizes of {axes} axes, other fields of more or fewer")
    has_grid_kind = np.array([kind.lower() in _GRID_KINDS for kind in kinds], dtype=np.bool_)
    return np.asarray(has_grid_kind & ~np.isnan(directions).all(axis=1))


class _Grid(NamedTuple):
    """A grid in the unit of the header: (axes,) first voxel's centre, and in column i of (axes, axes) the step along i.

    With (axes,) millimetres in that unit along each coordinate, and notes for the user.
    """

    origin: NDArray[np.float64]
    steps: NDArray[np.float64]
    millimetres: NDArray[np.float64]
    notes: tuple[str, ...]


def _grid(header: Mapping[str, Any], on_grid: NDArray[np.bool_]) -> _Grid:
    """Return the grid in LPS."""
    axes = int(on_grid.sum())
    spacings = header.get("spacings", np.ones(len(on_grid)))[on_grid]
    has_directions = "space directions" in header
    steps, notes = np.diag(spacings), tuple[str, ...]()
    if has_directions:
        steps, notes = _with_spacings(header["space directions"][on_grid].T, spacings)
    origin = header.get("space origin", np.zeros(axes))
    if steps.shape != (axes, axes) or origin.shape != (axes,):
        raise ValueError(f"{axes} axes in a space of {len(steps)} dimensions, whose origin has {len(origin)}")
    signs, millimetres = np.ones(axes), np.ones(axes)
    if "space" in header:
        space = header["space"].lower()
        if space not in _TO_LPS:
            raise ValueError(
                "a space that is not known, expected left-posterior-superior, right-anterior-superior or the like"
            )
        signs[:2] = _TO_LPS[space]
    elif has_directions and header.get("space dimension") != axes:
        raise ValueError("space directions without a space, expected one such as left-posterior-superior")
    units = header.get("space units" if has_directions else "units")
    if units is not None:
        if len(units) != (axes if has_directions else len(on_grid)):
            raise ValueError(f"units of {len(units)} axes, other fields of more or fewer")
        factors = np.array([_MILLIMETRES.get(unit.strip().lower(), 1.0) for unit in units])
        millimetres = factors if has_directions else factors[on_grid]
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite numbers, which make no grid
        return _Grid(signs * origin, signs[:, None] * steps, millimetres, notes)


def _with_spacings(
    steps: NDArray[np.float64], spacings: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the steps of a header that may state spacings beside directions, which the format excludes, and a note."""
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite numbers, which make no grid
        lengths, stated = np.linalg.norm(steps, axis=0), np.abs(spacings)
    if stated.shape != lengths.shape or not np.isfinite(stated).all() or not np.isfinite(lengths).all():
        return steps, ()
    if np.allclose(stated, 1) or np.allclose(lengths, stated, rtol=_ROUNDING):
        return steps, ()
    if not np.allclose(lengths, 1, rtol=_ROUNDING):
        raise ValueError("spacings that differ from the lengths of its space directions, expected one of them")
    return steps * stated, ("the directions of the file are without a length: its spacings give it",)


def _names_directions(header: Mapping[str, Any]) -> bool:
    """Return whether a header says how the patient lies in the grid."""
    return "space directions" in header and header.get("space", "").lower() in _PATIENT_SPACES


def _after_skip(header: Mapping[str, Any], encoding: str, start: int, last: int) -> int:
    """Return the byte at which the voxels begin.

    Args:
        header: The header, which may state a number of bytes to skip, or -1 for all but the voxels.
        encoding: How the voxels are written.
        start: The first byte behind the header.
        last: The byte at which raw voxels begin that end with the file.
    """
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if any(header.get(field, 0) for field in ("line skip", "lineskip")) or (skip and encoding != "raw"):
        raise ValueError("lines or packed bytes to skip, expected the voxels right behind the header")
    return max(start, last) if skip == -1 else start + max(0, skip)


def _stored_as(header: Mapping[str, Any]) -> tuple[np.dtype[Any], str]:
    """Return the type of the voxels, and how they are written: raw, gzip, hex or text."""
    kind, encoding, endian = (str(header.get(field, "")).lower() for field in ("type", "encoding", "endian"))
    if kind not in _TYPES:
        raise ValueError(f"a type that is not {'known' if kind else 'stated'}, expected integers or floats")
    if encoding not in _ENCODINGS:
        raise ValueError(f"an encoding that is not known, expected one of {', '.join(_ENCODINGS)}")
    dtype = np.dtype(_TYPES[kind])
    if dtype.itemsize > 1 and _ENCODINGS[encoding] != "text":
        if endian not in ("little", "big"):
            raise ValueError(f"an endian that is not {'known' if endian else 'stated'}, expected little or big")
        dtype = dtype.newbyteorder(">" if endian == "big" else "<")
    return dtype, _ENCODINGS[encoding]


def _read_values(path: Path, start: int, count: int, dtype: np.dtype[Any], encoding: str) -> NDArray[Any]:
    """Read (count,) the voxels behind the header."""
    if encoding in ("raw", "gzip"):
        data = read_voxels(path, start, count * dtype.itemsize, packed=encoding == "gzip")
        return np.frombuffer(data, dtype)
    with path.open("rb") as file:
        file.seek(start)
        written = file.read()
    try:
        if encoding == "hex":
            return np.frombuffer(bytes.fromhex(written.decode("ascii")), dtype, count)
        if len(written) < 2 * count - 1:  # before memory for the voxels is allocated
            raise ValueError("too few numbers")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns of what is not a number
            # Without a count: with one, NumPy fills up what is missing with whatever lies in memory.
            numbers = np.fromstring(written.replace(b",", b" "), f"{dtype.kind}8", sep=" ")[:count]
        if len(numbers) < count:
            raise ValueError("too few numbers")
        values = numbers.astype(dtype)
        if dtype.kind != "f" and (values != numbers).any():
            raise ValueError("numbers out of range")
    except (ValueError, DeprecationWarning):
        raise FormatError(
            f"{shown(path)} is damaged or cut short: it does not hold {count:,} {dtype} voxels as {encoding}; "
            "copy or download it again"
        ) from None
    return values
