"""What is said about the lungs of a scan: where they are cut, and which of them is which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import MaskSlices, voxels_per_slice

REACHED = 0.02  # share of a side of the picture: with more of it beside lung, the lungs reach that side
CUT_SLICE = 0.25  # share of the largest slice of lung: with more of it, the first or last slice cuts the lungs
NOT_WHOLE = "does not cover them whole, and volumes are of the covered part"
MISSING_LUNG = 0.02  # share of both lungs: with less of it, a lung is missing


def lung_warnings(lungs: LungField, geometry: Geometry, is_volume: bool) -> tuple[str, ...]:
    """Return sentences for the user.

    Args:
        lungs: The lungs of a scan.
        geometry: The grid of its upright axial slices.
        is_volume: Whether these form one body.
    """
    warnings = _coverage_warnings(lungs, geometry.has_directions) if is_volume else []
    if not lungs.sides_known:
        warnings.append("which lung is the right one and which the left one cannot be told")
    elif geometry.has_directions:
        assumption = "a picture states no sides: right and left follow the radiological convention by assumption"
        warnings += [*(() if is_volume else (assumption,)), *_side_warnings(lungs)]
    return tuple(warnings)


def _coverage_warnings(lungs: LungField, has_directions: bool) -> list[str]:
    """Say where the lungs of a volume reach the end of the scan, or a side of its slices; which one, if it is known."""
    areas = voxels_per_slice(lungs.mask)
    ends = cut_ends(areas)
    front, back, right, left = lungs.outline[0], lungs.outline[-1], lungs.outline[:, 0], lungs.outline[:, -1]
    sides = {"front": front, "back": back, "right": right, "left": left}
    reached = [name for name, side in sides.items() if side.mean() > REACHED]
    warnings = []
    if ends and len(areas) > 1:
        slices = f"the {' and the '.join(ends)} slice" if has_directions else "the first or last slice"
        warnings.append(f"the lungs reach {slices}: the scan {NOT_WHOLE}")
    if reached:
        side = f"the {' and the '.join(reached)} side" if has_directions else "a side"
        warnings.append(f"the lungs reach {side} of the slices: the field of view {NOT_WHOLE}")
    return warnings


def cut_ends(areas: NDArray[np.int64]) -> list[str]:
    """Return which of the lowest and the highest slice cut the lungs, by the (z,) pixels of lung in each slice."""
    ends = (("lowest", areas[0]), ("highest", areas[-1]))
    return [name for name, area in ends if area > CUT_SLICE * areas.max()]


def missing_sides(right: MaskSlices, left: MaskSlices) -> list[str]:
    """Return which lung has hardly any part in what was found."""
    voxels = {"right": voxels_per_slice(right).sum(), "left": voxels_per_slice(left).sum()}
    return [name for name, n in voxels.items() if n < MISSING_LUNG * sum(voxels.values())]


def _side_warnings(lungs: LungField) -> list[str]:
    return [f"no {name} lung was found" for name in missing_sides(lungs.right, lungs.left)]
