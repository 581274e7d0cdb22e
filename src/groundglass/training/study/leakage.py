"""The leak meter: what a random split by slice would have made of a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from groundglass.data.prepared import read_prepared
from groundglass.data.protocols import slice_and_patient
from groundglass.data.splits import sides_of
from groundglass.files import write_atomic
from groundglass.metrics import Confusion
from groundglass.training.config import RunConfig
from groundglass.training.run import resume_or_train, score, scored_batches, train, with_prepared_settings
from groundglass.training.weights import load_network


@dataclass(frozen=True)
class LeakageEstimate:
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


def estimate_leakage(
    config: RunConfig, prepared: Path, folder: Path, resume: bool = False, say: Callable[[str], None] = lambda _: None
) -> LeakageEstimate:
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
    config = with_prepared_settings(config, manifest)
    counts = []
    for split in slice_and_patient(slices, config.training.seed):
        run, sides = folder / split.name, sides_of(split, slices)
        say(f"{split.name}: {split.rule}; {int(sides.train.sum())} slices train, {int(sides.test.sum())} test")
        result = (resume_or_train if resume else train)(config, prepared, split, run)
        module = load_network(run / result["checkpoint"], config.built)
        threshold = np.array([result["threshold"]])
        (confusion,) = score(module, scored_batches(slices.where(sides.test), config), threshold)
        counts.append(confusion)
    estimate = LeakageEstimate(*counts)
    summary = {
        "by_slice": estimate.by_slice.scores,
        "by_patient": estimate.by_patient.scores,
        "difference": estimate.difference,
    }
    write_atomic(folder / "leakage.json", json.dumps(summary, indent=2, allow_nan=False).encode())
    return estimate


def leakage_table(estimate: LeakageEstimate) -> Table:
    """A row a split, and their difference in points of percent."""
    rows = {
        "slices at random (leaks)": estimate.by_slice.scores,
        "patients apart": estimate.by_patient.scores,
        "difference": estimate.difference,
    }
    table = Table("split", *estimate.difference)
    for name, scores in rows.items():
        signed = "+.1f" if name == "difference" else ".1f"
        table.add_row(name, *("-" if value is None else f"{100 * value:{signed}}" for value in scores.values()))
    return table
