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

from groundglass.batch.cases import Case, find_cases, shard
from groundglass.batch.records import AS_USUAL, Job, Record, Status, Wish, is_done
from groundglass.batch.summary import Summary, write_key
from groundglass.batch.work import Opener, hand_over
from groundglass.inference.segmenter import selected
from groundglass.report.findings import ModelRef
from groundglass.worker import Worker, cores

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

    job: Job
    cases: tuple[Case, ...]
    waiting: tuple[Case, ...]


class Tally:
    """How far a batch is: what the progress table shows."""

    def __init__(self, plan: Plan) -> None:
        self.total, self.skipped = len(plan.cases), len(plan.cases) - len(plan.waiting)
        self.ended: list[Record] = []
        self.running: dict[str, float] = {}
        self._begun = time.monotonic()

    @property
    def failed(self) -> list[Record]:
        """Those that are not done, whatever it was."""
        return [record for record in self.ended if record.status is not Status.DONE]

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
    wish: Wish = AS_USUAL,
    part: tuple[int, int] = (1, 1),
) -> Plan:
    """Find the cases, and what of them is left to do; what failed before is to be tried again.

    Args:
        source: A folder, a glob or a CSV: see `find_cases`.
        folder: Of the results. Gets `key.csv` where names of cases are made up.
        wish: How every case is to be done.
        part: The shard (i, n), from (1, n) to (n, n).

    Raises:
        InputError: There is no scan, or the CSV is not as it should be.
        ModelError: The model is missing or damaged.
        ConfigError: The folder was begun the other way, with or without identity.
        OutputError: The folder cannot be written.
    """
    _, card, _ = selected(wish.model, wish.engine)
    wish = replace(wish, model=wish.model.absolute() if wish.model else None)
    cases = find_cases(source, wish.with_identity)
    used = ModelRef(name=card.name, sha256=card.sha256)
    folder = folder.absolute()
    job = Job(folder, used, wish)
    Summary(folder, wish.with_identity)  # refuses a folder that was begun otherwise
    if not wish.with_identity:
        write_key(cases, folder)
    mine = shard(cases, part)
    return Plan(job, mine, tuple(case for case in mine if not is_done(case, job)))


def run(
    plan: Plan,
    tally: Tally,
    workers: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    said: Callable[[Record], None] = lambda _: None,
    opener: Callable[[], Callable[[Case], Record]] | None = None,
) -> None:
    """Do what is left to do, in processes of this machine, and keep the summary.

    However it ends, no process is left, and the same call goes on where it stopped.

    Args:
        plan: From `plan`.
        tally: Gets every case as it begins and ends.
        workers: Processes; the cores are shared among them.
        time_limit_s: For a case; its process is killed then, and replaced.
        said: Called with each record.
        opener: Loads what does a case, in each process; None: `Opener`.

    Raises:
        GroundglassError: The model cannot be loaded, or the results cannot be written.
    """
    summary, job = Summary(plan.job.folder, plan.job.wish.with_identity), plan.job
    workers = max(1, min(workers, len(plan.waiting)))
    threads = max(1, cores() // workers)
    pool = [Worker[Case, Record](opener or Opener(job, threads), time_limit_s, threads) for _ in range(workers)]
    free: queue.SimpleQueue[Worker[Case, Record]] = queue.SimpleQueue()
    for worker in pool:
        free.put(worker)

    def do(case: Case) -> Record:
        worker = free.get()
        tally.running[case.name] = time.monotonic()
        try:
            return hand_over(case, job, worker, time_limit_s)
        finally:
            tally.running.pop(case.name, None)
            free.put(worker)

    hands = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([hands.submit(do, case) for case in plan.waiting]):
            took(future.result(), tally, summary, said)
    finally:
        hands.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.close()
        hands.shutdown()
        summary.write()


def took(record: Record, tally: Tally, summary: Summary, said: Callable[[Record], None]) -> None:
    """Note that a case has ended."""
    tally.ended.append(record)
    summary.write(at_once=False)
    said(record)


def in_words(record: Record) -> str:
    """A case's line: its name, and how it ended."""
    if record.numbers is None:
        return f"{record.case}: {record.status}: {record.reason}"
    ml, percent = record.numbers.lesion_ml, record.numbers.lesion_percent
    told = [f"lesion {ml:.1f} ml"] if ml is not None else []
    told += [f"{percent:.1f} % of the lung"] if percent is not None else []
    return f"{record.case}: {', '.join([*told, f'{record.seconds:.1f} s'])}"


def progress_table(tally: Tally) -> Table:
    """Counts, what is running and for how long, and the last failures."""
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(tally.line))
    now = time.monotonic()
    for name, since in list(tally.running.items()):
        table.add_row(Text(f"  {name}  {now - since:.0f} s"))
    for record in tally.failed[-_LAST_FAILURES:]:
        table.add_row(Text(f"  {in_words(record)}", style="red"))
    return table


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
