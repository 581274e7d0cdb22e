"""Where the voxels are: an array grid in LPS millimetres.

One convention everywhere inside: arrays are indexed (z, y, x); positions are (L, P, S) millimetres, as in DICOM and
ITK: +L towards the patient's left, +P towards the back, +S towards the head. NIfTI is (x, y, z) and RAS: `from_ras`
and `affine_ras` are the only bridge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from groundglass.scan.packed_mask import MaskSlices

# An affine column order (z, y, x) <-> (x, y, z), and a sign change of the first two axes: LPS <-> RAS.
_REVERSE = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SLICES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in space.

    Attributes:
        shape: Voxels along (z, y, x).
        affine_lps: (4, 4); maps a voxel index (z, y, x, 1) to its centre's (L, P, S, 1), in mm where `in_mm`.
        in_mm: False where the source states no spacing (a picture): lengths are then in pixels, volumes unknown.
    """

    shape: tuple[int, int, int]
    affine_lps: NDArray[np.float64]
    in_mm: bool = True

    def __post_init__(self) -> None:
        affine = np.array(self.affine_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"an affine is a finite 4x4 matrix, not {affine.tolist()}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
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
        """From a NIfTI grid: array indexed (x, y, z), affine to RAS mm."""
        x, y, z = shape_xyz
        return cls((z, y, x), _LPS_RAS @ np.asarray(affine_ras, dtype=np.float64) @ _REVERSE)

    @classmethod
    def pixels(cls, shape: tuple[int, int, int]) -> Geometry:
        """A picture's grid: upright axial slices of 1 x 1 pixels, spacing unknown."""
        return cls(shape, _REVERSE, in_mm=False)

    @property
    def affine_ras(self) -> NDArray[np.float64]:
        """(4, 4); maps (x, y, z, 1) to (R, A, S, 1): what a NIfTI header holds."""
        return _LPS_RAS @ self.affine_lps @ _REVERSE

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x), in mm where `in_mm`."""
        dz, dy, dx = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(dz), float(dy), float(dx)

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are off their right angles by more than some 0.06 degrees, as under a gantry tilt."""
        axes = self.affine_lps[:3, :3] / np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3)

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel in millilitres, or None where the spacing is unknown."""
        return float(abs(np.linalg.det(self.affine_lps[:3, :3]))) / 1000.0 if self.in_mm else None

    def position(self, index_zyx: NDArray[np.float64] | tuple[float, float, float]) -> NDArray[np.float64]:
        """(..., 3) voxel indices (z, y, x) -> (..., 3) positions (L, P, S)."""
        index = np.asarray(index_zyx, dtype=np.float64)
        return index @ self.affine_lps[:3, :3].T + self.affine_lps[:3, 3]

    def matches(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same shape and every corner lies within `tolerance_mm`."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        return self.shape == other.shape and bool(
            np.abs(self.position(corners) - other.position(corners)).max() <= tolerance_mm
        )


@dataclass(frozen=True, eq=False)
class AxialView:
    """How to turn a grid, by swaps and flips alone, into upright axial slices, and back.

    In the view axis 0 runs from feet to head, axis 1 from front to back, axis 2 from the patient's right to left:
    a slice shown with row 0 on top is in the radiological convention. An oblique grid takes the nearest axes.
    """

    source: Geometry

    @cached_property
    def geometry(self) -> Geometry:
        """The grid of the view: the same voxels at the same places, in another order."""
        to_source = inv_ornt_aff(self._steps, self.source.shape)
        steps = self._steps[:, 0].astype(int)
        shape = tuple(int(n) for n in np.array(self.source.shape)[np.argsort(steps)])
        return Geometry((shape[0], shape[1], shape[2]), self.source.affine_lps @ to_source, self.source.in_mm)

    @cached_property
    def _steps(self) -> NDArray[np.float64]:
        # nibabel names directions in RAS+; seen from LPS, "R" is the patient's left and "A" the back.
        steps = ornt_transform(io_orientation(self.source.affine_lps), axcodes2ornt(("S", "A", "R")))
        return np.asarray(steps, dtype=np.float64)

    @cached_property
    def slice_numbers(self) -> NDArray[np.int64]:
        """(z,) for each slice of the view, its number along the source's own axis."""
        axis = int(np.flatnonzero(self._steps[:, 0] == 0)[0])
        numbers = np.arange(self.source.shape[axis])
        return numbers[:: int(self._steps[axis, 1])]

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """(z, y, x) of the source -> a view of it as upright axial slices."""
        return np.asarray(apply_orientation(array, self._steps))

    def restore(self, array: NDArray[Any]) -> NDArray[Any]:
        """Upright axial slices -> the source's own (z, y, x)."""
        back = ornt_transform(axcodes2ornt(("S", "A", "R")), io_orientation(self.source.affine_lps))
        return np.asarray(apply_orientation(array, back))

    def restored_slices(self, slices: MaskSlices) -> Iterator[NDArray[Any]]:
        """Upright axial slices -> the source's own slices (y, x) along its z, never more than some at once."""
        axis, way = self._steps[0].astype(int)
        count = self.source.shape[0]
        for start in range(0, count, SLICES_AT_ONCE):
            stop = min(count, start + SLICES_AT_ONCE)
            part = [slice(0, n) for n in slices.shape]
            part[axis] = slice(start, stop) if way > 0 else slice(count - stop, count - start)
            z, rows, columns = part
            yield from self.restore(np.stack([slices[place, rows, columns] for place in range(z.start, z.stop)]))
