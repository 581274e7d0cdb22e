"""The trainings of a study, one after another or side by side, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.table import Column, Table

from groundglass.data.prepared import read_manifest
from groundglass.errors import GroundglassError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.tables import percent, slices_csv
from groundglass.evaluation.targets import find_targets
from groundglass.files import write_atomic
from groundglass.metrics import Confusion
from groundglass.training.callbacks import read_metrics
from groundglass.training.export import open_run_segmenter
from groundglass.training.run import is_finished, resume_or_train
from groundglass.training.study.plan import TrainingJob
from groundglass.training.study.results import read_counts

UNSCORED = "trained; copy its folder to where the original files are, and call study there to score it"


def run_job(job: TrainingJob, prepared: Path) -> None:
    """Train, or go on where it was left, then score the test part into `test.csv`; what is done is checked and kept.

    Where none of the original files is at hand, as on a borrowed GPU, the scoring is left for another call.

    Raises:
        GroundglassError: The training could not go on, or the run folder holds another one.
    """
    resume_or_train(job.config, prepared, job.split, job.run, job.start, job.teachers)
    if not job.done and any(case.image.is_file() for case in read_manifest(prepared).cases):
        evaluation = evaluate(find_targets(prepared, split=job.split), open_run_segmenter(job.run))
        write_atomic(job.run / "test.csv", slices_csv(evaluation).encode())


def run_jobs(
    jobs: Sequence[TrainingJob],
    prepared: Path,
    failed: dict[Path, str],
    workers: int = 1,
    on_message: Callable[[TrainingJob, str], None] = lambda *_: None,
) -> None:
    """Run all jobs, the first ones first, after what they build on; one that fails does not keep others from running.

    What a job prints goes to `log.txt` in its run folder.

    Args:
        jobs: In the order of their weight.
        prepared: A prepared folder.
        failed: Gets {run folder: why it failed}.
        workers: How many at a time; the cores are shared among them.
        said: Called with each job as it ends, and how it did.
    """
    threads = max(1, torch.get_num_threads() // workers)
    waiting = list(jobs)
    while waiting:
        later = {job.run for job in waiting}
        ready = [job for job in waiting if not job.parents & later]
        waiting = [job for job in waiting if job.parents & later]
        wanted = [job for job in ready if not _is_over(job, prepared, on_message)]
        # A fresh process for each: what a training leaves behind (memory, seeds, a log) is of no other's concern.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1)
        try:
            begun = {pool.submit(_in_its_process, job, prepared, threads): job for job in wanted}
            for future in as_completed(begun):
                _hear(future, begun[future], failed, on_message)
        finally:
            pool.shutdown(cancel_futures=True)


def _is_over(job: TrainingJob, prepared: Path, on_message: Callable[[TrainingJob, str], None]) -> bool:
    """Whether nothing is left to do; where that cannot be told, the job's own process fails and says why."""
    try:
        over = job.done and is_finished(job.config, prepared, job.split, job.run, job.start, job.teachers)
        if over:
            on_message(job, _outcome(job))
    except (GroundglassError, OSError):
        return False
    return over


def _hear(
    future: Future[None], job: TrainingJob, failed: dict[Path, str], on_message: Callable[[TrainingJob, str], None]
) -> None:
    try:
        future.result()
        on_message(job, _outcome(job))
    except (GroundglassError, OSError) as error:
        failed[job.run] = str(error)
        on_message(job, f"failed: {error}")
    except BrokenProcessPool:
        failed[job.run] = "a process of the study was killed (out of memory?); call it again to go on"
        on_message(job, f"failed: {failed[job.run]}")


def _outcome(job: TrainingJob) -> str:
    return f"Dice {percent(_pooled(job.run).dice)}" if job.done else UNSCORED


def _in_its_process(job: TrainingJob, prepared: Path, threads: int) -> None:
    job.run.mkdir(parents=True, exist_ok=True)
    log = os.open(job.run / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    torch.set_num_threads(threads)
    run_job(job, prepared)


def _pooled(run: Path) -> Confusion:
    counts = read_counts(run)
    return Confusion(*counts.of[counts.has_lesion].sum(0).tolist())


def progress_table(jobs: Sequence[TrainingJob], failed: Mapping[Path, str] = {}) -> Table:
    """A row a job, as the run folders have it at this moment."""
    table = Table(Column("row", overflow="fold"), "protocol", "seed", "epoch", "Dice: valid.", "test", "")
    for job in jobs:
        epochs = read_metrics(job.run / "metrics.csv")
        validation = epochs[-1].get("validation_dice") if epochs else None
        table.add_row(
            job.row,
            job.protocol,
            str(job.seed),
            f"{len(epochs)} of {job.config.training.epochs}",
            percent(float(validation)) if validation else "-",
            percent(_pooled(job.run).dice) if job.done else "-",
            _word(job, epochs, failed),
        )
    return table


def _word(job: TrainingJob, epochs: Sequence[Mapping[str, str]], failed: Mapping[Path, str]) -> str:
    if job.run in failed:
        return f"failed: {failed[job.run]}"
    if job.done:
        return "done"
    if (job.run / "result.json").is_file():
        return "to be scored"
    if not job.run.is_dir():
        return ""
    if not epochs:
        return "begun"
    age = time.time() - (job.run / "metrics.csv").stat().st_mtime
    return "training" if age < 3 * float(epochs[-1]["seconds"]) + 60 else "to be gone on with"
