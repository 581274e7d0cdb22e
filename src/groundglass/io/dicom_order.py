"""Order DICOM images that state no usable position by their InstanceNumber, where a user asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.io.dicom_grid import has_one_position
from groundglass.io.dicom_header import DicomSlice, number_value, stating_groups

_UPRIGHT = np.array([[1.0, 0, 0], [0, 1, 0]])


def lacks_positions(slices: Sequence[DicomSlice]) -> bool:
    """Return whether several slices have no order, since positions are missing or all the same."""
    if len(slices) < 2:
        return False
    is_missing = any(dicom_slice.position_mm is None or dicom_slice.directions is None for dicom_slice in slices)
    return is_missing or has_one_position(slices)


def place_by_number(name: str, slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], list[str]]:
    """Give slices positions by their InstanceNumber; frames of one instance keep their order.

    Returns:
        The slices with positions, and notes on what was assumed.

    Raises:
        FormatError: The numbers are missing, repeated or incomplete, or no distance between slices is stated.
    """
    numbers = _numbers(name, slices)
    order = np.argsort(numbers)
    in_order = [slices[i] for i in order]
    distance_mm, source = _distance(name, in_order)
    directions = next((s.directions for s in in_order if s.directions is not None), _UPRIGHT)
    step_mm = _towards_feet(np.cross(*directions)) * abs(distance_mm)
    if distance_mm > 0:  # the slice locations rise
        step_mm = -step_mm
    placed = [
        replace(dicom_slice, position_mm=index * step_mm, directions=directions)
        for index, dicom_slice in enumerate(in_order)
    ]
    return placed, [
        f"the images state no usable position: they are ordered by InstanceNumber, {abs(distance_mm):.3g} mm apart "
        f"({source})",
        *_direction_notes(in_order, source),
    ]


def _numbers(name: str, slices: Sequence[DicomSlice]) -> list[float]:
    frames = [float(dicom_slice.frame) for dicom_slice in slices if dicom_slice.frame is not None]
    if len(frames) == len(slices) and len({id(dicom_slice.instance) for dicom_slice in slices}) == 1:
        return frames
    stated = [number_value(dicom_slice.header, "InstanceNumber") for dicom_slice in slices]
    numbers = [number for number in stated if number is not None]
    if len(numbers) < len(slices) or len(set(numbers)) < len(numbers):
        problem = "no InstanceNumber" if len(numbers) < len(slices) else "an InstanceNumber that another has too"
        count = max(len(slices) - len(numbers), len(numbers) - len(set(numbers)))
        raise FormatError(
            f"{count} of {len(slices)} images in {name} state {problem}, so that they cannot be ordered by it: "
            "export the series again with positions"
        )
    missing = int(max(numbers) - min(numbers)) + 1 - len(numbers)
    if missing:
        raise FormatError(
            f"{name} lacks {missing} image{'s' if missing > 1 else ''} by the InstanceNumbers "
            f"({min(numbers):g} to {max(numbers):g}, {len(numbers)} images): send the whole series"
        )
    return numbers


def _distance(name: str, slices: Sequence[DicomSlice]) -> tuple[float, str]:
    """Return the distance of slices in order in mm, with the sign of their locations, and where it is stated."""
    locations = [number_value(dicom_slice.header, "SliceLocation") for dicom_slice in slices]
    if None not in locations:
        steps = np.diff(np.array(locations, dtype=np.float64))
        usual = float(np.median(steps))
        if usual and bool((np.abs(steps - usual) <= 0.1 * abs(usual)).all()):
            return usual, "by SliceLocation"
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        measures = stating_groups(slices[0].header, "PixelMeasuresSequence")
        stated = (number_value(data, keyword) for data in measures)
        distance_mm = next((abs(value) for value in stated if value), None)
        if distance_mm:
            return -distance_mm, f"the {keyword}"
    raise FormatError(
        f"{name} states neither SliceLocation nor SpacingBetweenSlices nor SliceThickness, so that the distance "
        "between its images is not known: export the series again with positions"
    )


def _towards_feet(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal or its opposite, whichever points to the feet, or if neither does the normal."""
    return -normal if normal[2] > 0 else normal


def _direction_notes(slices: Sequence[DicomSlice], source: str) -> list[str]:
    notes = []
    if source != "by SliceLocation":
        notes.append("which end is the head is not stated: the first image is taken as the uppermost")
    if all(dicom_slice.directions is None for dicom_slice in slices):
        notes.append(
            "the images state no orientation: upright axial slices are assumed, the patient's right at the left"
        )
    return notes
