"""Process one item of a batch: from its source to its folder of results and its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from groundglass.apps.batch.items import BatchItem, deidentify_message
from groundglass.apps.batch.records import (
    BatchOptions,
    BatchSettings,
    ItemRecord,
    ItemStatus,
    is_made_alike,
    item_lock,
    key_numbers,
    make_record,
    read_record,
    remove_results,
    write_record,
)
from groundglass.errors import OUT_OF_MEMORY, GroundglassError, OccupiedError, OutputError, origin
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_header import shallow_copy
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.plain_text import in_unicode
from groundglass.report.analysis import Analysis, segment
from groundglass.scan.scan import ImageStack, Scan
from groundglass.workers import TimeLimitError, Worker, WorkerClosedError, WorkerDiedError


@dataclass(frozen=True)
class BatchWorkerFactory:
    """Creates the function that processes an item, with the model loaded; called once in each worker process.

    Attributes:
        settings: Settings of the batch.
        threads: CPU threads of the engine.
    """

    settings: BatchSettings
    threads: int

    def __call__(self) -> Callable[[BatchItem], ItemRecord]:
        """Load the model.

        Raises:
            ModelError: The model is missing or damaged.
            EngineError: No engine on this machine can run the model.
        """
        config = replace(self.settings.options.engine, threads=self.threads)
        return partial(process_item, settings=self.settings, segmenter=open_model(self.settings.options.model, config))


def process_item(item: BatchItem, settings: BatchSettings, segmenter: Segmenter) -> ItemRecord:
    """Segment a scan, and write its results and its record. If it fails, the record states the reason.

    Raises:
        OutputError: The results cannot be written. This ends the batch, since the next scan would fail too; not if
            files of others lie where those of this scan belong.
    """
    begun, fingerprint = time.monotonic(), item.fingerprint
    with item_lock(settings.folder, item.name):
        remove_results(settings.folder, item.name)
    try:
        options = settings.options
        scan = read_scan(item.source, dicom=DicomOptions(series=item.series, with_identity=options.with_identity))
        scan = _undated(scan) if options.pseudonyms else scan
        analysis = segment(scan, segmenter, options.intensity, with_identity=options.with_identity, label=item.name)
        if options.pseudonyms:
            analysis = replace(analysis, segmented=replace(analysis.segmented, scan=_anonymous(scan)))
        with item_lock(settings.folder, item.name):
            return _save(analysis, item, settings, begun, fingerprint)
    except Exception as error:  # one bad scan must not end the batch
        if isinstance(error, OutputError) and not isinstance(error, OccupiedError):
            raise
        reason = _failure_reason(error, item, settings.options)
        record = make_record(item, settings, ItemStatus.FAILED, time.monotonic() - begun, fingerprint, reason)
        return _without_results(record, settings.folder)


def _save(analysis: Analysis, item: BatchItem, settings: BatchSettings, begun: float, fingerprint: str) -> ItemRecord:
    """Write results and record of an item whose lock is held."""
    target = settings.folder / item.name
    files = tuple(path.relative_to(target).as_posix() for path in analysis.save(target))
    left_out = analysis.dicom_results.left_out
    record = make_record(item, settings, ItemStatus.DONE, time.monotonic() - begun, fingerprint, left_out)
    record = record.model_copy(update={"files": files, "numbers": key_numbers(analysis.saved_findings)})
    write_record(record, settings.folder)
    return record


def process_in_worker(
    item: BatchItem, settings: BatchSettings, worker: Worker[BatchItem, ItemRecord], time_limit_s: float
) -> ItemRecord:
    """Process an item in a worker; if the worker dies or takes too long, write the record in its place.

    Raises:
        WorkerClosedError: The worker was closed meanwhile; no partial results are left.
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    begun = time.monotonic()
    with item_lock(settings.folder, item.name):
        remove_results(settings.folder, item.name)  # so that a record found afterwards is the one of this attempt
    try:
        return worker.run(item)
    except TimeLimitError:
        status, reason = ItemStatus.TIMED_OUT, f"took more than {time_limit_s:g} s: give it more with --time-limit"
    except WorkerDiedError as error:
        status, reason = ItemStatus.FAILED, f"its process died twice ({error}): out of memory, or a crash on this scan"
    except (WorkerClosedError, GroundglassError):
        _finished_record(item, settings)
        raise
    record = _finished_record(item, settings)
    return record or record_loss(item, settings, status, time.monotonic() - begun, reason)


def record_loss(
    item: BatchItem, settings: BatchSettings, status: ItemStatus, seconds: float, reason: str
) -> ItemRecord:
    """Write the record of an item whose process died or was killed before it could."""
    return _without_results(make_record(item, settings, status, seconds, item.fingerprint, reason), settings.folder)


def _without_results(record: ItemRecord, folder: Path) -> ItemRecord:
    """Write the record of an item that failed; results that another batch wrote meanwhile do not stay beside it."""
    with item_lock(folder, record.case):
        remove_results(folder, record.case)
        write_record(record, folder)
    return record


def _finished_record(item: BatchItem, settings: BatchSettings) -> ItemRecord | None:
    """Return the record if the worker had just finished before it died; otherwise remove its partial results."""
    with item_lock(settings.folder, item.name):
        record = read_record(settings.folder, item.name)
        if record is None:
            remove_results(settings.folder, item.name)
    return record if record is not None and is_made_alike(record, settings) else None


def _undated(scan: Scan) -> Scan:
    """Remove the dates of a DICOM scan, which could identify it, from the header that findings take them from."""
    if scan.series is None:
        return scan
    first = shallow_copy(scan.series.headers[0])
    for keyword in first.dir("Date", "DateTime"):
        del first[keyword]
    return replace(scan, series=replace(scan.series, headers=(first, *scan.series.headers[1:])))


def _anonymous(scan: Scan) -> Scan:
    """Remove what would identify the scan in its results: DICOM headers, and the file names of images."""
    if isinstance(scan, ImageStack) and scan.names and scan.source and scan.names != (scan.source.name,):
        return replace(scan, names=tuple(f"slice-{number:04}" for number in range(1, len(scan.names) + 1)))
    return replace(scan, series=None)


def _failure_reason(error: Exception, item: BatchItem, options: BatchOptions) -> str:
    """Describe on one line why an item failed; with pseudonyms nothing in the line names the source."""
    if isinstance(error, GroundglassError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = OUT_OF_MEMORY
    elif options.with_identity:
        text = f"{origin(error)}: {error}".removesuffix(": ")
    else:
        text = origin(error)  # without the message of a library, which may quote a header
    text = " ".join(in_unicode(text).split())  # a record holds no bytes of a folder's name
    return deidentify_message(text, item) if options.pseudonyms else text
