"""Slices by the numbers that viewers show: InstanceNumber in DICOM, counted from 1 elsewhere."""

from __future__ import annotations

import numpy as np

from groundglass.report.amounts import format_level
from groundglass.report.findings import Findings
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import Scan


def image_numbers(scan: Scan, view: AxialView) -> tuple[int, ...]:
    """Return the number of each axial slice, in the order of the file.

    Args:
        scan: The scan.
        view: Its axial view.
    """
    count = view.geometry.shape[0]
    (along, _), *_ = view.axes
    stated = _stated_numbers(scan) if along == 0 else ()  # not cut across the slices of the file
    return stated if len(set(stated)) == count else tuple(range(1, count + 1))


def _stated_numbers(scan: Scan) -> tuple[int, ...]:
    """Return the numbers that DICOM states for the slices of the file; empty if any states none."""
    series = scan.series
    if series is None or series.origins:
        return ()
    if series.frames:
        return tuple(frame + 1 for frame in series.frames)
    from groundglass.io.dicom_header import number_value  # pydicom loads slowly, and only DICOM needs it

    stated = [number_value(header, "InstanceNumber") for header in series.headers]
    return tuple(int(number) for number in stated if number is not None)


def slice_positions(view: AxialView) -> tuple[float, ...]:
    """Return the position of each axial slice from feet to head in mm, in the order of the file."""
    positions = [round(float(view.geometry.position((z, 0, 0))[2]), 2) for z in range(view.geometry.shape[0])]
    return tuple(positions[z] for z in np.argsort(view.slice_numbers))


def name_image(findings: Findings, index: int) -> str:
    """Name a slice, counted from 0 in the order of the file, by its number, of all if they are counted from 1."""
    numbers = findings.input.image_numbers
    of = f" of {len(numbers)}" if (min(numbers), max(numbers)) == (1, len(numbers)) else ""
    return f"image {numbers[index]}{of}"


def place_image(findings: Findings, index: int) -> str:
    """Name a slice by its number and, where it is known, its position in mm."""
    positions = findings.input.slice_positions_mm
    return name_image(findings, index) + ("" if positions is None else f", {format_level(positions[index])} mm")


def describe_share(lesion: float, lung: float) -> str:
    """Say how much of a slice's lung is lesion, given both as volumes or numbers of pixels."""
    if not lesion:
        return "no lesion"
    if not lung:
        return "lesion, no lung"
    percent = 100 * min(1.0, lesion / lung)
    return f"lesion on {f'{percent:.0f} %' if percent >= 1 else 'less than 1 %'} of the lung"
