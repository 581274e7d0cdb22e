"""NIfTI-1 and NIfTI-2 headers: the fields that matter, and the grids that they state.

They are parsed here because the import of nibabel, and of pydicom with it, takes longer than all else of a short
command. Fields have the names and meanings of nifti1.h and nifti2.h (nifti.nimh.nih.gov), as nibabel's headers have.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

NiftiHeader = Any  # of either version: a structured array without axes, or a header of nibabel
HEADER_BYTES = 540  # of the longer version
_FIELDS = (  # name, type and place in NIfTI-1, type and place in NIfTI-2
    *(("sizeof_hdr", "i4", 0, "i4", 0), ("magic", "S4", 344, "S4", 4), ("dim", "8i2", 40, "8i8", 16)),
    *(("datatype", "i2", 70, "i2", 12), ("bitpix", "i2", 72, "i2", 14), ("pixdim", "8f4", 76, "8f8", 104)),
    *(("vox_offset", "f4", 108, "i8", 168), ("scl_slope", "f4", 112, "f8", 176), ("scl_inter", "f4", 116, "f8", 184)),
    *(("xyzt_units", "u1", 123, "i4", 500), ("cal_max", "f4", 124, "f8", 192), ("descrip", "S80", 148, "S80", 240)),
    *(("qform_code", "i2", 252, "i4", 344), ("sform_code", "i2", 254, "i4", 348)),
    *((f"quatern_{axis}", "f4", 256 + 4 * i, "f8", 352 + 8 * i) for i, axis in enumerate("bcd")),
    *((f"qoffset_{axis}", "f4", 268 + 4 * i, "f8", 376 + 8 * i) for i, axis in enumerate("xyz")),
    *((f"srow_{axis}", "4f4", 280 + 16 * i, "4f8", 400 + 32 * i) for i, axis in enumerate("xyz")),
)
_GRID_FIELDS = tuple(
    name for name, *_ in _FIELDS if name.startswith(("dim", "pixdim", "xyzt", "qform", "sform", "qua", "qoff", "srow"))
)
_END_OF_LINE = (b"\r\n\x1a\n", bytes(4))  # bytes 8 to 11 of NIfTI-2, which a transfer as text changes; some leave 0
_TYPES = {  # {code: type of a voxel}
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
    **{32: "c8", 1792: "c16", 1536: "g", 2048: "G"},
}
_COLOURS = (128, 2304)
_LAST_FORM_CODE = 5  # of the standard


def is_nifti(head: bytes) -> bool:
    """Return whether a file, unpacked, begins as a NIfTI-1 or NIfTI-2 file with its voxels inside."""
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def parse_header(head: bytes) -> NiftiHeader:
    """Return the header of a file, as it is.

    Args:
        head: The first `HEADER_BYTES` bytes of the file, unpacked.

    Raises:
        ValueError: It is cut short, or was changed as text.
    """
    layout = _LAYOUTS[2 if head[4:8] == b"n+2\0" else 1]
    if len(head) < layout.itemsize:
        raise ValueError(f"{len(head)} bytes instead of a header")
    if layout is _LAYOUTS[2] and head[8:12] not in _END_OF_LINE:
        raise ValueError("its line ends were changed, as if it were text")
    header = np.frombuffer(head[: layout.itemsize], layout).reshape(()).copy()
    return header if 0 <= header["dim"][0] <= 7 else header.view(layout.newbyteorder())


def new_header(like: NiftiHeader) -> NiftiHeader:
    """Return a header of the same version with the shape and the grid of another, and nothing else of it."""
    version = 2 if like["sizeof_hdr"] == _LAYOUTS[2].itemsize else 1
    header = np.zeros((), _LAYOUTS[version])
    header["sizeof_hdr"], header["magic"] = _LAYOUTS[version].itemsize, f"n+{version}"
    for name in _GRID_FIELDS:
        header[name] = like[name]
    return header


def complete_header(header: NiftiHeader, dtype: np.dtype[Any], description: bytes) -> bytes:
    """Return the bytes before the voxels of a file whose header is complete but for these.

    Args:
        header: A header of `new_header`.
        dtype: Type of the voxels.
        description: Text for people.
    """
    header["datatype"] = next(code for code, kind in _TYPES.items() if np.dtype(kind) == dtype.newbyteorder("="))
    header["bitpix"], header["vox_offset"] = 8 * dtype.itemsize, first_offset(header)
    header["scl_slope"], header["cal_max"], header["descrip"] = 1, 1, description
    head = bytearray(header.tobytes().ljust(first_offset(header), b"\0"))
    if header["magic"] == b"n+2":
        head[8:12] = _END_OF_LINE[0]
    return bytes(head)


def first_offset(header: NiftiHeader) -> int:
    """Return the first byte at which voxels may lie: behind the header and the four bytes that tell of extensions."""
    return int(header["sizeof_hdr"] == _LAYOUTS[2].itemsize) * (_LAYOUTS[2].itemsize - _LAYOUTS[1].itemsize) + 352


def voxel_type(header: NiftiHeader) -> np.dtype[Any] | None:
    """Return the type of the voxels in the byte order of the file; None for colours.

    Raises:
        ValueError: The code is none of the standard's.
    """
    code = int(header["datatype"])
    if code in _COLOURS:
        return None
    if code not in _TYPES:
        raise ValueError(f"data code {code} is not supported")
    is_big_endian = header.dtype["dim"].base.byteorder == ">"
    return np.dtype(_TYPES[code]).newbyteorder(">" if is_big_endian else "=")


def shape_of(header: NiftiHeader) -> tuple[int, ...]:
    """Return the number of voxels along each axis that the header states."""
    return tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])


def repair_grid(header: NiftiHeader) -> None:
    """Give values that the standard excludes the meaning that most programs give them, in place.

    Spacings count by their size, and 0 as 1; a qfac other than -1 is 1; unknown codes of a form are 0; a quaternion
    that is longer than 1 is brought to the length of 1, as the standard's own library does.
    """
    pixdim = header["pixdim"]
    pixdim[1:4] = np.where(pixdim[1:4] == 0, 1, np.abs(pixdim[1:4]))
    pixdim[0] = -1 if pixdim[0] == -1 else 1
    for form in ("qform_code", "sform_code"):
        if not 0 <= header[form] <= _LAST_FORM_CODE:
            header[form] = 0
    fields = ("quatern_b", "quatern_c", "quatern_d")
    length = math.hypot(*(float(header[field]) for field in fields))
    if 1 < length < math.inf:
        for field in fields:
            header[field] = float(header[field]) / length


@np.errstate(all="ignore")  # numbers that are none, also signalling ones, are refused with the grid
def affine_of(header: NiftiHeader, form: str) -> NDArray[np.float64]:
    """Return the (4, 4) affine of the `sform`, the `qform` or the `spacing`, to RAS in the header's own unit.

    The spacing alone gives axes to the left, to the front and upwards about the middle of the volume, as elsewhere.
    """
    affine = np.eye(4)
    if form == "sform":
        affine[:3] = [header[f"srow_{axis}"] for axis in "xyz"]
        return affine
    axes = min(3, int(header["dim"][0]))
    spacing = np.ones(3)
    spacing[: 3 if form == "qform" else axes] = np.abs(header["pixdim"][1 : 4 if form == "qform" else 1 + axes])
    if form == "qform":
        spacing[2] *= -1 if header["pixdim"][0] == -1 else 1
        affine[:3, :3] = _rotation(*(header[f"quatern_{axis}"] for axis in "bcd")) * spacing
        affine[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    else:
        shape = np.ones(3)
        shape[:axes] = shape_of(header)[:3]
        spacing[0] *= -1
        affine[:3, :3] = np.diag(spacing)
        affine[:3, 3] = -spacing * (shape - 1) / 2
    return affine


def _rotation(b: Any, c: Any, d: Any) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of a quaternion whose first number, which is not stored, makes its length 1."""
    rounding = 3 * float(np.finfo(b.dtype).eps)
    b, c, d = float(b), float(c), float(d)
    length = b * b + c * c + d * d
    a = math.sqrt(1 - length) if 1 - length > rounding else 0.0
    if a == 0 and 0 < length < math.inf:
        b, c, d = (part / math.sqrt(length) for part in (b, c, d))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


def _layout(version: int) -> np.dtype[Any]:
    kinds, places = zip(*(field[2 * version - 1 : 2 * version + 1] for field in _FIELDS), strict=True)
    size = {1: 348, 2: HEADER_BYTES}[version]
    return np.dtype({"names": [name for name, *_ in _FIELDS], "formats": kinds, "offsets": places, "itemsize": size})


_LAYOUTS = {version: _layout(version) for version in (1, 2)}
