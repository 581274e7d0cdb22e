"""The leak meter: what a random split by slice would have made of a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from groundglass.config import RunConfig
from groundglass.data.prepared import read_prepared
from groundglass.data.protocols import slice_and_patient
from groundglass.data.splits import sides_of
from groundglass.experiment import complete, fitted, score, scored_batches, train
from groundglass.scores import Confusion
from groundglass.training.weights import load_network
from groundglass.whole_file import write_whole


@dataclass(frozen=True)
class Leak:
    """The same network under two splits, scored on each one's test slices as they are cut.

    Attributes:
        by_slice: Counts under a random split by slice.
        by_patient: Counts with patients apart.
    """

    by_slice: Confusion
    by_patient: Confusion

    @property
    def difference(self) -> dict[str, float | None]:
        """By slice minus by patient, for each score."""
        pairs = {name: (self.by_slice.scores[name], self.by_patient.scores[name]) for name in self.by_slice.scores}
        return {name: None if a is None or b is None else a - b for name, (a, b) in pairs.items()}


def measure_leak(
    config: RunConfig, prepared: Path, folder: Path, resume: bool = False, say: Callable[[str], None] = lambda _: None
) -> Leak:
    """Train one configuration under a split by slice and under one by patient, of about the same size.

    Args:
        config: A small one does: the difference is what counts.
        prepared: A prepared folder.
        folder: Gets a run folder for each split, and leak.json.
        resume: Go on with what an earlier call left there.
        say: Called with what is begun.

    Raises:
        DatasetError: There are too few patients to keep some apart.
        ConfigError: The folder holds another leak's trainings, or this one's and `resume` is false.
        GroundglassError: As `train` does.
    """
    manifest, slices = read_prepared(prepared)
    config = fitted(config, manifest)
    counts = []
    for split in slice_and_patient(slices, config.training.seed):
        run, sides = folder / split.name, sides_of(split, slices)
        say(f"{split.name}: {split.rule}; {int(sides.train.sum())} slices train, {int(sides.test.sum())} test")
        result = (complete if resume else train)(config, prepared, split, run)
        module = load_network(run / result["checkpoint"], config.built)
        threshold = np.array([result["threshold"]])
        (confusion,) = score(module, scored_batches(slices.where(sides.test), config), threshold)
        counts.append(confusion)
    leak = Leak(*counts)
    summary = {
        "by_slice": leak.by_slice.scores,
        "by_patient": leak.by_patient.scores,
        "difference": leak.difference,
    }
    write_whole(folder / "leak.json", json.dumps(summary, indent=2, allow_nan=False).encode())
    return leak


def leak_table(leak: Leak) -> Table:
    """A row a split, and their difference in points of percent."""
    rows = {
        "slices at random (leaks)": leak.by_slice.scores,
        "patients apart": leak.by_patient.scores,
        "difference": leak.difference,
    }
    table = Table("split", *leak.difference)
    for name, scores in rows.items():
        signed = "+.1f" if name == "difference" else ".1f"
        table.add_row(name, *("-" if value is None else f"{100 * value:{signed}}" for value in scores.values()))
    return table
