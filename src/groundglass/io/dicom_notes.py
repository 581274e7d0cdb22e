"""Notes for the user on a DICOM series: what was chosen, left out and assumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pydicom import Dataset

from groundglass.io.dicom_choice import describe_choice
from groundglass.io.dicom_directory import note_on_absent
from groundglass.io.dicom_header import (
    DicomSlice,
    directions_of,
    has_decimal_comma,
    items,
    number_values,
    text_value,
    transfer_syntax,
)
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.dicom_pixels import LOSSY
from groundglass.io.dicom_series import ImageSeries, SeriesListing
from groundglass.io.other_files import counted, list_losses

_NUMBERS = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")
_FUNCTIONAL_GROUPS = (
    *("PlanePositionSequence", "PlaneOrientationSequence"),
    *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
)


def series_notes(listing: SeriesListing, series: ImageSeries, options: DicomOptions) -> list[str]:
    """Say which series was chosen, what was left out or is not there, and as what it is read."""
    notes = []
    choice = describe_choice(listing, series, options) if options.series is None else None
    notes += [choice] if choice else []
    if len(series.uids) > 1:
        pieces = f"{len(series.uids)} series" + (" of one slice each" if len(series.uids) == len(series.slices) else "")
        notes.append(f"{pieces} were joined to one, since study, place and kind of their images fit together")
    left_out = [counted(n, reason) for reason, n in series.left_out.items()]
    losses = list_losses(listing.others)
    left_out += [losses] if losses else []
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    notes += note_on_absent(listing.absent, series.uids)
    if series.kind.doubt and not series.rejection_reason:
        notes.append(f"its description names {series.kind.doubt}: it is read as plain CT, as its other attributes say")
    if series.modality != "CT":
        notes.append(f"the modality is {series.modality or 'not stated'}, read as CT on request")
    elif not text_value(series.header, "Modality"):
        notes.append("no modality is stated: CT is assumed, as the class of the images says")
    elif series.rejection_reason:
        notes.append(f"the series is {series.rejection_reason} by its header, read as CT on request")
    if not series.is_axial:
        notes.append("the slices are not axial: they are turned, and look coarser")
    return notes


def repeat_notes(repeated: int) -> list[str]:
    """Say how many images are left out because others have their place and pixels."""
    return [f"{repeated} image{'s' if repeated > 1 else ''} of the same place and pixels left out"] if repeated else []


def header_notes(series: ImageSeries) -> list[str]:
    """Say what was assumed of the headers of a series, and what they tell of its images."""
    notes = []
    headers = [dicom_slice.header for dicom_slice in series.slices]
    notes += _rescale_notes(series.slices)
    single = [header for s, header in zip(series.slices, headers, strict=True) if s.frame is None]
    unoriented = sum(directions_of(number_values(data, "ImageOrientationPatient", 6)) is None for data in single)
    if 0 < unoriented < len(series.slices):
        notes.append(f"{unoriented} of {len(series.slices)} images state no orientation: that of the others is taken")
    if any(has_decimal_comma(data, keyword) for data in _data_with_numbers(series.header) for keyword in _NUMBERS):
        notes.append("numbers in the header have decimal commas, expected points: they are read as meant")
    if text_value(series.header, "PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the images are meant to be shown inverted (MONOCHROME1): HU are taken as they are stored")
    if text_value(series.header, "BurnedInAnnotation") == "YES":
        notes.append("text is burned into the images: it may be marked, and may name the patient")
    is_lossy = any(transfer_syntax(header) in LOSSY for header in headers)
    if is_lossy or text_value(series.header, "LossyImageCompression") == "01":
        notes.append("the images were compressed with loss: fine texture is gone")
    return notes


def _data_with_numbers(header: Dataset) -> Iterator[Dataset]:
    """Yield a header, and of a multi-frame one the functional groups that hold numbers of its first frame."""
    yield header
    shared = items(header, "SharedFunctionalGroupsSequence")
    for groups in (*shared, *items(header, "PerFrameFunctionalGroupsSequence")[:1]):
        for keyword in _FUNCTIONAL_GROUPS:
            yield from items(groups, keyword)


def _rescale_notes(slices: Sequence[DicomSlice]) -> list[str]:
    stated = [dicom_slice for dicom_slice in slices if dicom_slice.states_rescale]
    if stated:  # the others take theirs
        offsets = Counter(dicom_slice.intercept for dicom_slice in stated).most_common()
        if len(offsets) == 1 or len({dicom_slice.slope for dicom_slice in stated}) > 1:
            return []
        listed = ", ".join(f"{offset:g} in {counted(n, 'image')}" for offset, n in offsets[:3])
        return [f"the images state several offsets to HU ({listed}): each is read as it states, check those few"]
    if all(dicom_slice.slope == 1 and dicom_slice.intercept == 0 for dicom_slice in slices):
        return ["no rescale to HU is stated: the values are taken as they are stored"]
    return [
        f"{len(slices)} of {len(slices)} images state no full rescale to HU: a slope of 1 or an offset of 0 is assumed"
    ]
