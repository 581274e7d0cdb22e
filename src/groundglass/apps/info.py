"""Describe an input before it is segmented: series, grid, intensities, and why it would be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nibabel.orientations import aff2axcodes

from groundglass.errors import InputError
from groundglass.io.dicom import sample_series, series_with_uid
from groundglass.io.dicom_header import silence_pydicom, text_value, transfer_syntax
from groundglass.io.dicom_series import ImageSeries, NoDicomError, SeriesListing, find_series
from groundglass.io.reader import file_kind, read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import recognise_intensity
from groundglass.scan.scan import Scan
from groundglass.strict_model import StrictModel

SAMPLED_SLICES = 5  # slices of a DICOM series whose pixels are decoded
_DIRECTIONS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


class SeriesInfo(StrictModel):
    """A DICOM series.

    Attributes:
        uid: Series instance UID.
        modality: Modality as the header states it.
        slices: Number of images with the same orientation and matrix.
        size: Rows and columns.
        spacing_mm: Distance between rows, and between columns.
        axial: Whether the slices are axial.
        kernel: Reconstruction kernel.
        syntax: Name of the transfer syntax.
        chosen: Whether `segment` would choose the series.
        rejection_reason: Why the series cannot be chosen; None if it can.
        description: Series description, a free text that may name the patient; None without identity.
    """

    uid: str
    modality: str
    slices: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
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


def describe_input(path: Path, series_uid: str | None = None, with_identity: bool = False) -> InputInfo:
    """Describe an input without segmenting it. Of DICOM, the headers are read and the pixels of a few slices.

    Args:
        path: As for `read_scan`.
        series_uid: UID of the DICOM series, or the end of it; None for the series that `segment` chooses.
        with_identity: Whether to include the series' descriptions, which may name the patient.

    Raises:
        InputError: The input cannot be read at all, or has no series of that UID.
    """
    kind = file_kind(path)
    if kind in ("folder", "DICOM", "ZIP"):
        try:
            with silence_pydicom(), find_series(path) as listing:
                return _describe_dicom(listing, kind, series_uid, with_identity)
        except NoDicomError:
            if kind != "folder":
                raise
    scan = read_scan(path)
    return InputInfo(format="folder of pictures" if kind == "folder" else kind, **_describe_scan(scan))


def _describe_dicom(listing: SeriesListing, kind: str, series_uid: str | None, with_identity: bool) -> InputInfo:
    chosen = listing.series[0] if series_uid is None else series_with_uid("the input", listing, series_uid)
    fields: dict[str, Any]
    if chosen.rejection_reason:
        fields = {"refused": f"no CT series: {chosen.rejection_reason}"}
    else:
        try:
            stack, sample = sample_series(listing, chosen, SAMPLED_SLICES)
            fields = _describe_scan(sample) | {"shape": (len(stack.slices), *sample.values.shape[1:])}
        except InputError as error:
            fields = {"refused": str(error)}
    return InputInfo(
        format="DICOM" if kind == "DICOM" else f"DICOM ({kind})",
        series=tuple(_series_info(series, series is chosen, with_identity) for series in listing.series),
        **fields,
    )


def _series_info(series: ImageSeries, is_chosen: bool, with_identity: bool) -> SeriesInfo:
    header = series.header
    return SeriesInfo(
        uid=series.uid,
        modality=series.modality,
        slices=len(series.slices),
        size=series.slices[0].size,
        spacing_mm=series.slices[0].spacing_mm,
        axial=series.is_axial,
        kernel=series.kernel,
        syntax=transfer_syntax(header).name,
        chosen=is_chosen and series.rejection_reason is None,
        rejection_reason=series.rejection_reason,
        description=text_value(header, "SeriesDescription") or None if with_identity else None,
    )


def _describe_series(series: SeriesInfo) -> str:
    choice = "chosen" if series.chosen else series.rejection_reason or "not chosen"
    rows, columns = series.size
    parts = (
        f"{series.slices} slice{'s' if series.slices > 1 else ''} of {rows} x {columns}",
        *(series.modality, series.kernel, series.syntax, series.description),
    )
    return f"{series.uid} ({choice}): {', '.join(part for part in parts if part)}"


def _describe_scan(scan: Scan) -> dict[str, Any]:
    """Return the fields of `InputInfo` that follow from grid and values."""
    geometry = scan.geometry
    z, y, x = (round(mm, 4) for mm in geometry.spacing)
    fields = {
        "shape": geometry.shape,
        "spacing_mm": (z, y, x) if geometry.in_mm else None,
        "axes": _axes(geometry),
        "notes": scan.notes,
    }
    try:
        return fields | {"intensity": recognise_intensity(scan).reason}
    except InputError as error:
        return fields | {"refused": str(error)}


def _axes(geometry: Geometry) -> str | None:
    """Name the direction of the body that is nearest to each axis of the array."""
    if not geometry.in_mm:
        return None
    x, y, z = (_DIRECTIONS[code] for code in aff2axcodes(geometry.affine_ras))
    return f"z to the {z}, y to the {y}, x to the {x}"
