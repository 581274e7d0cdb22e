"""Read NIfTI scans, and write masks whose shape and affines are exactly those of their scan."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from groundglass.errors import ConfigError, FormatError
from groundglass.files import write_atomic_chunks
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import is_possible_slice, with_known_grid
from groundglass.io.limits import (
    MAX_VOXELS,
    check_slice_size,
    check_stored_size,
    check_voxel_count,
    file_size,
    native_values,
    read_bytes,
    shown,
)
from groundglass.io.nifti_header import (
    HEADER_BYTES,
    NiftiHeader,
    affine_of,
    complete_header,
    first_offset,
    is_nifti,
    new_header,
    parse_header,
    repair_grid,
    shape_of,
    voxel_type,
)
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.scan import Mask, Scan

_isal_error = cast(type[Exception], isal_zlib.IsalError)  # its types call it an instance
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, _isal_error)
_MAX_TRAILING = 65536  # bytes that may follow the voxels; with more, the header is considered damaged
_LARGEST_MM = 1e9  # number in an affine; micrometres are a unit too
_ROUNDING = 1e-3  # of a length in a header
_CHUNK = 1 << 20  # bytes unpacked at once
_PACKING = 2  # level of isal, whose speed is four times zlib's; masks are mostly 0
_UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # {unit code of the header: (name, millimetres)}


def read_nifti(path: Path) -> Scan:
    """Read a .nii or .nii.gz, whatever its name.

    With a slope or intercept in the header, values are scaled and float32; otherwise integers keep their type. The grid
    is that of the sform, else of the qform; without both, the spacing is read and the patient's directions are unknown.
    A 2-D slice without a thickness gets 1 mm, and a note.

    Raises:
        FormatError: The file is damaged, cut short, too large, coloured, 4-D, without a usable grid, or not a CT.
    """
    name = shown(path)
    with _opened(path) as (stream, packed):
        header = _read_header(name, stream)
        shape = _one_volume(name, shape_of(header))
        grid = _grid(name, header, shape)
        offset, dtype = int(header["vox_offset"]), voxel_type(header)
        if dtype is None or dtype.kind not in "iuf":
            kind = "colours" if dtype is None else f"{dtype} numbers"
            raise FormatError(f"{name} holds {kind}, expected one grey value per voxel: give the CT itself, in HU")
        check_stored_size(name, offset + dtype.itemsize * int(np.prod(shape)), file_size(path), packed)
        stored = _read_voxels(stream, offset, dtype, int(np.prod(shape)))
        slope, intercept, scaling_notes = _scaling(header)
        if len(stream.read(_MAX_TRAILING + 1)) > _MAX_TRAILING:
            raise FormatError(f"{name} goes on after the voxels that its header states: it is damaged, export it again")
    if (slope, intercept) != (1, 0):
        with np.errstate(over="ignore", invalid="ignore"):  # infinite values are refused below
            stored = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    values = native_values(name, stored.reshape(shape, order="F").T)
    scan = Scan(values, _geometry(name, shape, grid), path, (*grid.notes, *scaling_notes))
    return fill_empty_voxels(name, with_known_grid(scan, states_thickness=not _lacks_thickness(header)))


def _read_voxels(stream: BinaryIO, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Read (count,) voxels from a place in a file.

    Raises:
        EOFError: The file ends before them.
    """
    voxels = np.empty(count, dtype)
    stream.seek(offset)
    found = cast(Any, stream).readinto(voxels.view(np.uint8))
    if found < voxels.nbytes:
        raise EOFError(f"{found:,} bytes of voxels instead of {voxels.nbytes:,}")
    return voxels


def grid_of_header(name: str, header: NiftiHeader, shape: tuple[int, int, int]) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid of a NIfTI header, and notes for the user.

    Args:
        name: The image's name, for messages.
        header: A NIfTI-1 or NIfTI-2 header of nibabel.
        shape: Voxels along (x, y, z).

    Raises:
        FormatError: The header has no usable grid.
    """
    grid = _grid(name, header, shape)
    return _geometry(name, shape, grid), grid.notes


def write_mask(mask: Mask, path: Path, like: Path | None = None) -> None:
    """Write a mask as uint8 0/1; a name that ends in .gz is packed.

    Args:
        mask: A mask on the grid of the scan.
        path: Output file, `.nii.gz` or `.nii`; an existing one is replaced.
        like: The scan's file. If it is NIfTI, the mask gets its shape, affines, their codes, spacings and units, and
            nothing else of its header, such as names and comments.

    Raises:
        FormatError: `like` cannot be read.
        OutputError: The file cannot be written.
    """
    write_mask_slices(mask.voxels, mask.geometry, path, like)


def write_mask_slices(
    slices: Iterable[NDArray[np.bool_]], geometry: Geometry, path: Path, like: Path | None = None
) -> None:
    """Write a mask from its slices (y, x) along z, one after the other; see `write_mask`."""
    planes = (plane.astype(np.uint8) for plane in slices)
    write_slices(planes, np.dtype(np.uint8), geometry, path, like, "lesion mask")


def write_slices(
    slices: Iterable[NDArray[Any]],
    dtype: np.dtype[Any],
    geometry: Geometry,
    path: Path,
    like: Path | None = None,
    content: str = "mask",
) -> None:
    """Write an array from 0 to 1 from its slices (y, x) along z, one after the other.

    Args:
        slices: The slices.
        dtype: Their type, which is that of the file.
        geometry: The grid.
        path: Output file: see `write_mask`.
        like: The scan's file: see `write_mask`.
        content: What the array is, for the header's description.
    """
    if like is not None and like.is_file() and is_nifti(_unpacked_head(like)):
        with _opened(like) as (stream, _):
            header = new_header(_read_header(shown(like), stream))
    else:
        header = _new_header(geometry)
    _write(slices, complete_header(header, dtype, f"groundglass {content}".encode()), path)


def write_scan(scan: Scan, path: str | os.PathLike[str]) -> None:
    """Write a scan's values in their own type as NIfTI (.nii), packed for a name that ends in .nii.gz.

    Raises:
        ConfigError: The name ends in something else.
        OutputError: The file cannot be written.
    """
    if not Path(path).name.lower().endswith((".nii", ".nii.gz")):
        raise ConfigError(f"{Path(path).name}: expected a name that ends in .nii.gz or .nii")
    _write(scan.values, complete_header(_new_header(scan.geometry), scan.values.dtype, b""), Path(path))


def _new_header(geometry: Geometry) -> NiftiHeader:
    """Return a NIfTI-1 header for this grid."""
    from nibabel.nifti1 import Nifti1Header  # here: its import takes half a second, and is for quaternions alone

    header: Any = Nifti1Header()  # typed in part only
    header.set_data_shape(geometry.shape[::-1])
    header.set_sform(geometry.affine_ras, code="scanner")
    # A qform cannot express shear (a tilted gantry); it is unset then, since programs that prefer it would be wrong.
    header.set_qform(geometry.affine_ras, code="unknown" if geometry.is_sheared else "scanner", strip_shears=True)
    header.set_xyzt_units("mm" if geometry.in_mm else "unknown")
    return new_header(header)


def _write(slices: Iterable[NDArray[Any]], head: bytes, path: Path) -> None:
    """Write header and voxels, without extensions."""
    chunks = chain((head,), (plane.tobytes() for plane in slices))
    write_atomic_chunks(path, _gzipped(chunks) if path.suffix.lower() == ".gz" else chunks)


def _gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pack by gzip, without a file name and time, so that equal masks give equal files."""
    packer = isal_zlib.compressobj(_PACKING, wbits=16 + isal_zlib.MAX_WBITS)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()


class _Gunzip(igzip.IGzipFile):
    """Unpacks into an array chunk by chunk: `IGzipFile` would allocate a second one of the same size."""

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes, and return the number of bytes."""
        target, done = memoryview(buffer).cast("B"), 0
        while chunk := self.read(min(_CHUNK, len(target) - done)):
            target[done : done + len(chunk)] = chunk
            done += len(chunk)
        return done


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Open a stream of the unpacked bytes, and return whether the file is packed; errors become a FormatError."""
    packed = read_bytes(path, 2) == b"\x1f\x8b"
    try:
        with path.open("rb") as file:
            if packed:
                with cast(Any, _Gunzip)(fileobj=file, mode="rb") as stream:  # isal is not typed
                    yield cast(BinaryIO, stream), packed
            else:
                yield file, packed
    except _DAMAGE as error:
        found = " ".join(str(error).split())
        raise FormatError(
            f"{shown(path)} is damaged or cut short ({found}), expected a whole NIfTI file: copy or download it again"
        ) from None


def _unpacked_head(path: Path) -> bytes:
    """Read the bytes of the header."""
    with _opened(path) as (stream, _):
        return stream.read(HEADER_BYTES)


def _read_header(name: str, stream: BinaryIO) -> NiftiHeader:
    """Read the header, with what can be repaired; other damage is refused."""
    header = parse_header(stream.read(HEADER_BYTES))
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise FormatError(f"{name} states {axes} axes, expected 2 or 3: it is damaged, export it again")
    beyond_space = header["dim"][4 : 1 + axes]
    beyond_space[beyond_space == 0] = 1
    check_voxel_count(name, shape_of(header))
    spacing = header["pixdim"][1 : 1 + min(axes, 3)]
    if header["sform_code"] == 0 and not (np.isfinite(spacing) & (spacing != 0)).all():
        raise FormatError(
            f"{name} states voxels of {' x '.join(f'{mm:g}' for mm in spacing)} mm, expected more than 0: "
            "set its spacing (pixdim) and save it again"
        )
    if not 0 <= header["vox_offset"] <= MAX_VOXELS:
        raise FormatError(f"{name} states that its voxels begin at byte {header['vox_offset']}: it is damaged")
    header["vox_offset"] = max(int(header["vox_offset"]), first_offset(header))  # never inside the header
    repair_grid(header)
    return header


def _one_volume(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (x, y, z) of a file's shape; further axes of size 1 are dropped, a 2-D slice gets a third axis."""
    if len(shape) < 2:
        raise FormatError(f"{name} is a line of {shape[0]} values, expected a slice or a volume: give the scan itself")
    extra = int(np.prod(shape[3:]))
    if len(shape) == 4 and extra > 1 and 1 in shape:
        single = shape.index(1)
        raise FormatError(
            f"{name} has the shape {' x '.join(map(str, shape))}, expected the three axes of a volume: save it without "
            "the axis of length 1 and with the affine of the CT, e.g. in Python with "
            f"nibabel.Nifti1Image(numpy.asarray(image.dataobj)[{', '.join([':'] * single + ['0'])}], affine)"
        )
    if extra > 1:
        raise FormatError(
            f"{name} holds {extra} volumes (shape {' x '.join(map(str, shape))}; time points?), expected one volume: "
            "take one, e.g. nibabel.load(path).slicer[..., 0]"
        )
    return shape[0], shape[1], shape[2] if len(shape) > 2 else 1


def _scaling(header: NiftiHeader) -> tuple[float, float, tuple[str, ...]]:
    """Return slope, intercept and what was assumed: a slope of 0 or without a value means that there is no scaling."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0, ()
    if np.isfinite(intercept):
        return slope, intercept, ()
    return slope, 0.0, (f"the header states a slope of {slope:g} but no usable intercept: it is taken as 0",)


class _Grid(NamedTuple):
    """A header's affine to RAS mm, whether it states directions, and notes for the user."""

    affine_ras: NDArray[np.float64]
    has_directions: bool
    notes: tuple[str, ...]


def _grid(name: str, header: NiftiHeader, shape: tuple[int, int, int]) -> _Grid:
    """Return the grid that a header states, and for a slice without a thickness 1 mm, whatever the unit of lengths.

    Raises:
        FormatError: Every form that is set is unusable.
    """
    grid = _stated_grid(name, header, shape)
    if not _lacks_thickness(header):
        return grid
    affine = grid.affine_ras.copy()
    with np.errstate(invalid="ignore", over="ignore"):  # such numbers are refused with the grid
        affine[:3, 2] /= np.linalg.norm(affine[:3, 2])
    return grid._replace(affine_ras=affine)


def _lacks_thickness(header: NiftiHeader) -> bool:
    """Return whether a header of two axes states nothing, or 1 as programs fill in, along the third one."""
    if int(header["dim"][0]) != 2:
        return False
    stated = [float(header["pixdim"][3])]
    if header["sform_code"] > 0:
        stated.append(math.hypot(*(float(header[f"srow_{axis}"][2]) for axis in "xyz")))
    return all(min(abs(length), abs(length - 1)) < _ROUNDING for length in stated)


def _stated_grid(name: str, header: NiftiHeader, shape: tuple[int, int, int]) -> _Grid:
    """Return the grid of the sform if it is set and usable, else of the qform, else of the spacing alone.

    A sform that a program left at 1 x 1 x 1 mm from (0, 0, 0) gives way to a qform that states another grid.

    Raises:
        FormatError: Every form that is set is unusable.
    """
    affines = {form: _affine_of(header, form) for form in ("sform", "qform") if header[f"{form}_code"] > 0}
    by_spacing = _affine_of(header, "spacing")
    scale, notes = _unit_mm(header, shape, [*affines.values(), by_spacing][0])
    if not affines:
        with np.errstate(invalid="ignore", over="ignore"):  # such numbers are refused with the grid
            return _Grid(scale @ by_spacing, False, notes)
    usable = {form: affine for form, affine in affines.items() if _is_usable(affine)}
    if not usable:
        raise FormatError(
            f"{name} has no usable grid: its {' and '.join(affines)} put voxels nowhere; set its affine and save it "
            "again"
        )
    used, *other = usable
    if other and _is_unit(usable[used]) and not _is_unit(usable[other[0]]):
        notes += (f"the {used} of the file was never set (voxels of 1 x 1 x 1 mm): its {other[0]} is used",)
        return _Grid(scale @ usable[other[0]], True, notes)
    if len(usable) < len(affines):
        unused = next(form for form in affines if form not in usable)
        notes += (f"the {unused} of the file puts voxels nowhere: its {used} is used",)
    elif other and _disagree(usable[used], usable[other[0]]):
        spacings = [_voxel_sizes(scale @ affine) for affine in usable.values()]
        sform, qform = (" x ".join(f"{mm:.3g}" for mm in spacing) for spacing in spacings)
        found = f"voxels of {sform} and {qform} mm" if sform != qform else "other directions"
        notes += (f"sform and qform of the file disagree ({found}): the sform is used",)
    return _Grid(scale @ usable[used], True, notes)


def _affine_of(header: NiftiHeader, form: str) -> NDArray[np.float64]:
    """Return a (4, 4) affine as `affine_of` does, with a third axis for a slice that has none."""
    affine = affine_of(header, form)
    if int(header["dim"][0]) == 2 and not affine[:3, 2].any():
        with np.errstate(invalid="ignore", over="ignore"):  # such numbers are refused with the grid
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return affine


def _is_usable(affine: NDArray[np.float64]) -> bool:
    """Return whether an affine maps voxels into space, at positions that a scanner could have."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > _LARGEST_MM:
        return False
    try:
        Geometry.from_ras((1, 1, 1), affine)
    except ValueError:
        return False
    return True


def _disagree(sform: NDArray[np.float64], qform: NDArray[np.float64]) -> bool:
    """Return whether two affines have other voxel sizes (by more than 1 %) or other directions."""
    one, other = (AxialView(Geometry.from_ras((1, 1, 1), affine)).axes for affine in (sform, qform))
    sizes = _voxel_sizes(sform) / _voxel_sizes(qform)
    return bool(np.abs(sizes - 1).max() > 0.01) or one != other


def _is_unit(affine: NDArray[np.float64]) -> bool:
    """Return whether an affine has voxels of 1 along each axis from (0, 0, 0), as of an array that was just saved."""
    return bool(np.allclose(np.abs(affine), np.eye(4), atol=1e-3))


def _voxel_sizes(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _unit_mm(
    header: NiftiHeader, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the (4, 4) scaling from the header's unit to millimetres; a unit that makes no chest is not believed."""
    code = int(header["xyzt_units"]) & 7
    if code not in _UNITS or not _is_usable(affine):
        return np.eye(4), ()
    unit, millimetres = _UNITS[code]
    scale = np.diag([millimetres, millimetres, millimetres, 1.0])
    if is_possible_slice(Geometry.from_ras(shape, scale @ affine)) or not is_possible_slice(
        Geometry.from_ras(shape, affine)
    ):
        return scale, ()
    return np.eye(4), (f"the header states lengths in {unit}, which make no chest: they are taken as millimetres",)


def _geometry(name: str, shape: tuple[int, int, int], grid: _Grid) -> Geometry:
    try:
        geometry = replace(Geometry.from_ras(shape, grid.affine_ras), has_directions=grid.has_directions)
        check_slice_size(name, geometry)
        return geometry
    except ValueError as error:
        raise FormatError(f"{name} has no usable grid: {error}; set its affine and save it again") from None
