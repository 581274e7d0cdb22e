"""What a study would do, and for how long, judged by a few measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.table import Column, Table

from groundglass.data.prepared import read_prepared
from groundglass.data.splits import sides_of
from groundglass.training.callbacks import read_metrics
from groundglass.training.fit import seconds_per_step
from groundglass.training.run import batches_of, select_training_slices
from groundglass.training.study.plan import TrainingJob

STEPS = 4


def estimate(jobs: Sequence[TrainingJob], prepared: Path) -> dict[Path, float]:
    """{run folder: seconds that its training may still take on this machine, 0 where it is done}.

    A few steps of each row that is not done are timed. Validation, scoring and teachers are left out, and so is what
    an early stop saves.

    Args:
        jobs: Of a study.
        prepared: The prepared folder.

    Raises:
        DatasetError: The prepared folder is not whole, or a split does not fit it.
    """
    _, slices = read_prepared(prepared)
    step: dict[str, float] = {}
    seconds = {}
    for job in jobs:
        config = job.config
        left = config.training.epochs - len(read_metrics(job.run / "metrics.csv"))
        seconds[job.run] = 0.0
        if left > 0 and not (job.run / "result.json").is_file():
            train = slices.where(sides_of(job.split, slices).train)
            batches = batches_of(train.where(select_training_slices(train, config)), config)
            if job.row not in step:
                step[job.row] = seconds_per_step(config.built, config.loss, config.training, batches, STEPS)
            seconds[job.run] = left * len(batches) * step[job.row]
    return seconds


def estimate_table(jobs: Sequence[TrainingJob], seconds: dict[Path, float]) -> Table:
    """A row a job, in the order in which they would be run, and the sum."""
    table = Table(Column("row", overflow="fold"), "protocol", "seed", "epochs done", "still takes", show_footer=True)
    table.columns[3].footer = "one after another"
    table.columns[4].footer = _hours(sum(seconds.values()))
    for job in jobs:
        done = len(read_metrics(job.run / "metrics.csv"))
        epochs = f"{done} of {job.config.training.epochs}"
        table.add_row(job.row, job.protocol, str(job.seed), epochs, _hours(seconds[job.run]))
    return table


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds else "-"
