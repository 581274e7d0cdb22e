"""The test results of a study: the counts of every slice for each row, and the scores and differences from them."""

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
SUBSETS = {"lesion_slices": "lesion slices", "whole": "every slice"}  # {subset of the test slices: its title}


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """Pixel counts of the slices of a test part, from one run.

    Attributes:
        slices: (n,) names of the slices, CASE:NUMBER.
        patients: (n,) patient of each slice.
        counts: (n, 4) TP, FP, FN, TN.
    """

    slices: tuple[str, ...]
    patients: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) True where the reference shows lesion."""
        return np.asarray(self.counts[:, 0] + self.counts[:, 2] > 0)


def read_counts(run: Path) -> SliceCounts:
    """Read the `test.csv` of a run.

    Raises:
        DatasetError: The file is damaged.
    """
    path = run / "test.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        counts = np.array([[int(row[name]) for name in COUNTS] for row in rows], dtype=np.int64).reshape(-1, 4)
        slices = tuple(f"{row['case']}:{row['slice']}" for row in rows)
        return SliceCounts(slices, tuple(row["patient"] for row in rows), counts)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: remove it, and call study again to score the run again") from error


@dataclass(frozen=True, eq=False)
class RowResult:
    """The results of a row under one protocol.

    Attributes:
        row: Name of the row.
        protocol: Name of the protocol.
        seeds: Seeds that are done.
        by_seed: Counts of the same slices for each of these seeds.
    """

    row: str
    protocol: str
    seeds: tuple[int, ...]
    by_seed: tuple[SliceCounts, ...]

    def _selected(self, subset: str) -> NDArray[np.bool_]:
        """Return (n,) True for the slices of a subset: see `SUBSETS`."""
        first = self.by_seed[0]
        return first.has_lesion if subset == "lesion_slices" else np.ones(len(first.slices), bool)

    def counts(self, subset: str) -> NDArray[np.int64]:
        """Return (m, 4) counts of the slices of a subset, summed over the seeds."""
        selected = self._selected(subset)
        return np.asarray(np.sum([test.counts[selected] for test in self.by_seed], axis=0, dtype=np.int64))

    def patients(self, subset: str) -> list[str]:
        """Return (m,) patients of the slices of a subset."""
        return [
            patient
            for patient, selected in zip(self.by_seed[0].patients, self._selected(subset), strict=True)
            if selected
        ]

    def pooled_scores(self, subset: str) -> dict[str, Estimate]:
        """Return the scores of the pixels of all seeds pooled, with intervals over patients."""
        return pooled(self.counts(subset), self.patients(subset))

    def mean_scores(self) -> dict[str, Estimate]:
        """Return the mean scores over lesion slices and seeds, with intervals over patients."""
        selected = self._selected("lesion_slices")
        counts = np.concatenate([test.counts[selected] for test in self.by_seed])
        return mean(counts, self.patients("lesion_slices") * len(self.by_seed))

    def dice_by_seed(self, subset: str) -> tuple[float | None, ...]:
        """Return the pooled Dice of each seed."""
        selected = self._selected(subset)
        return tuple(Confusion(*test.counts[selected].sum(0).tolist()).dice for test in self.by_seed)

    def with_seeds(self, seeds: Sequence[int]) -> RowResult:
        """Return the results of those seeds that are also among these."""
        kept = [i for i, seed in enumerate(self.seeds) if seed in seeds]
        return RowResult(
            self.row, self.protocol, tuple(self.seeds[i] for i in kept), tuple(self.by_seed[i] for i in kept)
        )


@dataclass(frozen=True)
class Comparison:
    """The difference of two rows on the same slices.

    Attributes:
        protocol: Name of the protocol.
        row: Name of the row.
        against: Name of the row that it is compared with.
        subset: Subset of the slices: see `SUBSETS`.
        difference: Difference in pooled Dice, `row` minus `against`; the interval resamples patients for both alike.
        p_value: Two-sided p-value of a permutation test that exchanges the rows' counts patient by patient. With n
            patients it is at least 2^(1 - n).
    """

    protocol: str
    row: str
    against: str
    subset: str
    difference: Estimate
    p_value: float


def collect_results(study: Study, jobs: Sequence[TrainingJob]) -> tuple[RowResult, ...]:
    """Read the results of all jobs that are done, in the order of the study's protocols and rows.

    Raises:
        DatasetError: A file is damaged, or the seeds of a row were scored on different slices.
    """
    results = []
    for protocol in study.protocols:
        for row in study.rows:
            done = [job for job in jobs if (job.protocol, job.row) == (protocol, row.name) and job.done]
            if done:
                by_seed = tuple(read_counts(job.run) for job in done)
                if len({test.slices for test in by_seed}) > 1:
                    raise DatasetError(f"the seeds of {row.name}, {protocol}, were scored on different slices")
                results.append(RowResult(row.name, protocol, tuple(job.seed for job in done), by_seed))
    return tuple(results)


def compare_rows(results: Sequence[RowResult], subset: str) -> tuple[Comparison, ...]:
    """Compare every row with each one before it, protocol by protocol, over the seeds that both have."""
    return tuple(
        _compare(row.with_seeds(against.seeds), against.with_seeds(row.seeds), subset)
        for against, row in combinations(results, 2)
        if row.protocol == against.protocol and set(row.seeds) & set(against.seeds)
    )


def _compare(row: RowResult, against: RowResult, subset: str) -> Comparison:
    counts, counts_against, patients = row.counts(subset), against.counts(subset), row.patients(subset)
    difference = paired_difference(counts, counts_against, patients, "dice")
    p_value = _permutation_p_value(counts, counts_against, patients)
    return Comparison(row.protocol, row.row, against.row, subset, difference, p_value)


def _permutation_p_value(
    counts: NDArray[np.int64], counts_against: NDArray[np.int64], patients: Sequence[str]
) -> float:
    """Return the two-sided p-value of a difference in pooled Dice under exchange of the methods for each patient.

    Args:
        counts: (m, 4) of one method.
        counts_against: (m, 4) of the other method.
        patients: (m,) patient of each slice.
    """
    names, patient_index = np.unique(np.asarray(patients), return_inverse=True)
    # (2 * patients, 4): sums of each patient for the one method, then for the other. The test permutes indices of rows.
    sums = np.zeros((2 * len(names), 4), np.int64)
    np.add.at(sums, patient_index, counts)
    np.add.at(sums, patient_index + len(names), counts_against)

    def dice_difference(rows: NDArray[np.int64], rows_against: NDArray[np.int64]) -> float:
        dice, dice_against = (Confusion(*sums[i].sum(0).tolist()).dice or 0.0 for i in (rows, rows_against))
        return dice - dice_against

    test = permutation_test(
        tuple(np.arange(2 * len(names)).reshape(2, -1)),
        dice_difference,
        permutation_type="samples",
        vectorized=False,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
