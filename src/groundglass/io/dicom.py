"""Read a DICOM series as a scan: choose it, sort and check its slices, convert them to HU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from groundglass.errors import FormatError
from groundglass.io.dicom_acquisitions import choose_acquisition, find_acquisitions, list_acquisitions
from groundglass.io.dicom_choice import choose_series, describe_choice, is_accepted, naming_the_choice
from groundglass.io.dicom_grid import SAME_POSITION_MM, SliceStack, grid_geometry, sort_slices
from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    ByteOpener,
    DicomSlice,
    items,
    number_value,
    silence_pydicom,
    text_value,
)
from groundglass.io.dicom_notes import header_notes, repeat_notes, series_notes
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.dicom_order import lacks_positions, place_by_number
from groundglass.io.dicom_parts import check_parts, instances_of, join_headers, notes_on_missing_frames
from groundglass.io.dicom_pixels import check_transfer_syntaxes, decode_slices
from groundglass.io.dicom_series import ImageSeries, SeriesListing, find_series
from groundglass.io.empty_voxels import fill_empty_voxels
from groundglass.io.limits import check_voxel_count, native_values, shown
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import DicomSeries, Scan


def read_dicom(path: Path, options: DicomOptions, openers: Sequence[ByteOpener] = ()) -> Scan:
    """Read a CT series from a DICOM file, a folder or a ZIP archive, or from given files.

    Values are HU: int16 if slopes and intercepts are whole numbers, else float32; padding is air.

    Args:
        path: The file, folder or archive.
        options: What the user asks for.
        openers: Functions that open the files to read; `path` only names them then. Empty: all that `path` holds.

    Raises:
        FormatError: There is no CT series, or it is damaged, incomplete, uneven or in a syntax that is not read. The
            message names the series that was chosen if there are others.
    """
    name = shown(path)
    with silence_pydicom(), find_series(path, openers) as listing:
        series = choose_series(name, listing, options)
        with naming_the_choice(listing, series, options):
            stack = _prepare(name, series, options)
            is_ordered_by_number = lacks_positions(series.slices)
            size = series.slices[0].size
            shape = (len(stack.slices), *size)
            check_voxel_count(name, shape)
            grid_geometry(name, shape, stack.affine_lps)
            with _naming_acquisitions(stack.slices):
                slices, values = _decode_without_repeats(name, stack, size)
        notes = (
            *series_notes(listing, series, options),
            *stack.notes,
            *repeat_notes(len(stack.slices) - len(slices)),
            *header_notes(series),
        )
        _drop_damaged_attributes([instance.header for instance in instances_of(slices)])
        source = replace(_source_series(name, slices), name=series.name(options.with_identity))
        if is_ordered_by_number:
            _drop_positions(source)
        choice = describe_choice(listing, series, options)
    geometry = Geometry(values.shape, stack.affine_lps)
    scan = Scan(native_values(name, values), geometry, path, notes=notes, series=source, choice=choice)
    return fill_empty_voxels(name, scan)


@dataclass(frozen=True, eq=False)
class SampledSeries:
    """Some slices of a series, and what the headers of all show.

    Attributes:
        scan: The slices that were read, evenly distributed, on a grid of their own.
        geometry: The grid of all slices.
        source: The instances of all slices.
    """

    scan: Scan
    geometry: Geometry
    source: DicomSeries


def sample_series(listing: SeriesListing, series: ImageSeries, count: int, options: DicomOptions) -> SampledSeries:
    """Read `count` slices of a series, evenly distributed, and check the headers of all.

    Raises:
        FormatError: As in `read_dicom`, for what the headers and those slices show.
    """
    name, size = "the series", series.slices[0].size
    with naming_the_choice(listing, series, options):
        stack = _prepare(name, series, options)
        repeated = set(stack.repeated)
        kept = [one for i, one in enumerate(stack.slices) if i not in repeated]
        total = len(kept)
        check_voxel_count(name, (total, *size))
        geometry = grid_geometry(name, (total, *size), stack.affine_lps)
        with _naming_acquisitions(stack.slices):
            for i in stack.repeated[:1]:  # that the others are repeated too is assumed
                _decode_without_repeats(name, replace(stack, slices=stack.slices[i - 1 : i + 1]), size, number=i)
        chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
        values = np.stack([hu for _, hu in decode_slices(name, [kept[i] for i in chosen], size)])
        sparse_lps = stack.affine_lps.copy()
        sparse_lps[:, 0] *= max(1, total - 1) / max(1, len(chosen) - 1)
    notes = (
        *series_notes(listing, series, options),
        *stack.notes,
        *repeat_notes(len(stack.repeated)),
        *header_notes(series),
    )
    choice = describe_choice(listing, series, options)
    scan = fill_empty_voxels(name, Scan(values, Geometry(values.shape, sparse_lps), notes=notes, choice=choice))
    return SampledSeries(scan, geometry, _source_series(name, kept))


@contextmanager
def _naming_acquisitions(slices: Sequence[DicomSlice]) -> Iterator[None]:
    """Add to a refusal which acquisitions the slices are of, if they are of several."""
    try:
        yield
    except FormatError as error:
        acquisitions = find_acquisitions(slices)
        if len(acquisitions) < 2:
            raise
        raise FormatError(
            f"{error}; the series holds {len(acquisitions)} acquisitions, {list_acquisitions(acquisitions)}: "
            "--acquisition NUMBER takes one of them"
        ) from None


def _prepare(name: str, series: ImageSeries, options: DicomOptions) -> SliceStack:
    """Check the slices of a series by their headers, and sort those that are to be read."""
    _check_is_ct(name, series, options)
    check_parts(name, series.slices)
    slices: Sequence[DicomSlice] = series.slices
    notes = notes_on_missing_frames(slices)
    if options.acquisition is not None:
        slices = choose_acquisition(name, slices, options.acquisition)
        notes.append(
            f"acquisition {options.acquisition} was read on request, {len(slices)} of {len(series.slices)} images"
        )
    _check_rescale(name, slices)
    slices, rescale_notes = _with_the_others_rescale(name, slices)
    notes += rescale_notes
    if options.by_instance_number and lacks_positions(slices):
        slices, assumptions = place_by_number(name, slices)
        notes += assumptions
    with _naming_acquisitions(slices):
        stack = sort_slices(name, slices)
    return replace(stack, notes=(*notes, *stack.notes))


def _check_rescale(name: str, slices: Sequence[DicomSlice]) -> None:
    flat = sum(dicom_slice.slope == 0 for dicom_slice in slices)
    if flat:
        raise FormatError(
            f"{flat} of {len(slices)} images in {name} state the RescaleSlope 0, which makes all their pixels equal, "
            "expected 1 or another factor to HU: export the series again"
        )
    tables = sum("ModalityLUTSequence" in dicom_slice.header for dicom_slice in slices)
    if tables:
        raise FormatError(
            f"{tables} of {len(slices)} images in {name} state HU as a table (ModalityLUTSequence), expected a "
            "RescaleSlope and RescaleIntercept: export the series again with these"
        )


def _with_the_others_rescale(name: str, slices: Sequence[DicomSlice]) -> tuple[Sequence[DicomSlice], list[str]]:
    """Give the slices without a rescale to HU that of the others, and return a note on it.

    Raises:
        FormatError: The others state several.
    """
    stated = {(s.slope, s.intercept) for s in slices if s.states_rescale}
    unstated = sum(not s.states_rescale for s in slices)
    if not unstated or not stated:
        return slices, []
    if len(stated) > 1:
        raise FormatError(
            f"{unstated} of {len(slices)} images in {name} state no rescale to HU, and the others {len(stated)} "
            "different ones: export the series again"
        )
    slope, intercept = stated.pop()
    note = f"{unstated} of {len(slices)} images state no full rescale to HU: that of the others is taken"
    return [replace(s, slope=slope, intercept=intercept) for s in slices], [note]


def _check_is_ct(name: str, series: ImageSeries, options: DicomOptions) -> None:
    """Refuse what is no CT volume, or cannot be decoded, by the headers alone."""
    header = series.header
    if not is_accepted(series, options):
        hint = "--force-modality reads it all the same" if series.can_be_forced else "give the CT itself"
        raise FormatError(f"{name}: the series is no CT ({series.rejection_reason}): {hint}")
    if series.slices[0].frame is None and (number_value(header, "NumberOfFrames") or 1) > 1:
        raise FormatError(f"{name} holds frames without positions (a film, no volume): give the CT series itself")
    check_transfer_syntaxes(name, series.slices)


def _decode_without_repeats(
    name: str, stack: SliceStack, size: tuple[int, int], number: int = 1
) -> tuple[list[DicomSlice], NDArray[Any]]:
    """Return the slices and (z, y, x) their HU; of several at one position with the same pixels, the first is kept.

    The first slice of the stack has this number in messages.
    """
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
                        f"{name} has several different images at one place (slice {number + len(slices) - 1}; time "
                        "points or reconstructions in one series?): give one of them alone"
                    )
                continue
        slices.append(dicom_slice)
        values.append(hu)
    return slices, np.stack(values)


def _source_series(name: str, slices: Sequence[DicomSlice]) -> DicomSeries:
    """Return the instances of a scan's slices."""
    frames = tuple(dicom_slice.frame for dicom_slice in slices if dicom_slice.frame is not None)
    if not frames:
        headers = tuple(dicom_slice.header for dicom_slice in slices)
    elif len(frames) < len(slices):
        raise FormatError(f"{name} mixes single images and multi-frame ones in one series: give one kind alone")
    else:
        headers = (slices[0].header,)
    has_all_frames = len(items(slices[0].header, "PerFrameFunctionalGroupsSequence")) == len(slices)
    if not frames or (has_all_frames and len(instances_of(slices)) == 1):
        return DicomSeries(headers, frames or None)
    origins = tuple((text_value(s.header, "SOPInstanceUID"), s.frame or 0) for s in slices)
    joined, indices = join_headers(slices)
    return DicomSeries((joined,), indices, origins)


def _drop_damaged_attributes(headers: Sequence[Dataset]) -> None:
    """Remove the attributes that cannot be read; what most slices of a series share is read once.

    What pydicom warns of is read in every header, since reading it later would print the warning, with the value.
    """
    sound: set[tuple[object, ...]] = set()
    for header in headers:
        encoding = str(header.original_character_set)
        for tag, stored in list(header.items()):  # converts nothing
            key = (int(tag), stored.VR, stored.value, encoding) if isinstance(stored, RawDataElement) else None
            if key in sound:
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    _ = header[tag]
                except DICOM_ERRORS:
                    del header[tag]
            if key is not None and not caught:
                sound.add(key)


def _drop_positions(series: DicomSeries) -> None:
    """Remove positions that say nothing, so that nothing is placed by them."""
    for header in series.headers:
        for data in (header, *items(header, "PerFrameFunctionalGroupsSequence")):
            for keyword in ("ImagePositionPatient", "PlanePositionSequence"):
                if keyword in data:
                    delattr(data, keyword)
