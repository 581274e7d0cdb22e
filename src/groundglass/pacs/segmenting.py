"""What the worker process does with a series: from the instances in the spool to the results beside them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import dcmread

from groundglass.analysis import Analysis, segment, write_dicom_results
from groundglass.errors import FormatError, GroundglassError, OutputError, origin
from groundglass.inference.segmenter import Segmenter
from groundglass.pacs.ledger import short
from groundglass.scan.dicom_find import quiet
from groundglass.scan.reader import read_scan
from groundglass.scan.scan import DicomSeries

_LONG = re.compile(r"\d+(?:\.\d+){4,}")


@dataclass(frozen=True)
class Task:
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
class Made:
    """The UIDs of a series' results; or why there are none, where nobody foresaw it."""

    uids: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class Opener:
    """Loads the model, once in each process; what it returns segments a series.

    Attributes:
        model: The ONNX file; None: the bundled one.
    """

    model: Path | None

    def __call__(self) -> Callable[[Task], Made]:
        """Load the model.

        Raises:
            ModelError: It is missing or damaged.
            EngineError: No engine can run it here.
        """
        return partial(segment_series, segmenter=Segmenter.load(self.model))


def segment_series(task: Task, segmenter: Segmenter) -> Made:
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
        return Made(_write(analysis, scan.series, task.results))
    except GroundglassError:
        raise
    except Exception as error:  # what libraries say may quote a header
        return Made(fault=f"{origin(error)}, a fault of groundglass")


def _write(analysis: Analysis, series: DicomSeries, folder: Path) -> tuple[str, ...]:
    """Write the results beside the place where they belong, and move them there when they are whole; their UIDs."""
    staged = folder.with_suffix(".part")
    try:
        shutil.rmtree(staged, ignore_errors=True)  # of a process that died
        staged.mkdir(mode=0o700)
        files = write_dicom_results(analysis, series, staged)
        for file in files:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())  # before the ledger says that they are there
        uids = tuple(instance_uid(file) for file in files)
        staged.rename(folder)
    except OSError as error:
        raise OutputError(f"the spool cannot be written: {error.strerror or error}; make room") from None
    return uids


def instance_uid(file: Path) -> str:
    """The SOP instance UID of a result."""
    with quiet():
        return str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def plain(error: Exception) -> str:
    """An error's message on one line, whole UIDs cut to their end."""
    return _LONG.sub(lambda found: short(found[0]), " ".join(str(error).split()))
