"""A figure with its 95 % interval: patients are drawn again and again, with replacement.

Everything reported here is a sum over a sum: pooled counts over pooled counts, or the sum of some scores over their
number. Both sums are kept for each patient, so that a draw of patients is an addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundglass.metrics import RATIOS

RESAMPLES = 2000
SEED = 0
FEWEST_PATIENTS = 3


@dataclass(frozen=True)
class Estimate:
    """A figure over many rows (slices, volumes, lesions, ...).

    Attributes:
        value: None where nothing was to be counted: the denominator is 0.
        interval: 95 %, percentiles of the bootstrap over patients; None for fewer than three patients.
        patients: That have anything to count; the others are not drawn.
        rows: That have a value.
        undefined: Rows that have none, and are left out.
    """

    value: float | None
    interval: tuple[float, float] | None
    patients: int
    rows: int
    undefined: int


def estimate(above: ArrayLike, below: ArrayLike, patients: Sequence[str]) -> Estimate:
    """sum(above) / sum(below), with an interval over the patients.

    Args:
        above: (n,) what is summed over the line, by row.
        below: (n,) what is summed under it, never negative; a row with 0 counts for nothing.
        patients: (n,) whose each row is.
    """
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    counts = below > 0
    rows, undefined = int(counts.sum()), int((~counts).sum())
    if not rows:
        return Estimate(None, None, 0, 0, undefined)
    names, owner = np.unique(np.asarray(patients)[counts], return_inverse=True)
    sums = np.stack([np.bincount(owner, weights=part[counts]) for part in (above, below)]).astype(np.float64)
    value = float(sums[0].sum() / sums[1].sum())
    return Estimate(value, _interval(sums), len(names), rows, undefined)


def paired_difference(
    counts: NDArray[np.int64], others: NDArray[np.int64], patients: Sequence[str], score: str
) -> Estimate:
    """A pooled score of one method minus that of another on the same rows, the patients drawn for both alike.

    Args:
        counts: (n, 4): TP, FP, FN, TN of the one.
        others: (n, 4) of the other.
        patients: (n,) whose each row is.
        score: Of `RATIOS`.
    """
    weights = np.array(RATIOS[score])
    parts = [part @ weight for part in (counts, others) for weight in weights]  # above, below; above, below
    known = (parts[1] > 0) | (parts[3] > 0)
    rows, undefined = int(known.sum()), int((~known).sum())
    if not parts[1].sum() or not parts[3].sum():
        return Estimate(None, None, 0, rows, undefined)
    names, owner = np.unique(np.asarray(patients)[known], return_inverse=True)
    sums = np.stack([np.bincount(owner, weights=part[known]) for part in parts]).astype(np.float64)
    one, other = (float(above.sum() / below.sum()) for above, below in (sums[:2], sums[2:]))
    return Estimate(one - other, _interval(sums), len(names), rows, undefined)


def _interval(sums: NDArray[np.float64]) -> tuple[float, float] | None:
    """Of (2, patients) sums above and below the line, or of (4, patients) whose second ratio is taken off the first."""
    count = sums.shape[1]
    if count < FEWEST_PATIENTS:
        return None
    draws = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    drawn = sums[:, draws].sum(2)
    with np.errstate(invalid="ignore"):  # a draw in which one of two methods has nothing to count
        ratios = drawn[0] / drawn[1] - (drawn[2] / drawn[3] if len(drawn) > 2 else 0)
    low, high = np.nanpercentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def pooled(counts: NDArray[np.int64], patients: Sequence[str]) -> dict[str, Estimate]:
    """{score: of all rows' counts together}; `counts` is (n, 4): TP, FP, FN, TN."""
    return {
        name: estimate(counts @ np.array(above), counts @ np.array(below), patients)
        for name, (above, below) in RATIOS.items()
    }


def mean(counts: NDArray[np.int64], patients: Sequence[str]) -> dict[str, Estimate]:
    """{score: mean of the rows' scores}, those left out that are undefined; `counts` as in `pooled`."""
    means = {}
    for name, (above, below) in RATIOS.items():
        denominators = counts @ np.array(below)
        scores = (counts @ np.array(above)) / np.maximum(denominators, 1)
        means[name] = estimate(np.where(denominators > 0, scores, 0), denominators > 0, patients)
    return means


def mean_of(values: Sequence[float | None], patients: Sequence[str]) -> Estimate:
    """The mean of some values, those left out that are None."""
    known = [value is not None for value in values]
    return estimate([value or 0.0 for value in values], known, patients)
