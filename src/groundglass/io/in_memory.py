"""Scans from what a program holds: arrays, nibabel and SimpleITK images, pydicom data sets, lists of files."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import ArrayLike, NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from groundglass.errors import FormatError
from groundglass.io.dicom import read_dicom
from groundglass.io.dicom_files import file_opener
from groundglass.io.dicom_header import ByteOpener
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.grid import is_possible_slice, with_known_grid
from groundglass.io.image_slices import read_image_slices
from groundglass.io.limits import check_slice_size, check_voxel_count, native_values
from groundglass.io.nifti import grid_of_header
from groundglass.io.reader import file_kind, read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan

# A path, a Scan, an array, a nibabel or SimpleITK image, a pydicom Dataset, or a list of paths or data sets. Spelt out
# as types it would need every library that makes such images.
ScanSource: TypeAlias = Any
_ARRAY, _IMAGE, _DATA_SETS = "the array", "the image", "the data sets"
_PICTURES = ("PNG", "JPEG")
_NO_SPACING = "the array came without spacing: volumes are unknown; give spacing, or affine"
_NO_DIRECTION = (
    "the array came without directions: which side is the patient's right one is unknown; give direction, or affine"
)


@dataclass(frozen=True, eq=False, repr=False)
class ArrayScan(Scan):
    """A scan whose array came with the axes of a NIfTI image; `values` is the same array with its axes reversed."""


def as_scan(
    source: ScanSource,
    *,
    spacing: Sequence[float] | None = None,
    direction: ArrayLike | None = None,
    affine: ArrayLike | None = None,
    dicom: DicomOptions | None = None,
) -> Scan:
    """Make a scan of a path, or of what a program holds in memory.

    Args:
        source: One of:

            - a path, as `str` or `Path`: see `read_scan`;
            - a list of paths: the files of one DICOM series, or PNG or JPEG slices from feet to head;
            - a pydicom `Dataset`, or a list of them, with their pixels; in any order;
            - a nibabel image;
            - a SimpleITK image;
            - an array: with `affine`, its axes are those of a NIfTI image, usually (x, y, z); otherwise they are
              (z, y, x), as `SimpleITK.GetArrayFromImage` gives them. Its numbers are HU, HU shifted by 1000 or 1024, or
              grey levels of a window in 8 bits or from 0 to 1.
            - a `Scan`, which is returned as it is.
        spacing: Distance in mm between voxel centres along each axis of an array (z, y, x), in the order of the axes;
            None: unknown, and so are volumes.
        direction: For an array (z, y, x): (3, 3); column i is the direction (L, P, S) in which axis i runs, so that the
            identity with its columns reversed means from feet to head, front to back, right to left. None: unknown, and
            so is which side is the patient's right one.
        affine: For an array: (4, 4) matrix that maps the indices (i, j, k, 1) of its axes to (R, A, S, 1) in mm, as in
            NIfTI; instead of `spacing` and `direction`.
        dicom: What else may be asked for where the source is DICOM.

    Example:
        >>> import numpy as np
        >>> as_scan(np.full((40, 128, 128), -800, dtype=np.int16), spacing=(5, 2.5, 2.5))
        Scan(in memory: int16 on Geometry(40 x 128 x 128 voxels (z, y, x) of 5 x 2.5 x 2.5 mm))

    Raises:
        FormatError: The source cannot be read, or spacing, direction or affine do not fit an array of a chest.
        TypeError: The source is of none of these types, or a grid is given for a source that states its own.
    """
    of_array = spacing is not None or direction is not None or affine is not None
    if of_array and not _is_array(source):
        raise TypeError(f"spacing, direction and affine are those of an array: {_named(source)} states its own")
    if isinstance(source, Scan):
        return source
    if isinstance(source, str | os.PathLike):
        return read_scan(source, dicom=dicom)
    if isinstance(source, Dataset):
        return _of_items([source], dicom or DicomOptions())
    if hasattr(source, "dataobj") and hasattr(source, "affine"):
        return _of_nibabel(source)
    if hasattr(source, "GetDirection") and hasattr(source, "GetSpacing"):
        return _of_simpleitk(source)
    if _is_array(source):
        return _of_array(np.asarray(source), spacing, direction, affine)
    if isinstance(source, Iterable):
        return _of_items(list(source), dicom or DicomOptions())
    raise TypeError(f"{_named(source)} is no scan: expected a path, an array, an image, or pydicom data sets")


def _is_array(source: object) -> bool:
    return hasattr(source, "__array__") and hasattr(source, "shape") and not hasattr(source, "dataobj")


def _named(source: object) -> str:
    return f"a {type(source).__name__}"


def _of_array(
    array: NDArray[Any], spacing: Sequence[float] | None, direction: ArrayLike | None, affine: ArrayLike | None
) -> Scan:
    if array.ndim != 3:
        raise FormatError(
            f"the array has {array.ndim} axes, expected 3: array[None] makes a volume of a slice, array[..., 0] takes "
            "one of several volumes"
        )
    check_voxel_count(_ARRAY, array.shape)
    values = native_values(_ARRAY, array)
    if affine is not None:
        if spacing is not None or direction is not None:
            raise TypeError("the affine holds spacing and directions: give it alone, or the other two")
        return with_known_grid(_in_image_order(values, _matrix(affine, 4, "affine")))
    steps = np.ones(3) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if steps.shape != (3,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise FormatError(f"the spacing is {spacing}, expected three distances in mm along (z, y, x)")
    lps = np.eye(4)
    lps[:3, :3] = (np.eye(3)[:, ::-1] if direction is None else _matrix(direction, 3, "direction")) * steps
    geometry = _geometry(array.shape, lps)
    geometry = replace(geometry, in_mm=spacing is not None, has_directions=direction is not None)
    if geometry.in_mm and not is_possible_slice(geometry):
        raise FormatError(
            f"the spacing {tuple(steps.tolist())} makes no chest of an array of {' x '.join(map(str, array.shape))}: "
            "give it in mm, in the order of the axes (z, y, x)"
        )
    missing = ((spacing, _NO_SPACING), (direction, _NO_DIRECTION))
    return Scan(values, geometry, notes=tuple(note for given, note in missing if given is None))


def _matrix(given: ArrayLike, size: int, name: str) -> NDArray[np.float64]:
    matrix = np.asarray(given, dtype=np.float64)
    if matrix.shape != (size, size):
        raise FormatError(f"the {name} has the shape {matrix.shape}, expected ({size}, {size})")
    return matrix


def _geometry(shape: tuple[int, ...], affine_lps: NDArray[np.float64]) -> Geometry:
    try:
        geometry = Geometry((shape[0], shape[1], shape[2]), affine_lps)
    except ValueError as error:
        raise FormatError(f"{_ARRAY} has no usable grid: {error}") from None
    check_slice_size(_ARRAY, geometry)
    return geometry


def _in_image_order(values: NDArray[Any], affine_ras: NDArray[np.float64]) -> ArrayScan:
    """Return the scan of an array with the axes of a NIfTI image."""
    try:
        geometry = Geometry.from_ras(values.shape, affine_ras)
    except ValueError as error:
        raise FormatError(f"{_ARRAY} has no usable grid: {error}") from None
    check_slice_size(_ARRAY, geometry)
    return ArrayScan(values.T, geometry)


def _of_nibabel(image: Any) -> Scan:
    values = np.asanyarray(image.dataobj)
    if values.ndim > 3 and values.size == np.prod(values.shape[:3]):
        values = values.reshape(values.shape[:3])
    if values.ndim != 3:
        raise FormatError(
            f"{_IMAGE} has the shape {values.shape}, expected one volume: take one, e.g. image.slicer[..., 0]"
        )
    check_voxel_count(_IMAGE, values.shape)
    values = native_values(_IMAGE, values)
    if not isinstance(image.header, Nifti1Header):
        return with_known_grid(_in_image_order(values, np.asarray(image.affine, dtype=np.float64)))
    geometry, notes = grid_of_header(_IMAGE, image.header, (values.shape[0], values.shape[1], values.shape[2]))
    return with_known_grid(ArrayScan(values.T, geometry, notes=notes))


def _of_simpleitk(image: Any) -> Scan:
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise FormatError(
            f"{_IMAGE} has {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} numbers a voxel, "
            "expected one volume of grey values"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()  # columns x, y, z
    affine[:3, 3] = image.GetOrigin()
    values = native_values(_IMAGE, SimpleITK.GetArrayFromImage(image))
    check_voxel_count(_IMAGE, values.shape)
    return with_known_grid(Scan(values, _geometry(values.shape, affine[:, [2, 1, 0, 3]])))


def _of_items(items: list[Any], options: DicomOptions) -> Scan:
    """Read a list of paths, or of pydicom data sets."""
    if items and all(isinstance(item, Dataset) for item in items):
        openers = [_opener(item) for item in items]
        return replace(read_dicom(Path(_DATA_SETS), options, openers), source=None)
    if not items or not all(isinstance(item, str | os.PathLike) for item in items):
        kinds = ", ".join(sorted({type(item).__name__ for item in items})) or "nothing"
        raise TypeError(f"the list holds {kinds}, expected paths or pydicom data sets; numpy.stack joins arrays")
    paths = [Path(item) for item in items]
    folder = paths[0].parent
    if file_kind(paths[0]) in _PICTURES:
        return read_image_slices(paths, folder)
    for path in paths:
        file_kind(path)  # raises the FormatError of a path that cannot be read
    return read_dicom(folder, options, [file_opener(path) for path in paths])


def _opener(data: Dataset) -> ByteOpener:
    """Return a function that opens a data set as if it were a file."""

    def opened() -> io.BytesIO:
        whole, meta = copy.copy(data), FileMetaDataset(getattr(data, "file_meta", Dataset()))
        if "TransferSyntaxUID" not in meta:
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
        whole.file_meta, whole.preamble = meta, bytes(128)
        stream = io.BytesIO()
        dcmwrite(stream, whole)
        stream.seek(0)
        return stream

    return opened
