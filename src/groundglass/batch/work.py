"""One case: from its source to its folder of results and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from groundglass.analysis import save, segment
from groundglass.batch.cases import Case, scrubbed
from groundglass.batch.records import (
    Job,
    Record,
    Status,
    forget,
    numbers_of,
    put_in_place,
    read_record,
    record_of,
    staging,
    write_record,
)
from groundglass.errors import GroundglassError, OutputError, origin
from groundglass.inference.segmenter import Segmenter
from groundglass.scan.reader import read_scan
from groundglass.scan.scan import Scan
from groundglass.worker import ClosedError, LostError, TimeLimitError, Worker


@dataclass(frozen=True)
class Opener:
    """Loads the model, once in each process; what it returns does a case.

    Attributes:
        job: What is asked.
        threads: That the engine computes with.
    """

    job: Job
    threads: int

    def __call__(self) -> Callable[[Case], Record]:
        """Load the model.

        Raises:
            ModelError: It is missing or damaged.
            EngineError: No engine can run it here.
        """
        config = replace(self.job.wish.engine, threads=self.threads)
        return partial(do_case, job=self.job, segmenter=Segmenter.load(self.job.wish.model, config))


def do_case(case: Case, job: Job, segmenter: Segmenter) -> Record:
    """Segment a case and write its results and its record; whatever it fails of becomes the record's reason.

    Raises:
        OutputError: The results cannot be written, which is not the case's fault.
    """
    begun, fingerprint = time.monotonic(), case.fingerprint
    forget(job.folder, case.name)
    try:
        scan = read_scan(case.source)
        analysis = segment(scan, segmenter, job.wish.intensity, with_identity=job.wish.with_identity)
        if not job.wish.with_identity:
            analysis = replace(analysis, scan=_unnamed(scan))
        hidden = staging(job.folder, case.name)
        files = tuple(path.relative_to(hidden).as_posix() for path in save(analysis, hidden))
        put_in_place(files, job.folder, case.name)
    except OutputError:
        raise
    except Exception as error:  # one bad case is never the end of the others
        reason = _reason(error, case, job.wish.with_identity)
        record = record_of(case, job, Status.FAILED, time.monotonic() - begun, fingerprint, reason)
    else:
        record = record_of(case, job, Status.DONE, time.monotonic() - begun, fingerprint, None)
        record = record.model_copy(update={"files": files, "numbers": numbers_of(analysis.findings)})
    write_record(record, job.folder)
    return record


def hand_over(case: Case, job: Job, worker: Worker[Case, Record], time_limit_s: float) -> Record:
    """Have a worker do a case, and write its record where the worker did not live to do it.

    Raises:
        ClosedError: The worker was closed meanwhile; nothing half-done is left.
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    begun = time.monotonic()
    forget(job.folder, case.name)
    try:
        return worker.ask(case)
    except TimeLimitError:
        status, reason = Status.TIMED_OUT, f"took more than {time_limit_s:g} s: give it more with --time-limit"
    except LostError as error:
        status, reason = Status.FAILED, f"its process died twice ({error}): out of memory, or a crash on this scan"
    except (ClosedError, GroundglassError):
        _sweep(case, job)
        raise
    return _sweep(case, job) or lost(case, job, status, time.monotonic() - begun, reason)


def lost(case: Case, job: Job, status: Status, seconds: float, reason: str) -> Record:
    """Write the record of a case whose process could not."""
    record = record_of(case, job, status, seconds, case.fingerprint, reason)
    write_record(record, job.folder)
    return record


def _sweep(case: Case, job: Job) -> Record | None:
    """Take away what a dead process left, unless its last deed was to finish: then its record."""
    record = read_record(job.folder, case.name)
    if record is None:
        forget(job.folder, case.name)
    return record


def _unnamed(scan: Scan) -> Scan:
    """The scan without what would name it in its results: a DICOM header, the file names of pictures."""
    names = scan.names
    if names is not None and scan.source is not None and names != (scan.source.name,):
        names = tuple(f"slice-{number:04}" for number in range(1, len(names) + 1))
    return replace(scan, series=None, names=names)


def _reason(error: Exception, case: Case, with_identity: bool) -> str:
    """Why a case failed, on one line; without identity nothing in it names the source."""
    told = isinstance(error, GroundglassError)
    text = str(error) if told or with_identity else ""  # what libraries say may quote a header
    if not told:
        text = f"{origin(error)}{': ' if text else ''}{text}"
    text = " ".join(text.split())
    return text if with_identity else scrubbed(text, case)
