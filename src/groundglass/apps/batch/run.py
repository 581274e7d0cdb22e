"""A batch as a whole: what is to be done, and its workers on this machine."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from groundglass.apps.batch.items import BatchItem, find_items, shard
from groundglass.apps.batch.processing import BatchWorkerFactory, hand_over
from groundglass.apps.batch.records import (
    DEFAULT_BATCH_OPTIONS,
    BatchOptions,
    BatchSettings,
    CaseRecord,
    CaseStatus,
    is_done,
)
from groundglass.apps.batch.summary import Summary, write_key
from groundglass.inference.open_model import resolve_model
from groundglass.report.findings import ModelRef
from groundglass.workers import Worker, cores

TIME_LIMIT_S = 600.0
_LAST_FAILURES = 5


@dataclass(frozen=True)
class Plan:
    """What a call of `batch` is to do.

    Attributes:
        job: What is asked of every case.
        cases: Those of this call: all, or a shard of them.
        waiting: Those that are not done yet.
    """

    settings: BatchSettings
    cases: tuple[BatchItem, ...]
    waiting: tuple[BatchItem, ...]


class BatchProgress:
    """How far a batch is: what the progress table shows."""

    def __init__(self, plan: Plan) -> None:
        self.total, self.skipped = len(plan.cases), len(plan.cases) - len(plan.waiting)
        self.ended: list[CaseRecord] = []
        self.running: dict[str, float] = {}
        self._begun = time.monotonic()

    @property
    def failed(self) -> list[CaseRecord]:
        """Those that are not done, whatever it was."""
        return [record for record in self.ended if record.status is not CaseStatus.DONE]

    @property
    def line(self) -> str:
        """One line for a person: counts, rate, time left."""
        done = len(self.ended) - len(self.failed)
        text = f"{done + self.skipped} of {self.total} done"
        text += f" ({self.skipped} before)" if self.skipped else ""
        text += f", {len(self.failed)} failed" if self.failed else ""
        if self.ended:
            each_s = (time.monotonic() - self._begun) / len(self.ended)
            left = self.total - self.skipped - len(self.ended)
            text += f", {3600 / each_s:.0f} an hour" + (f", {_duration(left * each_s)} left" if left else "")
        return text


def plan(
    source: str,
    folder: Path,
    options: BatchOptions = DEFAULT_BATCH_OPTIONS,
    part: tuple[int, int] = (1, 1),
) -> Plan:
    """Find the cases, and what of them is left to do; what failed before is to be tried again.

    Args:
        source: A folder, a glob or a CSV: see `find_items`.
        folder: Of the results. Gets `key.csv` where names of cases are made up.
        wish: How every case is to be done.
        part: The shard (i, n), from (1, n) to (n, n).

    Raises:
        InputError: There is no scan, or the CSV is not as it should be.
        ModelError: The model is missing or damaged.
        ConfigError: The folder was begun the other way, with or without identity.
        OutputError: The folder cannot be written.
    """
    _, card, _ = resolve_model(options.model, options.engine)
    options = replace(options, model=options.model.absolute() if options.model else None)
    cases = find_items(source, options.with_identity)
    used = ModelRef(name=card.name, sha256=card.sha256)
    folder = folder.absolute()
    settings = BatchSettings(folder, used, options)
    Summary(folder, options.with_identity)  # refuses a folder that was begun otherwise
    if not options.with_identity:
        write_key(cases, folder)
    mine = shard(cases, part)
    return Plan(settings, mine, tuple(case for case in mine if not is_done(case, settings)))


def run(
    plan: Plan,
    progress: BatchProgress,
    workers: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    on_record: Callable[[CaseRecord], None] = lambda _: None,
    opener: Callable[[], Callable[[BatchItem], CaseRecord]] | None = None,
) -> None:
    """Do what is left to do, in processes of this machine, and keep the summary.

    However it ends, no process is left, and the same call goes on where it stopped.

    Args:
        plan: From `plan`.
        tally: Gets every case as it begins and ends.
        workers: Processes; the cores are shared among them.
        time_limit_s: For a case; its process is killed then, and replaced.
        said: Called with each record.
        opener: Loads what does a case, in each process; None: `BatchWorkerFactory`.

    Raises:
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    summary, settings = Summary(plan.settings.folder, plan.settings.options.with_identity), plan.settings
    workers = max(1, min(workers, len(plan.waiting)))
    threads = max(1, cores() // workers)
    pool = [
        Worker[BatchItem, CaseRecord](opener or BatchWorkerFactory(settings, threads), time_limit_s, threads)
        for _ in range(workers)
    ]
    free: queue.SimpleQueue[Worker[BatchItem, CaseRecord]] = queue.SimpleQueue()
    for worker in pool:
        free.put(worker)

    def do(case: BatchItem) -> CaseRecord:
        worker = free.get()
        progress.running[case.name] = time.monotonic()
        try:
            return hand_over(case, settings, worker, time_limit_s)
        finally:
            progress.running.pop(case.name, None)
            free.put(worker)

    hands = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([hands.submit(do, case) for case in plan.waiting]):
            record_result(future.result(), progress, summary, on_record)
    finally:
        hands.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.close()
        hands.shutdown()
        summary.write()


def record_result(
    record: CaseRecord, progress: BatchProgress, summary: Summary, on_record: Callable[[CaseRecord], None]
) -> None:
    """Note that a case has ended."""
    progress.ended.append(record)
    summary.write(at_once=False)
    on_record(record)


def describe_record(record: CaseRecord) -> str:
    """A case's line: its name, and how it ended."""
    if record.numbers is None:
        return f"{record.case}: {record.status}: {record.reason}"
    ml, percent = record.numbers.lesion_ml, record.numbers.lesion_percent
    told = [f"lesion {ml:.1f} ml"] if ml is not None else []
    told += [f"{percent:.1f} % of the lung"] if percent is not None else []
    return f"{record.case}: {', '.join([*told, f'{record.seconds:.1f} s'])}"


def progress_table(progress: BatchProgress) -> Table:
    """Counts, what is running and for how long, and the last failures."""
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(progress.line))
    now = time.monotonic()
    for name, since in list(progress.running.items()):
        table.add_row(Text(f"  {name}  {now - since:.0f} s"))
    for record in progress.failed[-_LAST_FAILURES:]:
        table.add_row(Text(f"  {describe_record(record)}", style="red"))
    return table


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
