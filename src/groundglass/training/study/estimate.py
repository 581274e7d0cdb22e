"""The time that the trainings of a study still need, estimated from a few measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.table import Column, Table

from groundglass.data.prepared import read_prepared
from groundglass.data.splits import resolve_split
from groundglass.training.callbacks import read_metrics
from groundglass.training.fit import seconds_per_step
from groundglass.training.run import build_training_batches, select_training_slices
from groundglass.training.study.plan import TrainingJob

STEPS = 4


def estimate_seconds(jobs: Sequence[TrainingJob], prepared: Path) -> dict[Path, float]:
    """Estimate the time that each training still needs on this machine, by timing a few steps of each row.

    Validation, scoring, teachers and early stopping are not taken into account.

    Args:
        jobs: The jobs of a study.
        prepared: The prepared folder.

    Returns:
        {run folder: seconds, 0 for a finished training}.

    Raises:
        DatasetError: The prepared folder is incomplete, or a split does not match it.
    """
    _, slices = read_prepared(prepared)
    step_seconds: dict[str, float] = {}  # {row: seconds of a step}
    seconds = {}
    for job in jobs:
        config = job.config
        epochs_left = config.training.epochs - len(read_metrics(job.run / "metrics.csv"))
        seconds[job.run] = 0.0
        if epochs_left > 0 and not (job.run / "result.json").is_file():
            train = slices.where(resolve_split(job.split, slices).train)
            batches = build_training_batches(train.where(select_training_slices(train, config)), config)
            if job.row not in step_seconds:
                step_seconds[job.row] = seconds_per_step(
                    config.network_config, config.loss, config.training, batches, STEPS
                )
            seconds[job.run] = epochs_left * len(batches) * step_seconds[job.row]
    return seconds


def estimate_table(jobs: Sequence[TrainingJob], seconds: dict[Path, float]) -> Table:
    """Return a table of the jobs in the order in which they would run, with the total time."""
    table = Table(Column("row", overflow="fold"), "protocol", "seed", "epochs done", "time left", show_footer=True)
    table.columns[3].footer = "one after another"
    table.columns[4].footer = _duration(sum(seconds.values()))
    for job in jobs:
        done = len(read_metrics(job.run / "metrics.csv"))
        epochs = f"{done} of {job.config.training.epochs}"
        table.add_row(job.row, job.protocol, str(job.seed), epochs, _duration(seconds[job.run]))
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else "-"
