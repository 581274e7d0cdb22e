"""Describe a DICOM input before it is segmented: its series, and the scan that the chosen one would be read as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundglass.apps.foretelling import MORE_SLICES, SAMPLED_SLICES, foretell
from groundglass.apps.input_info import InputInfo, SeriesInfo, describe_grid
from groundglass.errors import InputError
from groundglass.io.dicom import sample_series
from groundglass.io.dicom_choice import choose_series
from groundglass.io.dicom_completion import foretell_completion
from groundglass.io.dicom_header import silence_pydicom, transfer_syntax
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.dicom_series import ImageSeries, SeriesListing, find_series
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import DicomSeries


def describe_dicom(path: Path, kind: str, dicom: DicomOptions) -> InputInfo:
    """Describe a DICOM file, folder or ZIP archive by its headers and the pixels of a few slices.

    Args:
        path: The input.
        kind: `DICOM`, `folder` or `ZIP`.
        dicom: What is asked for.

    Raises:
        NoDicomError: There is no DICOM image.
        FormatError: The input cannot be read at all, or has no series of that number or UID.
    """
    with silence_pydicom(), find_series(path) as listing:
        return _describe(listing, kind, dicom)


def _describe(listing: SeriesListing, kind: str, dicom: DicomOptions) -> InputInfo:
    fields: dict[str, Any]
    chosen = None
    try:
        chosen = choose_series("the input", listing, dicom)
        fields = _describe_series_of_scan(listing, chosen, dicom)
    except InputError as error:
        if chosen is None and dicom.series is not None:
            raise
        fields = {"refused": str(error)}
    return InputInfo(
        format="DICOM" if kind == "DICOM" else f"DICOM ({kind})",
        series=tuple(_series_info(series, series is chosen, dicom.with_identity) for series in listing.series),
        **fields,
    )


def _describe_series_of_scan(listing: SeriesListing, series: ImageSeries, dicom: DicomOptions) -> dict[str, Any]:
    """Describe the scan that a series is read as, by its headers and the pixels of a few slices."""
    sampled = sample_series(listing, series, SAMPLED_SLICES, dicom)
    slices = AxialView(sampled.geometry).geometry.shape[0]
    told = foretell(sampled.scan, sampled.scan, slices)
    if told.is_doubtful:
        more = sample_series(listing, series, MORE_SLICES, dicom).scan
        told = foretell(more, more, slices)
    notes = (*sampled.scan.notes, *told.warnings, *_dicom_result_notes(sampled.source))
    return describe_grid(sampled.geometry) | {"notes": notes} | told.fields


def _dicom_result_notes(series: DicomSeries) -> tuple[str, ...]:
    """Return what will be filled in, or left out, in the files for a PACS."""
    try:
        return foretell_completion(series)
    except InputError as error:
        from groundglass.report.dicom_results import SEG_FILE, SR_FILE  # here, so that the program starts quickly

        return (f"{SEG_FILE} and {SR_FILE} will be left out: {error}",)


def _series_info(series: ImageSeries, is_chosen: bool, with_identity: bool) -> SeriesInfo:
    header = series.header
    distance_mm = series.slice_distance_mm
    return SeriesInfo(
        name=series.label,
        number=series.number,
        uid=series.uid,
        modality=series.modality,
        slices=len(series.slices),
        size=series.slices[0].size,
        spacing_mm=series.slices[0].spacing_mm,
        slice_distance_mm=None if distance_mm is None else round(distance_mm, 4),
        axial=series.is_axial,
        kernel=series.kernel,
        syntax=transfer_syntax(header).name,
        chosen=is_chosen,
        rejection_reason=series.rejection_reason,
        description=series.description or None if with_identity else None,
    )
