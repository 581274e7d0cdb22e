"""The trainings of a study, one after another or several at a time, each in a process of its own."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch
from rich.table import Column, Table

from groundglass.data.prepared import read_manifest
from groundglass.errors import GroundglassError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.tables import percent, slices_csv
from groundglass.evaluation.targets import find_targets
from groundglass.files import output_errors, write_atomic
from groundglass.metrics import Confusion
from groundglass.training.callbacks import read_metrics
from groundglass.training.export import open_run_segmenter
from groundglass.training.run import finished_result, resume_or_train
from groundglass.training.study.plan import TrainingJob
from groundglass.training.study.results import read_counts
from groundglass.workers import Worker, WorkerDiedError

NOT_SCORED = "trained; to score it, copy its folder to where the original files are and call study there"


def run_job(job: TrainingJob, prepared: Path) -> None:
    """Train, or resume a training, then score the test part into `test.csv`; whatever is done is checked and kept.

    If none of the original files is at hand, as on a borrowed GPU, the scoring is left to a later call.

    Raises:
        GroundglassError: The training could not be completed, or the run folder holds another one.
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
    """Run all jobs in their order, but each after its parents; a job that fails does not stop the others.

    The output of a job is appended to `log.txt` in its run folder.

    Args:
        jobs: Jobs, the most important first.
        prepared: A prepared folder.
        failed: Receives {run folder: reason} for each job that fails.
        workers: Number of jobs that run at a time; they share the CPU cores.
        on_message: Called with each job when it ends, and its outcome.
    """
    threads = max(1, torch.get_num_threads() // workers)
    waiting = list(jobs)
    while waiting:
        unfinished = {job.run for job in waiting}
        ready = [job for job in waiting if not job.parents & unfinished]
        waiting = [job for job in waiting if job.parents & unfinished]
        # One process for each job, started with it, so that memory and seeds of one training never reach another.
        processes: dict[Path, Worker[TrainingJob, None]] = {}
        for job in ready:
            outcome = completed_outcome(job, prepared)
            if outcome is None:
                processes[job.run] = Worker(partial(_job_runner, prepared), threading.TIMEOUT_MAX, threads)
            else:
                on_message(job, outcome)
        pool = ThreadPoolExecutor(workers)
        try:
            futures = {
                pool.submit(_run_in_process, job, processes[job.run]): job for job in ready if job.run in processes
            }
            for future in as_completed(futures):
                job, error = futures[future], future.result()
                if error:
                    failed[job.run] = error
                on_message(job, f"failed: {error}" if error else _outcome(job))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes.values():
                process.close()


def _run_in_process(job: TrainingJob, process: Worker[TrainingJob, None]) -> str | None:
    """Run a job to its end in its process; return the reason if it fails."""
    try:
        process.run(job)
    except GroundglassError as error:
        return str(error)
    except WorkerDiedError as error:
        return f"its process ended ({error}; out of memory?): see {job.run / 'log.txt'}, then call study again"
    finally:
        process.close()
    return None


def _job_runner(prepared: Path) -> Callable[[TrainingJob], None]:
    """Return the function that runs a job inside its process."""

    def run(job: TrainingJob) -> None:
        with output_errors(job.run):
            job.run.mkdir(parents=True, exist_ok=True)
            log = os.open(job.run / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        try:
            run_job(job, prepared)
        finally:
            sys.stdout.flush()

    return run


def completed_outcome(job: TrainingJob, prepared: Path) -> str | None:
    """Return the outcome of a job that is trained and scored; None if anything is left to do.

    None is also returned if the run folder cannot be checked; the job's own process then fails and reports why.
    """
    try:
        if job.done and finished_result(job.config, prepared, job.split, job.run, job.start, job.teachers) is not None:
            return _outcome(job)
    except (GroundglassError, OSError):
        pass
    return None


def _outcome(job: TrainingJob) -> str:
    return f"Dice {percent(_lesion_slices(job.run).dice)}" if job.done else NOT_SCORED


def _lesion_slices(run: Path) -> Confusion:
    """Return the pooled counts of a run's test slices with lesion."""
    test = read_counts(run)
    return Confusion(*test.counts[test.has_lesion].sum(0).tolist())


def progress_table(jobs: Sequence[TrainingJob], failed: Mapping[Path, str] = {}) -> Table:
    """Return a table of the present state of all run folders, one row for each job."""
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
            percent(_lesion_slices(job.run).dice) if job.done else "-",
            _state(job, epochs, failed),
        )
    return table


def _state(job: TrainingJob, epochs: Sequence[Mapping[str, str]], failed: Mapping[Path, str]) -> str:
    if job.run in failed:
        return f"failed: {failed[job.run]}"
    if job.done:
        return "done"
    if (job.run / "result.json").is_file():
        return "to be scored"
    if not job.run.is_dir():
        return ""
    if not epochs:
        return "started"
    age_s = time.time() - (job.run / "metrics.csv").stat().st_mtime
    return "training" if age_s < 3 * float(epochs[-1]["seconds"]) + 60 else "to be resumed"
