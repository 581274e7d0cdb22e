"""Scans from what a program holds: arrays, nibabel and SimpleITK images, pydicom data sets, lists of files.

nibabel and pydicom are imported where an object of theirs is at hand, so that other sources do not wait for them.
"""

from __future__ import annotations

import copy
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from groundglass.errors import FormatError
from groundglass.io.array_scan import (
    ArrayScan,
    checked_geometry,
    in_image_order,
    is_array,
    scan_of_array,
    scan_of_slices,
)
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import with_known_grid
from groundglass.io.image_slices import read_image_slices
from groundglass.io.limits import check_voxel_count, native_values, shown
from groundglass.io.nifti import grid_of_header
from groundglass.io.reader import file_kind, read_scan
from groundglass.plain_text import printable
from groundglass.scan.scan import Scan

if TYPE_CHECKING:
    from pydicom import Dataset

    from groundglass.io.dicom_header import ByteOpener

# A path, a Scan, an array, a nibabel or SimpleITK image, a pydicom Dataset, or a list of paths, data sets or slices.
# Spelt out as types it would need every library that makes such images.
ScanSource: TypeAlias = Any
_IMAGE, _DATA_SETS = "the image", "the data sets"
_PICTURES = ("PNG", "JPEG")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_EXPECTED = "a path, an array, a nibabel or SimpleITK image, pydicom data sets, or a list of paths or slices"
_ADVICE: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (Mapping, "; give what it holds"),
    ((bytes, bytearray, memoryview, io.IOBase), "; give the path of the file"),
    (Image.Image, "; give its path, or numpy.asarray(image)[None]"),
)
_PATHS: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda text: re.match(r"\w{2,}:/", text), "nothing is read from a network; download it, and give its path"),
    (lambda text: text.startswith("~"), "~ has no meaning in Python; give Path(...).expanduser()"),
    (lambda text: any(sign in text for sign in "*?["), "it is a pattern; give sorted(glob.glob(...)), or it to batch"),
)


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
            - an array, or a tensor on the CPU: with `affine`, or one of its own as MONAI's have, its axes are those of
              a NIfTI image, usually (x, y, z); otherwise they are (z, y, x), as `SimpleITK.GetArrayFromImage` gives
              them. Its numbers are HU, HU shifted by 1000 or 1024, or grey levels of a window in 8 bits or from 0 to 1;
            - a list of arrays (y, x): the slices of one volume, in the order of z.
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
    source = _collected(source)
    if is_array(source):
        return scan_of_array(source, spacing, direction, affine)
    if isinstance(source, list) and is_array(source[0]):
        return scan_of_slices(source, spacing, direction, affine)
    if spacing is not None or direction is not None or affine is not None:
        raise TypeError(f"spacing, direction and affine are those of an array: {_named(source)} states its own")
    if isinstance(source, Scan):
        return source
    if _is_path(source):
        return read_scan(_checked_path(source), dicom=dicom)
    if _is_nibabel(source):
        return _of_nibabel(source)
    if _is_simpleitk(source):
        return _of_simpleitk(source)
    return _of_items([source] if _is_data_set(source) else source, dicom or DicomOptions())


def _is_nibabel(source: object) -> bool:
    return hasattr(source, "dataobj") and hasattr(source, "affine")


def _is_simpleitk(source: object) -> bool:
    return hasattr(source, "GetDirection") and hasattr(source, "GetSpacing")


def _collected(source: Any) -> Any:
    """Return a source of a known type as it is, and an iterable of items as a list.

    Raises:
        TypeError: The source is neither.
    """
    is_known = isinstance(source, Scan) or _is_path(source) or _is_data_set(source)
    if is_known or _is_nibabel(source) or _is_simpleitk(source) or is_array(source):
        return source
    advice = next((text for kind, text in _ADVICE if isinstance(source, kind)), "")
    if advice or not isinstance(source, Iterable):
        raise TypeError(f"{_named(source)} is no scan: expected {_EXPECTED}{advice}")
    items = list(source)
    if not any(items and all(map(is_kind, items)) for is_kind in (_is_path, _is_data_set, is_array)):
        kinds = ", ".join(sorted({type(item).__name__ for item in items})) or "nothing"
        raise TypeError(f"the list holds {kinds}, expected paths, pydicom data sets, or slices as arrays")
    return items


def _is_path(source: object) -> bool:
    return isinstance(source, str | os.PathLike)


def _is_data_set(source: object) -> bool:
    pydicom = sys.modules.get("pydicom")  # whoever has a data set has imported it
    return pydicom is not None and isinstance(source, pydicom.Dataset)


def _named(source: object) -> str:
    name = type(source).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _checked_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a path; refuse what a shell or a browser would understand, and a path does not."""
    text = os.fspath(path)
    if not text:
        raise FormatError("the path is empty: give that of a file or folder")
    if not os.path.lexists(text):
        advice = next((advice for is_meant, advice in _PATHS if is_meant(text)), None)
        if advice:
            raise FormatError(f"{printable(text)} cannot be read: {advice}")
    return path


def _of_nibabel(image: Any) -> Scan:
    from nibabel.nifti1 import Nifti1Header

    values = np.asanyarray(image.dataobj)
    if values.ndim > 3 and values.size == np.prod(values.shape[:3]):
        values = values.reshape(values.shape[:3])
    if values.ndim != 3:
        mend = "take one, e.g. image.slicer[..., 0]"
        if values.ndim == 2:
            mend = "nibabel.Nifti1Image(numpy.asarray(image.dataobj)[..., None], image.affine) makes one of a slice"
        raise FormatError(f"{_IMAGE} has the shape {values.shape}, expected one volume: {mend}")
    check_voxel_count(_IMAGE, values.shape)
    values = native_values(_IMAGE, values)
    if not isinstance(image.header, Nifti1Header) or _has_own_affine(image):
        scan: Scan = in_image_order(values, np.asarray(image.affine, dtype=np.float64))
        return fill_empty_voxels(_IMAGE, with_known_grid(scan))
    geometry, notes = grid_of_header(_IMAGE, image.header, (values.shape[0], values.shape[1], values.shape[2]))
    return fill_empty_voxels(_IMAGE, with_known_grid(ArrayScan(values.T, geometry, notes=notes)))


def _has_own_affine(image: Any) -> bool:
    """Return whether the affine of an image was changed after its header was made, which nibabel does when it saves."""
    return image.affine is not None and not np.allclose(image.affine, image.header.get_best_affine(), equal_nan=True)


def _of_simpleitk(image: Any) -> Scan:
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise FormatError(
            f"{_IMAGE} has {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} numbers a voxel, "
            "expected one volume of grey values: SimpleITK.JoinSeries(image) makes a volume of a slice, "
            "image[:, :, :, 0] takes one of several"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()  # columns x, y, z
    affine[:3, 3] = image.GetOrigin()
    values = native_values(_IMAGE, SimpleITK.GetArrayFromImage(image))
    check_voxel_count(_IMAGE, values.shape)
    scan = Scan(values, checked_geometry(values.shape, affine[:, [2, 1, 0, 3]]))
    return fill_empty_voxels(_IMAGE, with_known_grid(scan))


def _of_items(items: list[Any], options: DicomOptions) -> Scan:
    """Read a list of paths, or of pydicom data sets."""
    from groundglass.io.dicom import read_dicom
    from groundglass.io.dicom_files import file_opener

    if _is_data_set(items[0]):
        if not any(keyword in item for item in items for keyword in _PIXELS):
            raise FormatError(
                "the data sets hold no pixels: read images, by pydicom.dcmread without stop_before_pixels"
            )
        openers = [_opener(item) for item in items]
        return replace(read_dicom(Path(_DATA_SETS), options, openers), source=None)
    paths = [Path(item) for item in items]
    folder = paths[0].parent
    if file_kind(paths[0]) in _PICTURES:
        return read_image_slices(paths, folder)
    for path in paths:
        if file_kind(path) == "folder":  # raises the FormatError of a path that cannot be read
            raise FormatError(f"{shown(path)} is a folder: give it alone, or list the files in it")
    return read_dicom(folder, options, [file_opener(path) for path in paths])


def _opener(data: Dataset) -> ByteOpener:
    """Return a function that opens a data set as if it were a file."""
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

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
