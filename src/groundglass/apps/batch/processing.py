"""One case: from its source to its folder of results and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from groundglass.apps.batch.items import BatchItem, scrubbed
from groundglass.apps.batch.records import (
    BatchSettings,
    CaseRecord,
    CaseStatus,
    forget,
    numbers_of,
    read_record,
    record_of,
    write_record,
)
from groundglass.errors import GroundglassError, OutputError, origin
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import save, segment
from groundglass.scan.scan import ImageStack, Scan
from groundglass.workers import ClosedError, LostError, TimeLimitError, Worker


@dataclass(frozen=True)
class BatchWorkerFactory:
    """Loads the model, once in each process; what it returns does a case.

    Attributes:
        job: What is asked.
        threads: That the engine computes with.
    """

    settings: BatchSettings
    threads: int

    def __call__(self) -> Callable[[BatchItem], CaseRecord]:
        """Load the model.

        Raises:
            ModelError: It is missing or damaged.
            EngineError: No engine can run it here.
        """
        config = replace(self.settings.options.engine, threads=self.threads)
        return partial(do_case, settings=self.settings, segmenter=open_model(self.settings.options.model, config))


def do_case(case: BatchItem, settings: BatchSettings, segmenter: Segmenter) -> CaseRecord:
    """Segment a case and write its results and its record; whatever it fails of becomes the record's reason.

    Raises:
        OutputError: The results cannot be written, which is not the case's fault.
    """
    begun, fingerprint = time.monotonic(), case.fingerprint
    forget(settings.folder, case.name)
    try:
        scan = read_scan(case.source)
        analysis = segment(scan, segmenter, settings.options.intensity, with_identity=settings.options.with_identity)
        if not settings.options.with_identity:
            analysis = replace(analysis, segmented=replace(analysis.segmented, scan=_anonymous(scan)))
        target = settings.folder / case.name
        files = tuple(path.relative_to(target).as_posix() for path in save(analysis, target))
    except OutputError:
        raise
    except Exception as error:  # one bad case is never the end of the others
        reason = _reason(error, case, settings.options.with_identity)
        record = record_of(case, settings, CaseStatus.FAILED, time.monotonic() - begun, fingerprint, reason)
    else:
        record = record_of(case, settings, CaseStatus.DONE, time.monotonic() - begun, fingerprint, None)
        record = record.model_copy(update={"files": files, "numbers": numbers_of(analysis.findings)})
    write_record(record, settings.folder)
    return record


def hand_over(
    case: BatchItem, settings: BatchSettings, worker: Worker[BatchItem, CaseRecord], time_limit_s: float
) -> CaseRecord:
    """Have a worker do a case, and write its record where the worker did not live to do it.

    Raises:
        ClosedError: The worker was closed meanwhile; nothing half-done is left.
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    begun = time.monotonic()
    forget(settings.folder, case.name)
    try:
        return worker.ask(case)
    except TimeLimitError:
        status, reason = CaseStatus.TIMED_OUT, f"took more than {time_limit_s:g} s: give it more with --time-limit"
    except LostError as error:
        status, reason = CaseStatus.FAILED, f"its process died twice ({error}): out of memory, or a crash on this scan"
    except (ClosedError, GroundglassError):
        _sweep(case, settings)
        raise
    return _sweep(case, settings) or lost(case, settings, status, time.monotonic() - begun, reason)


def lost(case: BatchItem, settings: BatchSettings, status: CaseStatus, seconds: float, reason: str) -> CaseRecord:
    """Write the record of a case whose process could not."""
    record = record_of(case, settings, status, seconds, case.fingerprint, reason)
    write_record(record, settings.folder)
    return record


def _sweep(case: BatchItem, settings: BatchSettings) -> CaseRecord | None:
    """Take away what a dead process left, unless its last deed was to finish: then its record."""
    record = read_record(settings.folder, case.name)
    if record is None:
        forget(settings.folder, case.name)
    return record


def _anonymous(scan: Scan) -> Scan:
    """The scan without what would identify it in its results: DICOM headers, and the file names of images."""
    if isinstance(scan, ImageStack) and scan.names and scan.source and scan.names != (scan.source.name,):
        return replace(scan, names=tuple(f"slice-{number:04}" for number in range(1, len(scan.names) + 1)))
    return replace(scan, series=None)


def _reason(error: Exception, case: BatchItem, with_identity: bool) -> str:
    """Why a case failed, on one line; without identity nothing in it names the source."""
    told = isinstance(error, GroundglassError)
    text = str(error) if told or with_identity else ""  # what libraries say may quote a header
    if not told:
        text = f"{origin(error)}{': ' if text else ''}{text}"
    text = " ".join(text.split())
    return text if with_identity else scrubbed(text, case)
