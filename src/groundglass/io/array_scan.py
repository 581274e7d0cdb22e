"""Scans of arrays: their numbers, their axes, and the grid that is given beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundglass.errors import FormatError
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.grid import SHORT, is_possible_slice, with_known_grid
from groundglass.io.limits import check_slice_size, check_voxel_count, format_size, native_values
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.scan import Scan

ARRAY = "the array"
_NO_SPACING = "the array came without spacing: volumes are unknown; give spacing, or affine"
_NO_DIRECTION = (
    "the array came without directions: which side is the patient's right one is unknown; give direction, or affine"
)
_WRONG_AXES = {
    1: "a scan has the axes (z, y, x)",
    2: "array[None] makes a volume of a slice",
    4: "array[0] or array[..., 0] takes one of several volumes",
}
_SAME, _DIFFERENT = 1.001, 1.05  # ratios of distances that are equal but for rounding, and that surely are not


@dataclass(frozen=True, eq=False, repr=False)
class ArrayScan(Scan):
    """A scan whose array came with the axes of a NIfTI image; `values` is the same array with its axes reversed."""


def is_array(source: object) -> bool:
    """Return whether NumPy can make an array of a source: an array, a tensor, ... but no image and no class."""
    return hasattr(type(source), "__array__") and hasattr(source, "shape") and not hasattr(source, "dataobj")


def scan_of_array(
    source: Any,
    spacing: Sequence[float] | None = None,
    direction: ArrayLike | None = None,
    affine: ArrayLike | None = None,
) -> Scan:
    """Make a scan of an array: see `as_scan`. An array that states an `affine`, as MONAI's do, needs no other.

    Raises:
        FormatError: The array is no volume of numbers, or its grid does not fit a chest.
        TypeError: NumPy cannot make an array of the source, or the grid is given twice.
    """
    array = _numpy_array(source)
    if array.ndim != 3:
        advice = _WRONG_AXES[min(max(array.ndim, 1), 4)]
        raise FormatError(f"{ARRAY} has {array.ndim} ax{'is' if array.ndim == 1 else 'es'}, expected 3: {advice}")
    check_voxel_count(ARRAY, array.shape)
    values = native_values(ARRAY, array)
    if affine is not None and (spacing is not None or direction is not None):
        raise TypeError("the affine holds spacing and directions: give it alone, or the other two")
    if spacing is None and direction is None and affine is None:
        affine = getattr(source, "affine", None)
    if affine is None:
        return fill_empty_voxels(ARRAY, _on_grid(values, spacing, direction))
    scan: Scan = in_image_order(values, _numbers(affine, (4, 4), "affine", "(4, 4)"))
    scan = fill_empty_voxels(ARRAY, with_known_grid(scan))
    if scan.geometry.has_directions and _has_slices_last(AxialView(scan.geometry).geometry.shape):
        raise FormatError(
            f"the axes of an array of {format_size(values.shape)} seem not to be those of the affine, usually "
            "(x, y, z): give array.T, or, if they are, nibabel.Nifti1Image(array, affine)"
        )
    return scan


def scan_of_slices(
    slices: Sequence[Any],
    spacing: Sequence[float] | None = None,
    direction: ArrayLike | None = None,
    affine: ArrayLike | None = None,
) -> Scan:
    """Make a scan of arrays (y, x), one for each slice in the order of z: see `as_scan`.

    Raises:
        FormatError: The arrays are no slices of one volume, or its grid does not fit a chest.
        TypeError: An affine is given, which is that of one array.
    """
    if affine is not None:
        raise TypeError("an affine is that of one array: give spacing and direction for a list of slices")
    arrays = [_numpy_array(each) for each in slices]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        named = ", ".join(map(format_size, shapes[:3]))
        raise FormatError(f"the list holds arrays of {named}, expected slices (y, x) of one size: give one volume")
    return scan_of_array(np.stack(arrays), spacing, direction)


def in_image_order(values: NDArray[Any], affine_ras: NDArray[np.float64]) -> ArrayScan:
    """Return the scan of an array with the axes of a NIfTI image.

    Raises:
        FormatError: The affine is none, or the slices are too small.
    """
    try:
        geometry = Geometry.from_ras(values.shape, affine_ras)
    except ValueError as error:
        raise FormatError(f"{ARRAY} has no usable grid: {error}") from None
    check_slice_size(ARRAY, geometry)
    return ArrayScan(values.T, geometry)


def checked_geometry(shape: tuple[int, ...], affine_lps: NDArray[np.float64]) -> Geometry:
    """Return the grid of an array (z, y, x).

    Raises:
        FormatError: The affine is none, or the slices are too small.
    """
    try:
        geometry = Geometry((shape[0], shape[1], shape[2]), affine_lps)
    except ValueError as error:
        raise FormatError(f"{ARRAY} has no usable grid: {error}") from None
    check_slice_size(ARRAY, geometry)
    return geometry


def _numpy_array(source: Any) -> NDArray[Any]:
    if np.ma.is_masked(source):
        raise FormatError(f"{ARRAY} has masked voxels: array.filled(-1024) gives them the HU of air")
    try:
        return np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient, on a GPU, in bfloat16
        raise TypeError(
            f"NumPy makes no array of the {type(source).__name__} ({error}): give an array, such as "
            "tensor.detach().cpu().float().numpy()"
        ) from None


def _on_grid(values: NDArray[Any], spacing: Sequence[float] | None, direction: ArrayLike | None) -> Scan:
    """Return the scan of an array (z, y, x)."""
    steps, columns = np.ones(3), np.eye(3)[:, ::-1]
    if spacing is not None:
        expected = "three distances in mm along (z, y, x)"
        steps = _numbers(spacing, (3,), "spacing", expected)
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise FormatError(f"the spacing is {spacing}, expected {expected}")
    if direction is None:
        _check_order(values.shape, steps)
    else:
        columns = _directions(direction)
    affine_lps = np.eye(4)
    affine_lps[:3, :3] = columns * steps
    geometry = checked_geometry(values.shape, affine_lps)
    geometry = replace(geometry, in_mm=spacing is not None, has_directions=direction is not None)
    if geometry.in_mm and not is_possible_slice(geometry):
        raise FormatError(
            f"the spacing {tuple(steps.tolist())} makes no chest of an array of {format_size(values.shape)}: "
            "give it in mm, in the order of the axes (z, y, x)"
        )
    missing = ((spacing, _NO_SPACING), (direction, _NO_DIRECTION))
    return Scan(values, geometry, notes=tuple(note for given, note in missing if given is None))


def _check_order(shape: tuple[int, ...], steps: NDArray[np.float64]) -> None:
    """Refuse axes, or a spacing, that seem to be in the order (x, y, z): lungs might be found across all the same."""
    if _has_slices_last(shape):
        raise FormatError(
            f"the axes of an array of {format_size(shape)} seem to be (x, y, z), expected (z, y, x): give array.T (and "
            "spacing[::-1]), or the affine too; or, if they are not, direction"
        )
    low, high = sorted((steps[1], steps[2]))
    if max(steps[:2]) <= min(steps[:2]) * _SAME and high > low * _DIFFERENT:
        raise FormatError(
            f"the distances of the spacing {tuple(steps.tolist())} seem to be along (x, y, z), expected (z, y, x): "
            "give spacing[::-1]; or, if they are not, direction"
        )


def _has_slices_last(shape: tuple[int, ...]) -> bool:
    """Return whether the last of the axes (z, y, x) looks like that along the slices, which are square and wide."""
    depth, height, width = shape
    return depth == height != width or width < SHORT * min(depth, height)


def _directions(given: ArrayLike) -> NDArray[np.float64]:
    meaning = "(3, 3): a column for each axis (z, y, x); give a SimpleITK or nibabel image itself"
    columns = _numbers(given, (3, 3), "direction", meaning)
    with np.errstate(over="ignore"):  # infinite lengths are refused
        lengths = np.linalg.norm(columns, axis=0)
    if not np.allclose(lengths, 1, atol=0.01):
        raise FormatError(
            f"the columns of the direction have the lengths {np.round(lengths, 3).tolist()}, expected 1: distances "
            "are given by spacing"
        )
    return columns


def _numbers(given: ArrayLike, shape: tuple[int, ...], name: str, expected: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise FormatError(f"the {name} is {given!r}, expected {expected}") from None
    if numbers.shape != shape:
        found = f"is {given!r}" if numbers.ndim < 2 else f"has the shape {numbers.shape}"
        raise FormatError(f"the {name} {found}, expected {expected}")
    return numbers
