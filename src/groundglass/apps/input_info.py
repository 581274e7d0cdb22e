"""What is said of an input before it is segmented: series, grid, intensities, and why it would be refused."""

from __future__ import annotations

from typing import Any

from groundglass.scan.geometry import AxialView, Geometry
from groundglass.strict_model import StrictModel

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
