"""What the worker process does with a series: from the instances in the spool to the results beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import dcmread

from groundglass.apps.pacs.ledger import short
from groundglass.errors import FormatError, GroundglassError, origin
from groundglass.files import staged_folder
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_series import silence_pydicom
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.report.results_folder import write_dicom_results
from groundglass.scan.scan import DicomSeries

_LONG = re.compile(r"\d+(?:\.\d+){4,}")


@dataclass(frozen=True)
class SeriesTask:
    """A series to be segmented.

    Attributes:
        series_uid: Its UID.
        source: The folder of its instances.
        results: The folder to be made of its results.
    """

    series_uid: str
    source: Path
    results: Path


@dataclass(frozen=True)
class SegmentationResult:
    """The UIDs of a series' results; or why there are none, where nobody foresaw it."""

    uids: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class WatchWorkerFactory:
    """Loads the model, once in each process; what it returns segments a series.

    Attributes:
        model: The ONNX file; None: the bundled one.
    """

    model: Path | None

    def __call__(self) -> Callable[[SeriesTask], SegmentationResult]:
        """Load the model.

        Raises:
            ModelError: It is missing or damaged.
            EngineError: No engine can run it here.
        """
        return partial(segment_series, segmenter=open_model(self.model))


def segment_series(task: SeriesTask, segmenter: Segmenter) -> SegmentationResult:
    """Segment a series and write its results, all or nothing.

    Raises:
        InputError: The series is refused for what it is.
        OutputError: The results cannot be written.
    """
    try:
        scan = read_scan(task.source, task.series_uid)
        if scan.series is None:
            raise FormatError("the series holds no DICOM images, expected a CT: send it again")
        analysis = segment(scan, segmenter)
        return SegmentationResult(_write(analysis, scan.series, task.results))
    except GroundglassError:
        raise
    except Exception as error:  # what libraries say may quote a header
        return SegmentationResult(fault=f"{origin(error)}, a fault of groundglass")


def _write(analysis: Analysis, series: DicomSeries, folder: Path) -> tuple[str, ...]:
    """Write the results so that the folder appears when they are complete and on the disk; return their UIDs."""
    with staged_folder(folder) as staging:
        files = write_dicom_results(analysis.segmented, analysis.findings, analysis.card, series, staging)
        for file in files:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())  # before the ledger says that they are there
        return tuple(instance_uid(file) for file in files)


def instance_uid(file: Path) -> str:
    """The SOP instance UID of a result."""
    with silence_pydicom():
        return str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def plain(error: Exception) -> str:
    """An error's message on one line, whole UIDs cut to their end."""
    return _LONG.sub(lambda found: short(found[0]), " ".join(str(error).split()))
