"""Read MetaImage (.mha, and .mhd with .raw), whose coordinates are LPS like ours.

ITK's own reader is not used: it fills damaged voxels with zeros, writes to the terminal, and a damaged header can make
it overrun its memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import with_known_grid
from groundglass.io.limits import file_size, native_values, shown
from groundglass.io.text_header import check_shape, lps_geometry, read_voxels, split_header, voxel_file
from groundglass.scan.scan import Scan

_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


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
    voxels = path if is_inside else voxel_file(path, data_file)
    if not _is_true(fields, "binarydata", "true"):
        raise FormatError(f"{name} holds its voxels as text, expected binary ones: save it again as binary")
    try:
        size = tuple(int(n) for n in fields["dimsize"].split())
        axes = len(size)
        check_shape(name, size, channels=int(fields.get("elementnumberofchannels", "1")))
        dtype = np.dtype(_TYPES[fields["elementtype"].upper()])
        spacing = _numbers(fields, ("elementspacing", "elementsize"), np.ones(axes))
        origin = _numbers(fields, ("offset", "position", "origin"), np.zeros(axes))
        direction = _numbers(fields, ("transformmatrix", "rotation", "orientation"), np.eye(axes)).T
        with np.errstate(over="ignore", invalid="ignore"):  # of infinite numbers, which make no grid
            steps = direction * spacing
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
    geometry = lps_geometry(name, size, origin, steps)
    values = np.frombuffer(data, dtype).reshape(geometry.shape)
    return fill_empty_voxels(name, with_known_grid(Scan(native_values(name, values), geometry, path)))


def _header_fields(text: str) -> dict[str, str]:
    """{name in lower case: value} of each `name = value`."""
    parts = (line.partition("=") for line in text.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in parts}


def _is_true(fields: dict[str, str], key: str, default: str) -> bool:
    return fields.get(key, default).lower() in ("true", "1")


def _numbers(fields: dict[str, str], keys: tuple[str, ...], default: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers of the first of these fields that the header has, in the shape of the default."""
    text = next((fields[key] for key in keys if key in fields), None)
    return default if text is None else np.array([float(n) for n in text.split()]).reshape(default.shape)
