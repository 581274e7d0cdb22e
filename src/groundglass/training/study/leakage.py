"""The leakage estimate: how much a random split by slice raises the scores on a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from groundglass.data.prepared import read_prepared
from groundglass.data.protocols import make_leakage_splits
from groundglass.data.splits import resolve_split
from groundglass.files import write_atomic
from groundglass.metrics import Confusion
from groundglass.training.config import RunConfig
from groundglass.training.run import build_scoring_batches, resume_or_train, score, train, with_prepared_settings
from groundglass.training.weights import load_network


@dataclass(frozen=True)
class LeakageEstimate:
    """Test counts of the same network under two splits, on the network's own grid.

    Attributes:
        by_slice: Counts under a random split by slice.
        by_patient: Counts under a split that keeps patients apart.
    """

    by_slice: Confusion
    by_patient: Confusion

    @property
    def difference(self) -> dict[str, float | None]:
        """{score: by slice minus by patient}."""
        pairs = {name: (self.by_slice.scores[name], self.by_patient.scores[name]) for name in self.by_slice.scores}
        return {name: None if a is None or b is None else a - b for name, (a, b) in pairs.items()}


def estimate_leakage(
    config: RunConfig,
    prepared: Path,
    folder: Path,
    resume: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
) -> LeakageEstimate:
    """Train one configuration under a split by slice and under one by patient, of about the same size.

    Args:
        config: The configuration; a small network is enough, because only the difference matters.
        prepared: A prepared folder.
        folder: Receives a run folder for each split, and `leakage.json`.
        resume: Continue with the runs of an earlier call.
        on_message: Called with a line before each training.

    Raises:
        DatasetError: There are too few patients to keep some apart.
        ConfigError: The folder holds the runs of another estimate, or those of this one and `resume` is false.
        GroundglassError: As `train` raises it.
    """
    manifest, slices = read_prepared(prepared)
    config = with_prepared_settings(config, manifest)
    counts = []
    for split in make_leakage_splits(slices, config.training.seed):
        run, parts = folder / split.name, resolve_split(split, slices)
        train_count, test_count = int(parts.train.sum()), int(parts.test.sum())
        on_message(f"{split.name}: {split.rule}; {train_count} training slices, {test_count} test slices")
        result = (resume_or_train if resume else train)(config, prepared, split, run)
        module = load_network(run / result["checkpoint"], config.network_config)
        threshold = np.array([result["threshold"]])
        (confusion,) = score(module, build_scoring_batches(slices.where(parts.test), config), threshold)
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
    """Return a table with a row for each split in percent, and their difference in percentage points."""
    rows = {
        "slices at random (leaky)": estimate.by_slice.scores,
        "patients apart": estimate.by_patient.scores,
        "difference": estimate.difference,
    }
    table = Table("split", *estimate.difference)
    for name, scores in rows.items():
        number_format = "+.1f" if name == "difference" else ".1f"
        table.add_row(name, *("-" if value is None else f"{100 * value:{number_format}}" for value in scores.values()))
    return table
