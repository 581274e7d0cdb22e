"""What a study found: counts of every test slice, row by row, and what they add up to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from groundglass.errors import DatasetError
from groundglass.evaluation.intervals import Estimate, mean, paired_difference, pooled
from groundglass.evaluation.tables import COUNTS
from groundglass.metrics import Confusion
from groundglass.training.study.plan import Study, TrainingJob

PERMUTATIONS = 10_000
KINDS = {"lesion_slices": "lesion slices", "whole": "every slice"}


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """Counts of a test part's slices.

    Attributes:
        slices: (n,) as CASE:NUMBER.
        patients: (n,) whose each is.
        of: (n, 4): TP, FP, FN, TN.
    """

    slices: tuple[str, ...]
    patients: tuple[str, ...]
    of: NDArray[np.int64]

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) whether the reference shows lesion."""
        return np.asarray(self.of[:, 0] + self.of[:, 2] > 0)


def read_counts(run: Path) -> SliceCounts:
    """What `test.csv` of a run holds.

    Raises:
        DatasetError: It is damaged.
    """
    path = run / "test.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        counts = np.array([[int(row[name]) for name in COUNTS] for row in rows], dtype=np.int64).reshape(-1, 4)
        slices = tuple(f"{row['case']}:{row['slice']}" for row in rows)
        return SliceCounts(slices, tuple(row["patient"] for row in rows), counts)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: remove it, and call study again to score anew") from error


@dataclass(frozen=True, eq=False)
class RowResult:
    """A row under one protocol, over the seeds that are done.

    Attributes:
        row: Its name.
        protocol: The split.
        seeds: Those that are done.
        counts: A seed each, of the same slices.
    """

    row: str
    protocol: str
    seeds: tuple[int, ...]
    counts: tuple[SliceCounts, ...]

    def of(self, kind: str) -> tuple[NDArray[np.int64], list[str]]:
        """Counts (n, 4) added up over the seeds, and the patients (n,), of a kind of slices: see `KINDS`."""
        keep = self._kept(kind)
        patients = [name for name, kept in zip(self.counts[0].patients, keep, strict=True) if kept]
        return sum((each.of[keep] for each in self.counts), np.zeros((int(keep.sum()), 4), np.int64)), patients

    def _kept(self, kind: str) -> NDArray[np.bool_]:
        first = self.counts[0]
        return first.has_lesion if kind == "lesion_slices" else np.ones(len(first.slices), bool)

    def pooled(self, kind: str) -> dict[str, Estimate]:
        """Scores of all seeds' pixels together, with intervals over the patients."""
        return pooled(*self.of(kind))

    def mean_of_slices(self) -> dict[str, Estimate]:
        """The mean over lesion slices and seeds, with intervals over the patients."""
        keep = self._kept("lesion_slices")
        counts = np.concatenate([each.of[keep] for each in self.counts])
        return mean(counts, self.of("lesion_slices")[1] * len(self.counts))

    def dice_of_seeds(self, kind: str) -> tuple[float | None, ...]:
        """The pooled Dice of each seed."""
        keep = self._kept(kind)
        return tuple(Confusion(*each.of[keep].sum(0).tolist()).dice for each in self.counts)


@dataclass(frozen=True)
class Comparison:
    """Two rows on the same slices.

    Attributes:
        protocol: The split.
        row: The one.
        against: The other.
        kind: Of slices: see `KINDS`.
        difference: In pooled Dice, row minus against, with an interval over the patients, drawn for both alike.
        p_value: Two-sided, of a permutation test: the rows' counts exchanged patient by patient. With n patients it is
            2^(1 - n) at least.
    """

    protocol: str
    row: str
    against: str
    kind: str
    difference: Estimate
    p_value: float


def gather(study: Study, jobs: Sequence[TrainingJob]) -> tuple[RowResult, ...]:
    """What is done of a study, in the order of its protocols and rows.

    Raises:
        DatasetError: A file is damaged, or a row's seeds were scored on different slices.
    """
    results = []
    for protocol in study.protocols:
        for row in study.rows:
            done = [job for job in jobs if (job.protocol, job.row) == (protocol, row.name) and job.done]
            if done:
                counts = tuple(read_counts(job.run) for job in done)
                if len({each.slices for each in counts}) > 1:
                    raise DatasetError(f"the seeds of {row.name}, {protocol}, were scored on different slices")
                results.append(RowResult(row.name, protocol, tuple(job.seed for job in done), counts))
    return tuple(results)


def compare(results: Sequence[RowResult], kind: str) -> tuple[Comparison, ...]:
    """Every row against each one before it, under each protocol; over the seeds that both have."""
    return tuple(
        _compare(row, against, kind)
        for against, row in combinations(results, 2)
        if row.protocol == against.protocol and set(row.seeds) & set(against.seeds)
    )


def _compare(row: RowResult, against: RowResult, kind: str) -> Comparison:
    one, other = _shared(row, against), _shared(against, row)
    (counts, patients), (others, _) = one.of(kind), other.of(kind)
    difference = paired_difference(counts, others, patients, "dice")
    return Comparison(row.protocol, row.row, against.row, kind, difference, _p_value(counts, others, patients))


def _shared(row: RowResult, other: RowResult) -> RowResult:
    """The row with the seeds that the other has too."""
    kept = [i for i, seed in enumerate(row.seeds) if seed in other.seeds]
    return RowResult(row.row, row.protocol, tuple(row.seeds[i] for i in kept), tuple(row.counts[i] for i in kept))


def _p_value(counts: NDArray[np.int64], others: NDArray[np.int64], patients: Sequence[str]) -> float:
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    both = np.zeros((2 * len(names), 4), np.int64)  # a patient's counts of the one row, then of the other
    np.add.at(both, owner, counts)
    np.add.at(both, owner + len(names), others)

    def difference(mine: NDArray[np.int64], its: NDArray[np.int64]) -> float:
        first, second = (Confusion(*both[places].sum(0).tolist()).dice or 0.0 for places in (mine, its))
        return first - second

    places = np.arange(2 * len(names)).reshape(2, -1)
    test = permutation_test(
        (places[0], places[1]),
        difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
