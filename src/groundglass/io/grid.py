"""Grids that were never set, or whose spacing cannot be that of a chest: volumes are unknown then, never wrong.

Programs that save an array without a grid write voxels of 1 x 1 x 1 mm from the position (0, 0, 0).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.scan import Scan

# Width and height of a slice in mm. Scanners reconstruct up to about 850 mm; the chest of a newborn is 100 mm wide.
SMALLEST_SLICE_MM, LARGEST_SLICE_MM = 80.0, 1500.0
WHOLE_SLICE_PX = 256  # a slice of fewer pixels may be a cut-out
SMALLEST_CUT_MM = 10.0  # of such a slice
LEAST_DISTANCE_MM = 0.05  # of voxels; those of the finest scanners are 0.1 mm wide and 0.2 mm thick
NEVER_SET = (
    "the grid of the file was never set (voxels of 1 x 1 x 1 mm from the position 0, 0, 0): volumes and the patient's "
    "sides are unknown; set spacing and directions, and save it again"
)
NO_DIRECTIONS = "the file states no directions of the patient: which side is the patient's right one is unknown"
NO_SPACING = "the file states no spacing: volumes are unknown; set the spacing and save it again"
NO_THICKNESS = "the slice states no thickness: 1 mm is assumed, and volumes with it"
_ROUNDING = 1e-3  # mm; programs that save float32 or text round a grid
SHORT = 0.6  # an axis that is shorter than this share of both others is the one along the slices
# From voxel indices to (L, P, S) for an array that was saved as (z, y, x) where (x, y, z) was expected.
_SLICES_FIRST = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)


def with_known_grid(scan: Scan, states_spacing: bool = True, states_thickness: bool = True) -> Scan:
    """Return a volume whose grid and notes say what is not known of it: spacing and directions, or one of them.

    Args:
        scan: The volume; its grid says whether its file states directions.
        states_spacing: Whether its file states a spacing.
        states_thickness: False for a slice of two axes, whose thickness was taken as 1 mm.
    """
    geometry = scan.geometry
    if _was_never_set(geometry):
        return replace(scan, geometry=_unset(geometry), notes=(*scan.notes, NEVER_SET))
    if not geometry.has_directions:
        scan = replace(scan, notes=(*scan.notes, NO_DIRECTIONS))
    if not states_spacing:
        return replace(scan, geometry=replace(geometry, in_mm=False), notes=(*scan.notes, NO_SPACING))
    if is_possible_slice(geometry):
        return scan if states_thickness else replace(scan, notes=(*scan.notes, NO_THICKNESS))
    spacing = " x ".join(f"{mm:.3g}" for mm in geometry.spacing)
    note = (
        f"voxels of {spacing} mm (z, y, x) make no chest of these slices: spacing and volumes are unknown; "
        "set the spacing and save it again"
    )
    return replace(scan, geometry=replace(geometry, in_mm=False), notes=(*scan.notes, note))


def is_possible_slice(geometry: Geometry) -> bool:
    """Return whether axial slices of a grid have a size, and its voxels distances, that those of a CT can have."""
    view = AxialView(geometry).geometry
    width_px = max(view.shape[1:])
    width_mm = max(n * mm for n, mm in zip(view.shape[1:], view.spacing[1:], strict=True))
    smallest_mm = SMALLEST_CUT_MM if width_px < WHOLE_SLICE_PX else SMALLEST_SLICE_MM
    are_apart = all(mm >= LEAST_DISTANCE_MM for n, mm in zip(view.shape, view.spacing, strict=True) if n > 1)
    return are_apart and smallest_mm <= width_mm <= LARGEST_SLICE_MM


def with_unit(geometry: Geometry, millimetres: ArrayLike) -> tuple[Geometry, tuple[str, ...]]:
    """Return a grid whose lengths are converted to millimetres, and what was assumed.

    A unit is not believed where only millimetres make a chest.

    Args:
        geometry: The grid in the units that its header states.
        millimetres: Millimetres in a unit, or (3,) in those along L, P and S.
    """
    affine = geometry.affine_lps.copy()
    with np.errstate(over="ignore", invalid="ignore"):  # infinite lengths make no chest
        affine[:3] *= np.broadcast_to(millimetres, 3)[:, None]
    if not np.isfinite(affine).all():
        return geometry, ()
    converted = replace(geometry, affine_lps=affine)
    if is_possible_slice(converted) or not is_possible_slice(geometry):
        return converted, ()
    return geometry, ("the unit of lengths in the header makes no chest: they are taken as millimetres",)


def _was_never_set(geometry: Geometry) -> bool:
    """Return whether voxels are 1 mm along the axes of the scanner, and one at a corner lies at (0, 0, 0).

    It is another corner than the first where a program turned the axes round. Without directions, the position is not
    stated, and 1 mm is the spacing of a header that was left as it is.
    """
    steps = np.abs(geometry.affine_lps[:3, :3])
    is_unit = bool(np.isclose(np.sort(steps, axis=None), (0, 0, 0, 0, 0, 0, 1, 1, 1), atol=_ROUNDING).all())
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape])).reshape(3, -1).T
    from_zero = np.abs(geometry.position(corners)).max(axis=1)
    return is_unit and (not geometry.has_directions or bool(from_zero.min() <= _ROUNDING))


def _unset(geometry: Geometry) -> Geometry:
    """Return a grid without spacing and directions.

    The slices lie along the first axis of the file instead of its last one where that axis is far shorter than both
    others, or where the others are of equal length.
    """
    depth, height, width = geometry.shape
    has_slices_first = width < SHORT * min(depth, height) or depth == height != width
    affine = _SLICES_FIRST if has_slices_first else geometry.affine_lps
    return replace(geometry, affine_lps=affine, in_mm=False, has_directions=False)
