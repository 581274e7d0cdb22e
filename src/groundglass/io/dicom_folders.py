"""Whether folders of DICOM hold parts of one series, such as one slice each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundglass.errors import FormatError
from groundglass.io.dicom_files import file_opener, files_below, read_header
from groundglass.io.dicom_grid import count_places, is_even_stack
from groundglass.io.dicom_header import DicomInstance, silence_pydicom, text_value
from groundglass.io.dicom_series import find_series

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
def look_into(folder: Path) -> DicomFolder:
    """Describe a folder of DICOM by the header of its first image."""
    try:
        files, _ = files_below(folder)
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


@silence_pydicom()
def folders_of_one_series(parent: Path, folders: Sequence[DicomFolder]) -> Sequence[DicomFolder]:
    """Return the folders that hold parts of the series that is chosen in their parent; none if it lies in one alone.

    If the series of two folders agree, or the study of several files with a folder each, the headers of all are read.
    Parts have to form one even stack that is larger than each of them; slices with a folder each may have gaps, which
    are refused when the scan is read.
    """
    series = [folder.series for folder in folders if folder.series]
    studies = {folder.study for folder in folders}
    is_in_pieces = (
        len(folders) >= _FEWEST_SLICES
        and len(studies) == 1
        and studies != {()}
        and all(folder.file_count == 1 for folder in folders)
    )
    if len(set(series)) == len(series) and not is_in_pieces:
        return ()
    try:
        with find_series(parent) as listing:
            chosen = listing.series[0]
    except (FormatError, OSError):
        return ()
    parts = folders if is_in_pieces else [each for each in folders if each.series and each.series[-1] in chosen.uids]
    largest = max((part.file_count for part in parts), default=0)
    if len(parts) < 2 or len(chosen.slices) <= largest or count_places(chosen.slices) < len(chosen.slices):
        return ()
    return parts if largest == 1 or is_even_stack(chosen.slices) else ()
