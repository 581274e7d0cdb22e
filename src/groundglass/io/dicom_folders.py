"""Whether folders of DICOM hold parts of one series, such as one slice each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundglass.errors import FormatError
from groundglass.io.dicom_files import file_opener, files_below, read_header
from groundglass.io.dicom_grid import count_places, is_even_stack
from groundglass.io.dicom_header import DicomInstance, silence_pydicom, text_value
from groundglass.io.dicom_series import ImageSeries, find_series

_FEWEST_SLICES = 3  # with a folder and a SeriesInstanceUID each: from here on they may be a scan in pieces


@dataclass(frozen=True)
class DicomFolder:
    """A folder that holds DICOM, or folders of it.

    Attributes:
        path: The folder.
        file_count: Number of files in and below it.
        study: Patient and study of its first image; empty if it has none, or states no study.
        series: The same with the series.
    """

    path: Path
    file_count: int
    study: tuple[str, ...] = ()
    series: tuple[str, ...] = ()


@silence_pydicom()
def look_into(folder: Path, own: Sequence[Path] = ()) -> DicomFolder:
    """Describe a folder of DICOM by the header of its first image, or of the first of some files in it."""
    try:
        files = own or files_below(folder)[0]
        instances = (read_header(file, file_opener(file), is_only_file=False) for file in files)
        first = next((found for found in instances if isinstance(found, DicomInstance)), None)
    except (FormatError, OSError):
        return DicomFolder(folder, 0)
    if first is None:
        return DicomFolder(folder, len(files))
    patient, study, series = (
        text_value(first.header, keyword) for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    )
    return DicomFolder(
        folder, len(files), (patient, study) if study else (), (patient, study, series) if series else ()
    )


@dataclass(frozen=True)
class SpreadSeries:
    """A series whose images lie in several folders.

    Attributes:
        parts: The folders.
        uid: Its SeriesInstanceUID, if another series is chosen in the folder above them; else None.
    """

    parts: tuple[DicomFolder, ...]
    uid: str | None = None


@silence_pydicom()
def find_spread_series(parent: Path, folders: Sequence[DicomFolder]) -> SpreadSeries | None:
    """Return the series of highest rank whose parts lie in several folders; None if there is none.

    If the series of two folders agree, or the study of several files with a folder each, the headers of all are read.
    Parts have to form one even stack that is larger than each of them; slices with a folder each may have gaps, which
    are refused when the scan is read.
    """
    stated = [folder.series for folder in folders if folder.series]
    studies = {folder.study for folder in folders}
    is_in_pieces = (
        len(folders) >= _FEWEST_SLICES
        and len(studies) == 1
        and studies != {()}
        and all(folder.file_count == 1 for folder in folders)
    )
    if len(set(stated)) == len(stated) and not is_in_pieces:
        return None
    try:
        with find_series(parent) as listing:
            found = listing.series[:1] if is_in_pieces else listing.series
    except (FormatError, OSError):
        return None
    for number, series in enumerate(found):
        parts = (
            folders if is_in_pieces else [each for each in folders if each.series and each.series[-1] in series.uids]
        )
        if _is_spread(series, parts):
            return SpreadSeries(tuple(parts), series.uid if number else None)
    return None


def _is_spread(series: ImageSeries, parts: Sequence[DicomFolder]) -> bool:
    """Return whether folders hold parts of a series, and not copies of it."""
    largest = max((part.file_count for part in parts), default=0)
    if len(parts) < 2 or len(series.slices) <= largest or count_places(series.slices) < len(series.slices):
        return False
    return largest == 1 or is_even_stack(series.slices)
