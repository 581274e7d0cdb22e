"""Describe an input before it is segmented: series, grid, intensities, and why it would be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from groundglass.errors import InputError
from groundglass.inference.lungs.finding import ESTIMATED, find_lungs
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.other_files import NoDicomError
from groundglass.io.reader import file_kind, read_scan
from groundglass.report.plausibility import check_plausibility
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import recognise_numbers
from groundglass.scan.scan import ImageStack, Scan
from groundglass.strict_model import StrictModel

SAMPLED_SLICES = 4  # slices in which lungs are looked for, and, of a DICOM series, whose pixels are decoded
MORE_SLICES = 48  # the same, if those show no lung
_DIRECTIONS = (("left", "right"), ("back", "front"), ("head", "feet"))  # of L, P and S, and the other way


class SeriesInfo(StrictModel):
    """A DICOM series.

    Attributes:
        name: What people call it, and `--series` takes: its number, with a letter if others have the same.
        number: Series number; None if it is not stated.
        uid: Series instance UID; the first one, if a series was split into pieces.
        modality: Modality as the header states it.
        slices: Number of images with the same orientation and matrix.
        size: Rows and columns.
        spacing_mm: Distance between rows, and between columns.
        slice_distance_mm: Usual distance between slices; None if positions are not stated.
        axial: Whether the slices are axial.
        kernel: Reconstruction kernel.
        syntax: Name of the transfer syntax.
        chosen: Whether `segment` would choose the series.
        rejection_reason: Why the series cannot be chosen; None if it can.
        description: Series description, a free text that may name the patient; None without identity.
    """

    name: str
    number: int | None
    uid: str
    modality: str
    slices: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    slice_distance_mm: float | None
    axial: bool
    kernel: str
    syntax: str
    chosen: bool
    rejection_reason: str | None
    description: str | None


class InputInfo(StrictModel):
    """Description of an input.

    Attributes:
        format: `DICOM`, `NIfTI`, `PNG`, ...
        series: Series of DICOM, best first.
        shape: Voxels along (z, y, x).
        spacing_mm: Voxel spacing along (z, y, x); None if it is not stated.
        axes: Directions of the axes in the body.
        intensity: What the voxel values are recognised as, and why.
        notes: Further remarks on the input.
        refused: Why `segment` would refuse the input; None if no reason was found.
    """

    format: str
    series: tuple[SeriesInfo, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    axes: str | None = None
    intensity: str | None = None
    notes: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def lines(self) -> list[str]:
        """The description as lines of text."""
        rows = [("format", self.format)]
        rows += [("series", _describe_series(series)) for series in self.series]
        if self.shape:
            rows.append(("shape", " x ".join(map(str, self.shape)) + " (z, y, x)"))
            spacing = self.spacing_mm
            rows.append(("spacing", " x ".join(f"{mm:.3g}" for mm in spacing) + " mm" if spacing else "not stated"))
        rows += [("axes", self.axes)] if self.axes else []
        rows += [("intensity", self.intensity)] if self.intensity else []
        rows += [("note", note) for note in self.notes]
        rows += [("refused", self.refused)] if self.refused else []
        return [f"{name:10}{value}" for name, value in rows]


def describe_input(path: Path, dicom: DicomOptions | None = None) -> InputInfo:
    """Describe an input without segmenting it. Of DICOM, the headers are read and the pixels of a few slices.

    Args:
        path: As for `read_scan`.
        dicom: What is asked for where the input is DICOM; with identity, the series' descriptions are included.

    Raises:
        InputError: The input cannot be read at all, or has no series of that number or UID.
    """
    kind, dicom = file_kind(path), dicom or DicomOptions()
    if kind in ("folder", "DICOM", "ZIP"):
        from groundglass.apps.dicom_info import describe_dicom  # here: pydicom takes longer than describing a file

        try:
            return describe_dicom(path, kind, dicom)
        except NoDicomError:
            if kind != "folder":
                raise
    scan = read_scan(path)
    told = foretell(_some_slices(scan, SAMPLED_SLICES), scan)
    if may_have_missed_lungs(told):
        told = foretell(_some_slices(scan, MORE_SLICES), scan)
    name = "folder of pictures" if kind == "folder" else kind
    return InputInfo(format=name, notes=scan.notes, **describe_grid(scan.geometry) | told)


def foretell(sample: Scan, scan: Scan) -> dict[str, Any]:
    """Return what the values of a scan are recognised as, and why `segment` would refuse it, by a sample of it."""
    fields: dict[str, Any] = {}
    try:
        numbers = recognise_numbers(scan)
        fields["intensity"] = numbers.reason
        found = find_lungs(sample, kind=numbers.kind)
        if not found.intensity.calibrated:
            fields["intensity"] += f"; {ESTIMATED}"
        check_plausibility(found)
    except InputError as error:
        fields["refused"] = f"{error}; {scan.choice}" if scan.choice else str(error)
    return fields


def may_have_missed_lungs(told: Mapping[str, Any]) -> bool:
    """Return whether a scan was refused by what its sample shows, and not by its numbers."""
    return "refused" in told and "intensity" in told


def _some_slices(scan: Scan, count: int) -> Scan:
    """Return some axial slices of a scan: all of an image stack, at most `count` of a volume."""
    view = AxialView(scan.geometry)
    values, geometry = view.to_axial(scan.values), view.geometry
    if isinstance(scan, ImageStack) or len(values) <= count:
        return scan
    chosen = np.linspace(0, len(values) - 1, count).astype(int)
    affine_lps = geometry.affine_lps.copy()
    affine_lps[:, 0] *= (len(values) - 1) / (count - 1)
    grid = replace(geometry, shape=(count, *geometry.shape[1:]), affine_lps=affine_lps)
    return replace(scan, values=values[chosen], geometry=grid)


def _describe_series(series: SeriesInfo) -> str:
    choice = "chosen" if series.chosen else series.rejection_reason or "not chosen"
    rows, columns = series.size
    distance = f"{series.slice_distance_mm:.3g} mm apart" if series.slice_distance_mm else ""
    parts = (
        *(series.description and f'"{series.description}"', series.kernel and f"kernel {series.kernel}"),
        f"{series.slices} slice{'s' if series.slices > 1 else ''} of {rows} x {columns}",
        *(distance, "" if series.axial else "not axial", series.modality, series.syntax),
    )
    return f"{series.name} ({choice}): {', '.join(part for part in parts if part)}"


def describe_grid(geometry: Geometry) -> dict[str, Any]:
    """Return the fields of `InputInfo` that follow from the grid."""
    z, y, x = (round(mm, 4) for mm in geometry.spacing)
    return {
        "shape": geometry.shape,
        "spacing_mm": (z, y, x) if geometry.in_mm else None,
        "axes": _axes(geometry),
    }


def _axes(geometry: Geometry) -> str | None:
    """Name the direction of the body that is nearest to each axis of the array."""
    if not geometry.in_mm or not geometry.has_directions:
        return None
    lps = reversed(AxialView(geometry).axes)
    named = {axis: names[is_reversed] for (axis, is_reversed), names in zip(lps, _DIRECTIONS, strict=True)}
    return f"z to the {named[0]}, y to the {named[1]}, x to the {named[2]}"
