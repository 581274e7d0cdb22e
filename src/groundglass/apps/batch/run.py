"""Plan a batch, and run it in worker processes on this machine."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from groundglass.apps.batch.items import BatchItem, find_items, select_shard
from groundglass.apps.batch.processing import BatchWorkerFactory, process_in_worker
from groundglass.apps.batch.records import (
    DEFAULT_BATCH_OPTIONS,
    RECORDS,
    BatchOptions,
    BatchSettings,
    ItemRecord,
    ItemStatus,
    is_done,
)
from groundglass.apps.batch.summary import OVERVIEW, SUMMARY, Summary, write_key
from groundglass.inference.open_model import resolve_model
from groundglass.plain_text import first_names, printable
from groundglass.report.amounts import format_ml, format_number
from groundglass.report.findings import ModelRef
from groundglass.report.results_folder import refuse_other_results
from groundglass.workers import Worker, available_cores

TIME_LIMIT_S = 600.0
_LAST_FAILURES = 5
_MAX_LISTED = 10  # names in a note


@dataclass(frozen=True)
class BatchPlan:
    """The items that a call of `batch` has to process.

    Attributes:
        settings: Settings of the batch.
        items: All items of this call: the whole batch, or a shard of it.
        pending: Those that are not done yet.
        notes: What was assumed about the source, for the user.
    """

    settings: BatchSettings
    items: tuple[BatchItem, ...]
    pending: tuple[BatchItem, ...]
    notes: tuple[str, ...] = ()


class BatchProgress:
    """Progress of a batch.

    Attributes:
        total: Number of items of this call.
        skipped: Number of items that were done before.
        finished: Records of the items that ended in this call, done or not.
        running: {name: time at which its processing began, by `time.monotonic`}.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self.total, self.skipped = len(plan.items), len(plan.items) - len(plan.pending)
        self.finished: list[ItemRecord] = []
        self.running: dict[str, float] = {}
        self._begun = time.monotonic()

    @property
    def failed(self) -> list[ItemRecord]:
        """Records of the items that failed or timed out."""
        return [record for record in self.finished if record.status is not ItemStatus.DONE]

    @property
    def line(self) -> str:
        """Counts, rate and time left, on one line."""
        done = len(self.finished) - len(self.failed)
        text = f"{done + self.skipped} of {self.total} done"
        text += f" ({self.skipped} before)" if self.skipped else ""
        text += f", {len(self.failed)} failed" if self.failed else ""
        if self.finished:
            seconds_per_item = (time.monotonic() - self._begun) / len(self.finished)
            remaining = self.total - self.skipped - len(self.finished)
            text += f", {3600 / seconds_per_item:.0f} an hour"
            text += f", {_format_duration(remaining * seconds_per_item)} left" if remaining else ""
        return text


def plan_batch(
    source: str | Sequence[Path],
    folder: Path,
    options: BatchOptions = DEFAULT_BATCH_OPTIONS,
    shard: tuple[int, int] = (1, 1),
) -> BatchPlan:
    """Find the scans of a batch, and which of them are not done yet. Those that failed before are tried again.

    Args:
        source: A folder, a glob, a CSV, or paths: see `find_items`.
        folder: Folder of the results. Gets a `key.csv` if the items have pseudonyms.
        options: Options of the batch.
        shard: The shard (i, n), from (1, n) to (n, n).

    Raises:
        InputError: No scan is found, or the CSV is malformed.
        ModelError: The model is missing or damaged.
        ConfigError: The folder was begun with pseudonyms and these options are without, or the other way round.
        OutputError: The folder cannot be written, or holds results of another command.
    """
    refuse_other_results(folder, "batch")
    _, card, _ = resolve_model(options.model, options.engine)
    options = replace(options, model=options.model.absolute() if options.model else None)
    notes: list[str] = []
    items = find_items(source, options.pseudonyms, notes.append)
    settings = BatchSettings(folder.absolute(), ModelRef(name=card.name, sha256=card.sha256), options, card.rules)
    summary = Summary(settings.folder, options.pseudonyms)  # raises the ConfigError
    if others := summary.names - {item.name for item in items}:
        notes.append(_note_on_others(sorted(others)))
    if options.pseudonyms:
        write_key(items, settings.folder)
    selected = select_shard(items, shard)
    return BatchPlan(settings, selected, tuple(item for item in selected if not is_done(item, settings)), tuple(notes))


def _note_on_others(names: Sequence[str]) -> str:
    """Describe cases that an earlier call left, and that the source does not hold now, as after it was renamed."""
    cases_are = "1 case is" if len(names) == 1 else f"{len(names)} cases are"
    return (
        f"{cases_are} not in the source now, but still in {SUMMARY} and {OVERVIEW}: {first_names(names, _MAX_LISTED)}; "
        f"to leave out a case, remove its file in {RECORDS}"
    )


def run_batch(
    plan: BatchPlan,
    progress: BatchProgress,
    workers: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    on_record: Callable[[ItemRecord], None] = lambda _: None,
    worker_factory: Callable[[], Callable[[BatchItem], ItemRecord]] | None = None,
) -> None:
    """Process the pending items in worker processes on this machine, and keep the summary up to date.

    However it ends, no process is left running, and the same call resumes the batch.

    Args:
        plan: From `plan_batch`.
        progress: Updated whenever the processing of an item begins or ends.
        workers: Number of processes; the CPU cores are shared among them.
        time_limit_s: Time limit for an item, in seconds; a process that exceeds it is killed and replaced.
        on_record: Called with each new record.
        worker_factory: Called in each process, returns the function that processes an item; None for
            `BatchWorkerFactory`.

    Raises:
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    settings = plan.settings
    summary = Summary(settings.folder, settings.options.pseudonyms)
    count = max(1, min(workers, len(plan.pending)))
    threads = max(1, available_cores() // count)
    worker_factory = worker_factory or BatchWorkerFactory(settings, threads)
    pool = [Worker[BatchItem, ItemRecord](worker_factory, time_limit_s, threads) for _ in range(count)]
    idle: queue.SimpleQueue[Worker[BatchItem, ItemRecord]] = queue.SimpleQueue()
    for worker in pool:
        idle.put(worker)

    def process(item: BatchItem) -> ItemRecord:
        worker = idle.get()
        progress.running[item.name] = time.monotonic()
        try:
            return process_in_worker(item, settings, worker, time_limit_s)
        finally:
            progress.running.pop(item.name, None)
            idle.put(worker)

    threads_of_workers = ThreadPoolExecutor(count)  # each waits for the answer of one worker
    try:
        for future in as_completed([threads_of_workers.submit(process, item) for item in plan.pending]):
            record_result(future.result(), progress, summary, on_record)
    finally:
        threads_of_workers.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.close()
        threads_of_workers.shutdown()
        summary.write()


def record_result(
    record: ItemRecord, progress: BatchProgress, summary: Summary, on_record: Callable[[ItemRecord], None]
) -> None:
    """Add the record of an item to the progress and, from time to time, to the summary."""
    progress.finished.append(record)
    summary.write_if_due()
    on_record(record)


def describe_record(record: ItemRecord) -> str:
    """Describe on one line how an item ended."""
    if record.numbers is None:
        return f"{record.case}: {record.status}: {record.reason}"
    ml, percent = record.numbers.lesion_ml, record.numbers.lesion_percent
    parts = [f"lesion {format_ml(ml)} ml"] if ml is not None else []
    parts += [f"{format_number(percent)} % of the lung"] if percent is not None else []
    return f"{record.case}: {', '.join([*parts, f'{record.seconds:.1f} s'])}"


def progress_table(progress: BatchProgress) -> Table:
    """Make a table of the counts, the running items with their times, and the last failures."""
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(progress.line))
    now = time.monotonic()
    for name, since in list(progress.running.items()):
        table.add_row(Text(f"  {name}  {now - since:.0f} s"))
    for record in progress.failed[-_LAST_FAILURES:]:
        table.add_row(Text(f"  {printable(describe_record(record))}", style="red"))
    return table


def _format_duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
