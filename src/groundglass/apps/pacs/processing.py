"""Segment a series in the worker process: from its instances in the spool to the results beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import dcmread

from groundglass.apps.pacs.ledger import short_uid
from groundglass.errors import OUT_OF_MEMORY, FormatError, GroundglassError, InputError, OutputError, origin
from groundglass.files import staged_folder
from groundglass.inference.open_model import open_with_lungs
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_header import silence_pydicom
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.report.dicom_results import SEG_FILE
from groundglass.workers import MemoryLimitError

_LONG_UID = re.compile(r"\d+(?:\.\d+){4,}")


@dataclass(frozen=True)
class SeriesTask:
    """A series to be segmented.

    Attributes:
        study_uid: Study instance UID, as the server states it: the study into which the results are stored.
        series_uid: Series instance UID.
        source: Folder of its instances.
        results: Folder to create for its results.
    """

    study_uid: str
    series_uid: str
    source: Path
    results: Path


@dataclass(frozen=True)
class SegmentationResult:
    """The answer of the worker to a `SeriesTask`.

    Attributes:
        uids: SOP instance UIDs of the results.
        name: What people call the series: number, kernel, number and distance of slices.
        notes: What was filled in or left out in the results.
        internal_error: Type and line of an unforeseen error; None if there was none.
    """

    uids: tuple[str, ...] = ()
    name: str = ""
    notes: tuple[str, ...] = ()
    internal_error: str | None = None


@dataclass(frozen=True)
class WatchWorkerFactory:
    """Creates the function that segments a series, with the model loaded; called once in the worker process.

    Attributes:
        model: ONNX file; None for the bundled model.
    """

    model: Path | None

    def __call__(self) -> Callable[[SeriesTask], SegmentationResult]:
        """Load the model and the lung network.

        Raises:
            ModelError: The model is missing or damaged.
            EngineError: No engine on this machine can run the model.
        """
        return partial(segment_series, segmenter=open_with_lungs(self.model))


def segment_series(task: SeriesTask, segmenter: Segmenter) -> SegmentationResult:
    """Segment a series and write its results: all of them, or none.

    Raises:
        InputError: The series is refused.
        MemoryLimitError: There is not enough memory for it, at present or at all.
        OutputError: The results cannot be written, or what was retrieved is gone.
    """
    if not task.source.is_dir():
        raise OutputError("the retrieved images are no longer in the spool: they are retrieved again")
    try:
        scan = read_scan(task.source, task.series_uid)
        if scan.series is None:
            raise FormatError("the series holds no DICOM images, expected a CT: send it again")
        try:
            analysis = segment(scan, segmenter)
        except InputError as error:
            raise type(error)(f"series {scan.series.name}: {error}") from None
        uids = _write(analysis, task)
        return SegmentationResult(uids, scan.series.name, analysis.dicom_results.warnings)
    except GroundglassError:
        raise
    except MemoryError:
        raise MemoryLimitError(OUT_OF_MEMORY) from None
    except Exception as error:  # what libraries say may quote a header
        return SegmentationResult(internal_error=f"{origin(error)}, an internal error of groundglass")


def _write(analysis: Analysis, task: SeriesTask) -> tuple[str, ...]:
    """Write the results into a folder that appears when they are complete and on the disk; return their UIDs.

    Raises:
        FormatError: There can be no Segmentation, for whose sake the series is processed, or none in its study.
    """
    results = analysis.dicom_results
    if SEG_FILE not in results.files:
        raise FormatError(f"{results.left_out}")
    with staged_folder(task.results) as staging:
        files = [staging / name for name in results.files]
        for file in files:
            file.write_bytes(results.files[file.name])
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())  # before the ledger notes that they exist
        if {_read_uid(file, "StudyInstanceUID") for file in files} != {task.study_uid}:
            raise FormatError(
                "its images state another StudyInstanceUID than the server does, so that no result can be stored into "
                "its study: correct the study in the PACS"
            )
        return tuple(map(read_instance_uid, files))


def read_instance_uid(file: Path) -> str:
    """Read the SOP instance UID of a result."""
    return _read_uid(file, "SOPInstanceUID")


def _read_uid(file: Path, keyword: str) -> str:
    with silence_pydicom():
        return str(dcmread(file, specific_tags=[keyword])[keyword].value)


def short_message(error: Exception) -> str:
    """Return an error's message on one line, with UIDs cut to their end."""
    return _LONG_UID.sub(lambda uid: short_uid(uid[0]), " ".join(str(error).split()))
