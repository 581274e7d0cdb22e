"""Read a DICOM series as a scan: choose it, sort and check its slices, convert them to HU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from groundglass.errors import FormatError
from groundglass.io.dicom_grid import SAME_POSITION_MM, SliceStack, grid_geometry, sort_slices
from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    DicomSlice,
    number_value,
    silence_pydicom,
    text_value,
    transfer_syntax,
)
from groundglass.io.dicom_pixels import LOSSY, check_transfer_syntaxes, decode_slices
from groundglass.io.dicom_series import DAMAGED_FILE, ImageSeries, SeriesListing, find_series
from groundglass.io.limits import check_voxel_count, native_values, shown
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import DicomSeries, Scan


def read_dicom(path: Path, uid: str | None = None, force_modality: bool = False) -> Scan:
    """Read a CT series from a DICOM file, a folder or a ZIP archive.

    Values are HU: int16 if slopes and intercepts are whole numbers, else float32; padding is air.

    Args:
        path: The file, folder or archive.
        uid: Series Instance UID, or its end; None: the series is chosen by the rule of `dicom_series`.
        force_modality: Read a series of another modality than CT.

    Raises:
        FormatError: There is no CT series, or it is damaged, incomplete, uneven or in a syntax that is not read.
    """
    name = shown(path)
    with silence_pydicom(), find_series(path) as listing:
        series = _choose(name, listing, uid, force_modality)
        _check_is_ct(name, series, force_modality)
        stack = sort_slices(name, series.slices)
        size = series.slices[0].size
        shape = (len(stack.slices), *size)
        check_voxel_count(name, shape)
        grid_geometry(name, shape, stack.affine_lps)
        slices, values = _decode_without_repeats(name, stack, size)
        notes = (
            *_series_notes(listing, series, uid),
            *stack.notes,
            *_repeat_notes(stack, slices),
            *_header_notes(series),
        )
        source = _source_series(name, slices)
    geometry = Geometry(values.shape, stack.affine_lps)
    return Scan(native_values(name, values), geometry, path, notes=notes, series=source)


def sample_series(listing: SeriesListing, series: ImageSeries, count: int) -> tuple[SliceStack, Scan]:
    """Sort the slices of a series and read `count` of them, evenly distributed, as a scan.

    Raises:
        FormatError: As in `read_dicom`, for what the headers and those slices show.
    """
    name = "the series"
    _check_is_ct(name, series, force_modality=True)
    stack = sort_slices(name, series.slices)
    chosen = [stack.slices[i] for i in np.unique(np.linspace(0, len(stack.slices) - 1, count).astype(int))]
    values = np.stack([hu for _, hu in decode_slices(name, chosen, series.slices[0].size)])
    notes = (*_series_notes(listing, series, None), *stack.notes, *_header_notes(series))
    return stack, Scan(values, grid_geometry(name, values.shape, stack.affine_lps), notes=notes)


def series_with_uid(name: str, listing: SeriesListing, uid: str) -> ImageSeries:
    """Return the series whose UID is `uid`, or ends so.

    Raises:
        FormatError: There is none, or there are several.
    """
    matching = [series for series in listing.series if series.uid.endswith(uid)]
    exact = [series for series in matching if series.uid == uid]
    if len(exact or matching) != 1:
        available = "; ".join(series.line for series in listing.series)
        raise FormatError(f"{name} holds {len(matching)} series that end in {uid}, expected one of: {available}")
    return (exact or matching)[0]


def _choose(name: str, listing: SeriesListing, uid: str | None, force_modality: bool) -> ImageSeries:
    if uid is not None:
        return series_with_uid(name, listing, uid)
    best = listing.series[0]
    if not _is_accepted(best, force_modality):
        available = "; ".join(series.line for series in listing.series[:5])
        hint = " (--force-modality reads it all the same)" if best.can_be_forced else ""
        raise FormatError(f"{name} holds no CT series but {available}; give the CT itself{hint}")
    return best


def _is_accepted(series: ImageSeries, force_modality: bool) -> bool:
    return series.rejection_reason is None or (force_modality and series.can_be_forced)


def _check_is_ct(name: str, series: ImageSeries, force_modality: bool) -> None:
    """Refuse what is no CT volume, or cannot be decoded, by the headers alone."""
    header = series.header
    if not _is_accepted(series, force_modality):
        hint = "--force-modality reads it all the same" if series.can_be_forced else "give the CT itself"
        raise FormatError(f"{name}: the series is no CT ({series.rejection_reason}): {hint}")
    if (number_value(header, "SamplesPerPixel") or 1) != 1:
        raise FormatError(f"{name} holds colour pictures, expected one grey value a pixel: give the CT itself")
    if series.slices[0].frame is None and (number_value(header, "NumberOfFrames") or 1) > 1:
        raise FormatError(f"{name} holds frames without positions (a film, no volume): give the CT series itself")
    check_transfer_syntaxes(name, series.slices)


def _decode_without_repeats(
    name: str, stack: SliceStack, size: tuple[int, int]
) -> tuple[list[DicomSlice], NDArray[Any]]:
    """Return the slices and (z, y, x) their HU; of several at one position with the same pixels, the first is kept."""
    slices: list[DicomSlice] = []
    values: list[NDArray[Any]] = []
    step = stack.affine_lps[:3, 0]
    for dicom_slice, hu in decode_slices(name, stack.slices, size):
        if slices and dicom_slice.position_mm is not None and slices[-1].position_mm is not None:
            way = dicom_slice.position_mm - slices[-1].position_mm
            distance_mm = abs(float(way @ step) / float(np.linalg.norm(step)))
            if distance_mm <= SAME_POSITION_MM:
                if not np.array_equal(hu, values[-1]):
                    raise FormatError(
                        f"{name} has several different images at one place (slice {len(slices)}; time points or "
                        "reconstructions in one series?): give one of them alone"
                    )
                continue
        slices.append(dicom_slice)
        values.append(hu)
    return slices, np.stack(values)


def _source_series(name: str, slices: Sequence[DicomSlice]) -> DicomSeries:
    """Return the instances of a scan's slices, without attributes that cannot be read."""
    frames = tuple(dicom_slice.frame for dicom_slice in slices if dicom_slice.frame is not None) or None
    if frames and len({id(dicom_slice.instance) for dicom_slice in slices}) > 1:
        raise FormatError(
            f"{name} holds a series in several multi-frame files, expected one: give one of them, or join them"
        )
    headers = (slices[0].header,) if frames else tuple(dicom_slice.header for dicom_slice in slices)
    for header in headers:
        _drop_damaged_attributes(header)
    return DicomSeries(headers, frames)


def _drop_damaged_attributes(header: Dataset) -> None:
    for tag in list(header.keys()):
        try:
            _ = header[tag]
        except DICOM_ERRORS:
            del header[tag]


def _series_notes(listing: SeriesListing, series: ImageSeries, uid: str | None) -> list[str]:
    notes = []
    others = [other.line for other in listing.series if other is not series]
    if others and uid is None:
        listed = "; ".join(others[:5]) + (f"; and {len(others) - 5} more" if len(others) > 5 else "")
        notes.append(f"series {series.line} was chosen; others there: {listed} (--series UID takes another)")
    left_out = [f"{n} {reason}{'s' if n > 1 else ''}" for reason, n in series.left_out.items()]
    damaged = listing.others.get(DAMAGED_FILE)
    left_out += [f"{damaged} damaged file{'s' if damaged > 1 else ''}"] if damaged else []
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    if series.modality != "CT":
        notes.append(f"the modality is {series.modality or 'not stated'}, read as CT on request")
    if not series.is_axial:
        notes.append("the slices are not axial: they are turned, and look coarser")
    return notes


def _repeat_notes(stack: SliceStack, slices: Sequence[DicomSlice]) -> list[str]:
    repeated = len(stack.slices) - len(slices)
    return [f"{repeated} image{'s' if repeated > 1 else ''} of the same place and pixels left out"] if repeated else []


def _header_notes(series: ImageSeries) -> list[str]:
    notes = []
    headers = [dicom_slice.header for dicom_slice in series.slices]
    is_single_frame = series.slices[0].frame is None
    if is_single_frame and any(number_value(header, "RescaleIntercept") is None for header in headers):
        notes.append("no rescale to HU is stated: the values are taken as they are stored")
    if text_value(series.header, "PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the images are meant to be shown inverted (MONOCHROME1): HU are taken as they are stored")
    if text_value(series.header, "BurnedInAnnotation") == "YES":
        notes.append("text is burned into the images: it may be marked, and may name the patient")
    is_lossy = any(transfer_syntax(header) in LOSSY for header in headers)
    if is_lossy or text_value(series.header, "LossyImageCompression") == "01":
        notes.append("the images were compressed with loss: fine texture is gone")
    return notes
