"""Read MetaImage (.mha, and .mhd with .raw), whose coordinates are LPS like ours.

ITK's own reader is not used: it fills damaged voxels with zeros, writes to the terminal, and a damaged header can make
it overrun its memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import with_known_grid, with_unit
from groundglass.io.limits import file_size, native_values, shown
from groundglass.io.text_header import check_shape, lps_geometry, read_voxels, split_header, voxel_file
from groundglass.scan.scan import Scan

_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
# The names of a field, the one that counts first.
_SPACING = ("elementspacing", "elementsize")
_ORIGIN = ("offset", "position", "origin")
_DIRECTION = ("transformmatrix", "rotation", "orientation")
_MILLIMETRES = {"um": 1e-3, "cm": 10.0}  # in a unit
_ROUNDING = 0.01  # a part by which lengths may differ that count as one


def read_mha(path: Path) -> Scan:
    """Read a MetaImage with its voxels inside (.mha) or in a file beside it (.mhd), whatever its name.

    Raises:
        FormatError: The file is damaged, cut short, too large, coloured, 4-D, without a usable grid, or not a CT.
    """
    name = shown(path)
    text, start = split_header(path, b"ElementDataFile")
    fields = _header_fields(text)
    data_file = fields.get("elementdatafile", "LOCAL")
    is_inside = data_file.upper() == "LOCAL"
    voxels, file_notes = (path, ()) if is_inside else voxel_file(path, data_file)
    if not _is_true(fields, "binarydata", "true"):
        raise FormatError(f"{name} holds its voxels as text, expected binary ones: save it again as binary")
    try:
        size = tuple(int(n) for n in fields["dimsize"].split())
        axes = len(size)
        check_shape(name, size, channels=int(fields.get("elementnumberofchannels", "1")))
        dtype = np.dtype(_TYPES[fields["elementtype"].upper()])
        spacing = _numbers(fields, _SPACING, np.ones(axes))
        origin = _numbers(fields, _ORIGIN, np.zeros(axes))
        direction = _numbers(fields, _DIRECTION, np.eye(axes)).T
        before_voxels = int(fields.get("headersize", "0"))  # bytes in the file of the voxels; -1: all but these
    except (KeyError, ValueError):  # what they say quotes the header, which may name a patient
        raise FormatError(
            f"{name} has a damaged header: DimSize, ElementType or numbers of its grid are missing or cannot be read; "
            "copy or download it again"
        ) from None
    if _is_true(fields, "binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")):
        dtype = dtype.newbyteorder(">")
    byte_count = int(np.prod(size)) * dtype.itemsize
    if not is_inside or before_voxels:
        start = before_voxels if before_voxels >= 0 else max(0, file_size(voxels) - byte_count)
    data = read_voxels(voxels, start, byte_count, packed=_is_true(fields, "compresseddata", "false"))
    steps, notes = _steps(name, direction, spacing)
    geometry = lps_geometry(name, size, origin, steps)
    millimetres = _MILLIMETRES.get(fields.get("distanceunits", "").lower(), 1.0)
    geometry, unit_notes = with_unit(geometry, (millimetres, millimetres, millimetres if axes > 2 else 1.0))
    geometry = replace(geometry, has_directions=any(key in fields for key in _DIRECTION))
    values = np.frombuffer(data, dtype).reshape(geometry.shape)
    scan = Scan(native_values(name, values), geometry, path, (*file_notes, *notes, *unit_notes))
    states_spacing = any(key in fields for key in _SPACING) or not _has_length_1(direction)
    return fill_empty_voxels(name, with_known_grid(scan, states_spacing, states_thickness=axes > 2))


def _steps(
    name: str, direction: NDArray[np.float64], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return (axes, axes) in column i the way from a voxel to its neighbour along axis i, and what was assumed.

    Directions that are as long as the spacing hold it already, and it counts once.

    Raises:
        FormatError: The directions have another length than 1 or the spacing.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of infinite numbers, which make no grid
        lengths, steps = np.linalg.norm(direction, axis=0), direction * spacing
    is_grid = bool(np.isfinite(steps).all() and steps.any(axis=0).all())
    if not is_grid or _has_length_1(direction) or np.allclose(np.abs(spacing), 1):
        return steps, ()
    if np.allclose(lengths, np.abs(spacing), rtol=_ROUNDING, atol=0):
        note = "TransformMatrix and ElementSpacing both hold the spacing: it counts once"
        return direction * np.sign(spacing), (note,)
    found = " x ".join(f"{length:.3g}" for length in lengths)
    raise FormatError(
        f"{name} states directions (TransformMatrix) of the lengths {found}, expected 1, so that the size of its "
        "voxels is unclear: set directions and spacing, and save it again"
    )


def _has_length_1(direction: NDArray[np.float64]) -> bool:
    """Return whether the columns of directions are without a spacing."""
    with np.errstate(over="ignore"):  # an infinite length is not 1
        return bool(np.allclose(np.linalg.norm(direction, axis=0), 1, atol=_ROUNDING))


def _header_fields(text: str) -> dict[str, str]:
    """{name in lower case: value} of each `name = value`."""
    parts = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in parts}


def _is_true(fields: dict[str, str], key: str, default: str) -> bool:
    return fields.get(key, default)[:1].lower() in ("t", "1")  # as ITK has it


def _numbers(fields: dict[str, str], keys: tuple[str, ...], default: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers of the first of these fields that the header has, in the shape of the default."""
    text = next((fields[key].replace(",", ".") for key in keys if key in fields), None)  # some write decimal commas
    return default if text is None else np.array([float(n) for n in text.split()]).reshape(default.shape)
