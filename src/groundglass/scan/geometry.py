"""Voxel grids and their position in the patient.

The package has one convention: arrays are indexed (z, y, x); positions are (L, P, S) millimetres, as in DICOM and ITK:
+L towards the patient's left, +P towards the back, +S towards the head. NIfTI has (x, y, z) and RAS; only `from_ras`
and `affine_ras` convert between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.packed_mask import MaskSlices

# `_REVERSE` swaps the columns of an affine, (z, y, x) <-> (x, y, z); `LPS_RAS` the signs of L and P, LPS <-> RAS.
_REVERSE = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UPRIGHT = (2, 1, 0)  # the axes of (L, P, S) along which the axes of upright axial slices run
SLICES_AT_ONCE = 16  # slices that `source_slices` holds in memory


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid and its position in the patient.

    Attributes:
        shape: Voxels along (z, y, x).
        affine_lps: (4, 4) matrix that maps a voxel index (z, y, x, 1) to the voxel's centre (L, P, S, 1), in mm if
            `in_mm`.
        in_mm: False if the source states no spacing (PNG, JPEG, a grid that was never set): lengths are then in pixels,
            and volumes unknown.
        has_directions: False if the source does not state how its axes lie in the body: the patient's sides and
            positions are then unknown. Pictures have the directions of the radiological convention.
    """

    shape: tuple[int, int, int]
    affine_lps: NDArray[np.float64]
    in_mm: bool = True
    has_directions: bool = True

    def __post_init__(self) -> None:
        affine = np.array(self.affine_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"an affine is a finite 4x4 matrix, not {affine.tolist()}")
        with np.errstate(all="ignore"):  # of numbers that only damage makes
            box = np.prod(np.linalg.norm(affine[:3, :3], axis=0))  # 0 also where a square is too small for a number
            spans_space = abs(np.linalg.det(affine[:3, :3])) > 1e-9 * box > 0
        if not spans_space:
            raise ValueError(f"the affine maps the grid onto a plane or a line: {affine[:3, :3].tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine_lps", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def __repr__(self) -> str:
        z, y, x = self.shape
        dz, dy, dx = self.spacing
        unit = "mm" if self.in_mm else "px"
        return f"Geometry({z} x {y} x {x} voxels (z, y, x) of {dz:.3g} x {dy:.3g} x {dx:.3g} {unit})"

    @classmethod
    def from_ras(cls, shape_xyz: tuple[int, ...], affine_ras: NDArray[np.float64]) -> Geometry:
        """Convert a NIfTI grid, whose array is indexed (x, y, z) and whose affine leads to RAS mm."""
        x, y, z = shape_xyz
        return cls((z, y, x), LPS_RAS @ np.asarray(affine_ras, dtype=np.float64) @ _REVERSE)

    @classmethod
    def pixels(cls, shape: tuple[int, int, int]) -> Geometry:
        """Return the grid of pictures: upright axial slices of unknown spacing, taken as 1."""
        return cls(shape, _REVERSE, in_mm=False)

    @property
    def affine_ras(self) -> NDArray[np.float64]:
        """The (4, 4) matrix that maps (x, y, z, 1) to (R, A, S, 1), as in a NIfTI header."""
        return LPS_RAS @ self.affine_lps @ _REVERSE

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x), in mm if `in_mm`."""
        dz, dy, dx = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(dz), float(dy), float(dx)

    @property
    def is_sheared(self) -> bool:
        """Whether two axes deviate from a right angle by more than about 0.06 degrees, as with a tilted gantry."""
        axes = self.affine_lps[:3, :3] / np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3)

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel in millilitres; None if the spacing is unknown."""
        return float(abs(np.linalg.det(self.affine_lps[:3, :3]))) / 1000.0 if self.in_mm else None

    def position(self, index_zyx: NDArray[np.float64] | tuple[float, float, float]) -> NDArray[np.float64]:
        """Map (..., 3) voxel indices (z, y, x) to (..., 3) positions (L, P, S)."""
        index = np.asarray(index_zyx, dtype=np.float64)
        return index @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]

    def matches(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Return whether both grids have the same shape and their corners lie within `tolerance_mm` of each other."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return self.shape == other.shape and bool(
            np.abs(self.position(corners) - other.position(corners)).max() <= tolerance_mm
        )


@dataclass(frozen=True, eq=False)
class AxialView:
    """A grid reordered into upright axial slices, by permuting and flipping its axes.

    In the view axis 0 runs from feet to head, axis 1 from front to back, axis 2 from the patient's right to left: a
    slice shown with row 0 on top follows the radiological convention. Axes of an oblique grid count as the nearest
    direction of the body.

    Attributes:
        source: The grid as it is stored.
        transposed: Whether rows and columns are exchanged, as lungs show it of a grid that states no directions.
    """

    source: Geometry
    transposed: bool = False

    @cached_property
    def geometry(self) -> Geometry:
        """Grid of the view: the same voxels at the same positions, in another order."""
        to_source = np.zeros((4, 4))  # from an index of the view to one of the source
        to_source[3, 3] = 1
        for axis, (source_axis, is_reversed) in enumerate(self.axes):
            to_source[source_axis, axis] = -1 if is_reversed else 1
            to_source[source_axis, 3] = self.source.shape[source_axis] - 1 if is_reversed else 0
        z, y, x = (self.source.shape[source_axis] for source_axis, _ in self.axes)
        return replace(self.source, shape=(z, y, x), affine_lps=self.source.affine_lps @ to_source)

    @cached_property
    def axes(self) -> tuple[tuple[int, bool], ...]:
        """For each axis of the view, the axis of the source that lies along it, and whether it runs the other way."""
        steps = self.source.affine_lps[:3, :3]
        left, _, right = np.linalg.svd(steps / np.linalg.norm(steps, axis=0))
        rotation = left @ right  # the nearest one without a shear
        free, along = np.abs(rotation), dict[int, int]()
        for axis in np.argsort(-free.max(axis=0), kind="stable"):  # the clearest first, as nibabel does
            body = int(free[:, axis].argmax())
            along[body] = int(axis)
            free[body] = -1.0  # taken
        z, y, x = ((along[body], bool(rotation[body, along[body]] < 0)) for body in _UPRIGHT)
        return (z, x, y) if self.transposed else (z, y, x)

    @cached_property
    def slice_numbers(self) -> NDArray[np.int64]:
        """(z,) for each slice of the view, its index along the source's axis."""
        axis, is_reversed = self.axes[0]
        numbers = np.arange(self.source.shape[axis])
        return numbers[::-1] if is_reversed else numbers

    def to_axial(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array (z, y, x) of the source as upright axial slices, without a copy."""
        ordered = array.transpose([axis for axis, _ in self.axes])
        return ordered[self._flips]

    def from_axial(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return upright axial slices in the order (z, y, x) of the source, without a copy."""
        back = np.argsort([axis for axis, _ in self.axes])
        return array[self._flips].transpose(back)

    @property
    def _flips(self) -> tuple[slice, ...]:
        """Index that reverses the axes of the view that run the other way in the source."""
        return tuple(slice(None, None, -1 if is_reversed else 1) for _, is_reversed in self.axes)

    def source_slices(self, slices: MaskSlices) -> Iterator[NDArray[Any]]:
        """Yield the slices (y, x) of the source along its z; only `SLICES_AT_ONCE` are held in memory.

        Args:
            slices: Upright axial slices.
        """
        axis = [source_axis for source_axis, _ in self.axes].index(0)
        is_reversed = self.axes[axis][1]
        count = self.source.shape[0]
        for start in range(0, count, SLICES_AT_ONCE):
            stop = min(count, start + SLICES_AT_ONCE)
            part = [slice(0, n) for n in slices.shape]
            part[axis] = slice(count - stop, count - start) if is_reversed else slice(start, stop)
            depth, rows, columns = part
            yield from self.from_axial(np.stack([slices[z, rows, columns] for z in range(depth.start, depth.stop)]))
