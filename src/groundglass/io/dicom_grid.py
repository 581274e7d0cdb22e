"""Sort DICOM slices along their normal, and check that they make up an even grid.

What would make volumes wrong is refused: slices that are missing, shifted or unevenly spaced. Smaller deviations become
notes for the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.dicom_header import DicomSlice, number_value, stating_groups, text_value
from groundglass.io.grid import NO_THICKNESS
from groundglass.io.limits import check_slice_size
from groundglass.scan.geometry import Geometry

SAME_POSITION_MM = 0.01  # slices that lie closer together count as repeated
# In parts of the distance between slices. Distances that vary by less than the first are even; up to the second they
# are noted, and no slice may lie farther than that from its place on the even grid.
EVEN, JITTER = 0.01, 0.1
SHIFT_MM = 1.0  # of a slice sideways, against a straight stack
TILT_DEGREES = 0.5
SAME_SPACING = 1e-3  # part by which pixel spacings may differ that count as one
SAME_ORIENTATION = 0.01  # difference of direction cosines up to which slices count as parallel
_RUN = 3  # gaps of one size side by side: from here on a part of the series has another distance, and none is missing
_NOISE = 1e-4  # a part, or a difference of direction cosines: up to this, differences are not worth a word


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Slices in the order of their normal, on an even grid.

    Attributes:
        slices: The slices; repeated ones lie side by side.
        affine_lps: (4, 4) matrix of the grid, from (z, y, x) to (L, P, S) mm.
        notes: Sentences for the user.
        repeated: Indices of the slices that lie at the place of the one before.
    """

    slices: tuple[DicomSlice, ...]
    affine_lps: NDArray[np.float64]
    notes: tuple[str, ...]
    repeated: tuple[int, ...] = ()


def sort_slices(name: str, slices: Sequence[DicomSlice]) -> SliceStack:
    """Sort slices along their normal and check that they make up an even grid.

    Slices at one position stay side by side: whether they are repeated is decided by their pixels.

    Args:
        name: Name of the input, for messages.
        slices: Slices of one orientation and one matrix.

    Raises:
        FormatError: A position is missing, or the slices make up no even grid.
    """
    spacing_mm, spacing_notes = _pixel_spacing(name, slices)
    first = replace(slices[0], spacing_mm=spacing_mm)
    if len(slices) == 1:
        stack = _single_slice(name, first)
        return replace(stack, notes=(*spacing_notes, *stack.notes))
    check_positions(name, slices)
    directions = _unit_directions(name, first)
    normal = np.cross(*directions)
    positions = np.array([dicom_slice.position_mm for dicom_slice in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    is_new = np.concatenate([[True], np.diff(positions @ normal) > SAME_POSITION_MM])
    distinct = positions[is_new]
    in_order = tuple(slices[i] for i in order)
    if len(distinct) == 1:
        return SliceStack(in_order, _single_slice(name, first).affine_lps, (), tuple(range(1, len(slices))))
    step = (distinct[-1] - distinct[0]) / (len(distinct) - 1)
    notes = (
        *spacing_notes,
        *_orientation_notes(slices),
        *_spacing_notes(name, distinct @ normal),
        *_tilt_notes(name, distinct, step, normal),
    )
    repeated = tuple(np.flatnonzero(~is_new).tolist())
    return SliceStack(in_order, _affine_lps(distinct[0], step, directions, first), notes, repeated)


def check_positions(name: str, slices: Sequence[DicomSlice]) -> None:
    """Check that several slices state positions and orientations, and not all the same position.

    Raises:
        FormatError: They do not.
    """
    fix = "export the series again with them, or have the images ordered by number (--by-instance-number)"
    missing = sum(dicom_slice.position_mm is None or dicom_slice.directions is None for dicom_slice in slices)
    if missing:
        raise FormatError(
            f"{missing} of {len(slices)} images in {name} state no position or orientation, so that they have no "
            f"order: {fix}"
        )
    if has_one_position(slices):
        raise FormatError(f"all {len(slices)} images in {name} state the same position, expected one for each: {fix}")


def has_one_position(slices: Sequence[DicomSlice]) -> bool:
    """Return whether several different images all state the same position."""
    images = {(text_value(dicom_slice.header, "SOPInstanceUID"), dicom_slice.frame) for dicom_slice in slices}
    return len(images) > 2 and count_places(slices) == 1


def count_places(slices: Sequence[DicomSlice]) -> int:
    """Count the different places of slices along the normal of the first; 0 if a position is not stated."""
    heights = _heights(slices)
    return 0 if heights is None else 1 + int(np.count_nonzero(np.diff(np.sort(heights)) > SAME_POSITION_MM))


def is_even_stack(slices: Sequence[DicomSlice]) -> bool:
    """Return whether slices form an even grid, with one slice at each place."""
    try:
        sort_slices("", slices)
    except FormatError:
        return False
    return count_places(slices) == len(slices)


def distance_between(slices: Sequence[DicomSlice]) -> float | None:
    """Return the usual distance in mm from one place to the next; None if it is not known."""
    heights = _heights(slices)
    if heights is None:
        return None
    distances = np.diff(np.sort(heights))
    distances = distances[distances > SAME_POSITION_MM]
    return float(np.median(distances)) if len(distances) else None


def is_same_orientation(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    """Return whether two slices are parallel, by their direction cosines; unknown ones equal unknown ones."""
    if one is None or other is None:
        return one is other
    return bool(np.abs(one - other).max() <= SAME_ORIENTATION)


def _heights(slices: Sequence[DicomSlice]) -> NDArray[np.float64] | None:
    """Return the positions of slices along the normal of the first, in mm; None if one is not stated."""
    directions = slices[0].directions
    positions = [dicom_slice.position_mm for dicom_slice in slices if dicom_slice.position_mm is not None]
    if directions is None or len(positions) < len(slices):
        return None
    return np.asarray(np.array(positions) @ np.cross(*directions))


def grid_geometry(name: str, shape: tuple[int, int, int], affine_lps: NDArray[np.float64]) -> Geometry:
    """Build a grid of this shape (z, y, x).

    Raises:
        FormatError: The grid is degenerate, or its axial slices are too small.
    """
    try:
        geometry = Geometry(shape, affine_lps)
        check_slice_size(name, geometry)
        return geometry
    except ValueError as error:
        raise FormatError(f"{name} has no usable grid: {error}; export it again") from None


def _single_slice(name: str, dicom_slice: DicomSlice) -> SliceStack:
    """Return the grid of one slice, with assumptions for what it does not state."""
    notes = []
    measures = stating_groups(dicom_slice.header, "PixelMeasuresSequence", frame=dicom_slice.frame or 0)
    stated = (number_value(data, key) for key in ("SpacingBetweenSlices", "SliceThickness") for data in measures)
    thickness = abs(next(filter(None, stated), 0.0))
    if not thickness:
        thickness = 1.0
        notes.append(NO_THICKNESS)
    if dicom_slice.directions is None or dicom_slice.position_mm is None:
        notes.append("the slice states no position or orientation: an upright axial slice is assumed")
    upright = np.array([[1.0, 0, 0], [0, 1, 0]])
    directions = upright if dicom_slice.directions is None else _unit_directions(name, dicom_slice)
    position = np.zeros(3) if dicom_slice.position_mm is None else dicom_slice.position_mm
    affine_lps = _affine_lps(position, thickness * np.cross(*directions), directions, dicom_slice)
    return SliceStack((dicom_slice,), affine_lps, tuple(notes))


def _pixel_spacing(name: str, slices: Sequence[DicomSlice]) -> tuple[tuple[float, float], list[str]]:
    """Return the pixel spacing of all slices, and notes on slices that differ a little or state none.

    Raises:
        FormatError: The slices state several spacings, or none.
    """
    stated = [dicom_slice.spacing_mm for dicom_slice in slices if dicom_slice.spacing_mm is not None]
    if not stated:
        found = text_value(slices[0].header, "PixelSpacing")
        raise FormatError(
            f"{name} states {f'the pixel spacing {found[:40]}' if found else 'no pixel spacing'}, expected two numbers "
            "above 0, the distance of rows and of columns in mm: export it again"
        )
    values = np.array(stated)
    smallest, largest, usual = values.min(axis=0), values.max(axis=0), np.median(values, axis=0)
    deviation = float(((largest - smallest) / usual).max())
    if deviation > SAME_SPACING:
        several = " and ".join(f"{y:.6g} x {x:.6g}" for y, x in (smallest, largest))
        raise FormatError(f"{name} states several pixel spacings, {several} mm, expected one: give one series alone")
    notes = []
    if len(stated) < len(slices):
        notes.append(
            f"{len(slices) - len(stated)} of {len(slices)} images state no pixel spacing: the others' is taken"
        )
    if deviation > _NOISE:
        notes.append(
            f"the pixel spacing varies by {100 * deviation:.2g} %: {usual[0]:.6g} x {usual[1]:.6g} mm is taken"
        )
    return (stated[0] if deviation == 0 else (float(usual[0]), float(usual[1]))), notes


def _orientation_notes(slices: Sequence[DicomSlice]) -> list[str]:
    """Return a note if orientations vary by more than noise."""
    directions = np.array([dicom_slice.directions for dicom_slice in slices])
    deviation = float(np.abs(directions - directions[0]).max())
    if deviation <= _NOISE:
        return []
    return [f"the orientation varies by up to {np.degrees(deviation):.2g} degrees: that of the first image is taken"]


def _unit_directions(name: str, dicom_slice: DicomSlice) -> NDArray[np.float64]:
    """Return (2, 3) unit vectors along a row and along a column, which are at right angles."""
    assert dicom_slice.directions is not None
    lengths = np.linalg.norm(dicom_slice.directions, axis=1)
    if (np.abs(lengths - 1) > 1e-2).any() or abs(dicom_slice.directions[0] @ dicom_slice.directions[1]) > 1e-2:
        raise FormatError(f"{name} states an orientation whose axes are not at right angles: export it again")
    return np.asarray(dicom_slice.directions / lengths[:, None])


def _affine_lps(
    origin: NDArray[np.float64], step: NDArray[np.float64], directions: NDArray[np.float64], dicom_slice: DicomSlice
) -> NDArray[np.float64]:
    """Return the (4, 4) matrix from (z, y, x, 1) of PS3.3 C.7.6.2.1.1.

    Args:
        origin: (3,) position of the first slice.
        step: (3,) the way from a slice to the next.
        directions: (2, 3) unit vectors along a row and along a column.
        dicom_slice: A slice that states the pixel spacing.
    """
    assert dicom_slice.spacing_mm is not None
    between_rows, between_columns = dicom_slice.spacing_mm
    affine = np.eye(4)
    affine[:3] = np.stack([step, directions[1] * between_rows, directions[0] * between_columns, origin], axis=1)
    return affine


def _spacing_notes(name: str, heights: NDArray[np.float64]) -> list[str]:
    """Check that slices at these heights along the normal, in mm, are evenly spaced and complete."""
    distances = np.diff(heights)
    usual = float(np.median(distances))
    deviation = np.abs(distances - usual) / usual
    gaps = {  # {index of the slice before a gap: number of missing slices}
        i: round(distance / usual) - 1
        for i, distance in enumerate(distances)
        if distance > 1.5 * usual and abs(distance / usual % 1 - 0.5) > 0.4
    }
    found = f"{name} has slices {distances.min():.3g} to {distances.max():.3g} mm apart"
    fix = "give a series of even slices, or resample it, e.g. with dcm2niix"
    if gaps and (np.delete(deviation, list(gaps)) <= JITTER).all():
        if len(set(gaps.values())) == 1 and len(gaps) == max(gaps) - min(gaps) + 1 >= _RUN:
            part = f"slice {min(gaps) + 1} to {max(gaps) + 2} of {len(heights)}"
            raise FormatError(f"{found}, the larger distance from {part}, expected one distance: {fix}")
        missing = sum(gaps.values())
        before = ", ".join(str(i + 1) for i in list(gaps)[:5])
        raise FormatError(
            f"{name} lacks {missing} slice{'s' if missing > 1 else ''} (behind slice {before} of {len(heights)}, "
            f"{usual:.3g} mm apart elsewhere): send the whole series, or the part without the gap"
        )
    if (deviation > JITTER).any():
        raise FormatError(f"{found}, expected one distance: {fix}")
    off_grid = float(np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max())
    if off_grid > JITTER * usual:  # small deviations of one sign add up over many slices
        raise FormatError(f"{found}, which puts some {off_grid:.2g} mm off an even grid: {fix}")
    uneven = (deviation > EVEN).any()
    return [f"slice distances vary by up to {100 * deviation.max():.0f} %: taken as even"] if uneven else []


def _tilt_notes(
    name: str, positions: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]
) -> list[str]:
    """Check that slices at these (n, 3) positions lie on a straight line, which may be tilted against the normal."""
    from_first = positions - positions[0]
    sideways = from_first - np.outer(from_first @ normal, step / (step @ normal))
    worst = float(np.linalg.norm(sideways, axis=1).max())
    if worst > SHIFT_MM:
        raise FormatError(
            f"{name} has slices shifted sideways by up to {worst:.1f} mm, expected a straight stack: "
            "give one series alone"
        )
    cosine = float(step @ normal) / float(np.linalg.norm(step))
    angle = float(np.degrees(np.arccos(min(1.0, cosine))))
    if angle <= TILT_DEGREES:
        return []
    return [f"the gantry was tilted by {angle:.1f} degrees: the grid is sheared, and kept so"]
