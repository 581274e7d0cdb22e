"""Estimates with 95 % intervals from a bootstrap over patients.

Every reported figure is a ratio of two sums: pooled counts over pooled counts, or the sum of some scores over their
number. Both sums are kept for each patient, so that a resampling of the patients takes only additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from groundglass.metrics import RATIOS

RESAMPLES = 2000
SEED = 0
MIN_PATIENTS = 3


@dataclass(frozen=True)
class Estimate:
    """A figure over many rows (slices, volumes, lesions, ...).

    Attributes:
        value: The ratio of the sums; None if the denominator is 0.
        interval: 95 % percentile interval of the bootstrap; None for fewer than `MIN_PATIENTS` patients.
        patients: Number of patients that contribute to the denominator; the others are not resampled.
        rows: Number of rows that contribute.
        undefined: Number of rows that do not, and are left out.
    """

    value: float | None
    interval: tuple[float, float] | None
    patients: int
    rows: int
    undefined: int


def estimate(numerators: ArrayLike, denominators: ArrayLike, patients: Sequence[str]) -> Estimate:
    """Divide two sums over rows, with an interval over the patients.

    Args:
        numerators: (n,) terms of the sum in the numerator, one for each row.
        denominators: (n,) terms of the sum in the denominator, never negative; a row with 0 is left out.
        patients: (n,) patient of each row.
    """
    numerators, denominators = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    counts = denominators > 0
    rows, undefined = int(counts.sum()), int((~counts).sum())
    if not rows:
        return Estimate(None, None, 0, 0, undefined)
    names, patient_index = np.unique(np.asarray(patients)[counts], return_inverse=True)
    sums = _sums_by_patient([numerators[counts], denominators[counts]], patient_index)
    value = float(sums[0].sum() / sums[1].sum())
    return Estimate(value, _interval(sums), len(names), rows, undefined)


def paired_difference(
    counts: NDArray[np.int64], other_counts: NDArray[np.int64], patients: Sequence[str], score: str
) -> Estimate:
    """Subtract a pooled score of another method from that of one method on the same rows.

    Every resampling of the patients is applied to both methods.

    Args:
        counts: (n, 4) TP, FP, FN, TN of the one method.
        other_counts: (n, 4) TP, FP, FN, TN of the other.
        patients: (n,) patient of each row.
        score: Name of a score in `RATIOS`.
    """
    weights = np.array(RATIOS[score])
    # Numerator and denominator of the one, then those of the other.
    terms = [method @ weight for method in (counts, other_counts) for weight in weights]
    known = (terms[1] > 0) | (terms[3] > 0)
    rows, undefined = int(known.sum()), int((~known).sum())
    if not terms[1].sum() or not terms[3].sum():
        return Estimate(None, None, 0, rows, undefined)
    names, patient_index = np.unique(np.asarray(patients)[known], return_inverse=True)
    sums = _sums_by_patient([term[known] for term in terms], patient_index)
    one, other = (float(part[0].sum() / part[1].sum()) for part in (sums[:2], sums[2:]))
    return Estimate(one - other, _interval(sums), len(names), rows, undefined)


def _sums_by_patient(terms: Sequence[NDArray[np.float64]], patient_index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Add up each of k arrays (n,) of terms by patient: (k, patients)."""
    return np.stack([np.bincount(patient_index, weights=term) for term in terms]).astype(np.float64)


def _interval(sums: NDArray[np.float64]) -> tuple[float, float] | None:
    """Resample patients: (2, patients) numerators and denominators, or (4, patients) of two ratios to be subtracted."""
    count = sums.shape[1]
    if count < MIN_PATIENTS:
        return None
    draws = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
    resampled = sums[:, draws].sum(2)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a resampling leaves one of two methods without a denominator
        ratios = resampled[0] / resampled[1] - (resampled[2] / resampled[3] if len(resampled) > 2 else 0)
    low, high = np.nanpercentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def pooled(counts: NDArray[np.int64], patients: Sequence[str]) -> dict[str, Estimate]:
    """Score all rows together, {score: estimate}; `counts` is (n, 4): TP, FP, FN, TN."""
    return {
        name: estimate(counts @ np.array(numerator), counts @ np.array(denominator), patients)
        for name, (numerator, denominator) in RATIOS.items()
    }


def mean(counts: NDArray[np.int64], patients: Sequence[str]) -> dict[str, Estimate]:
    """Average the defined scores of the rows, {score: estimate}; `counts` is (n, 4) as in `pooled`."""
    means = {}
    for name, (numerator, denominator) in RATIOS.items():
        denominators = counts @ np.array(denominator)
        scores = (counts @ np.array(numerator)) / np.maximum(denominators, 1)
        means[name] = estimate(np.where(denominators > 0, scores, 0), denominators > 0, patients)
    return means


def mean_of(values: Sequence[float | None], patients: Sequence[str]) -> Estimate:
    """Average the values that are not None."""
    known = [value is not None for value in values]
    return estimate([value or 0.0 for value in values], known, patients)
