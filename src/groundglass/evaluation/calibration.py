"""Calibration of the predicted probabilities: reliability, and precision and recall at every threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 20  # number of reliability bins of equal width
# Probabilities are distinguished in thousandths, and finer near 0 and 1, where a saturated network has most pixels.
_TAIL = 10.0 ** -np.linspace(3.05, 6, 60)
THRESHOLDS = np.unique(np.concatenate([np.arange(1000) / 1000, _TAIL, 1 - _TAIL]))
_EDGES = THRESHOLDS.astype(np.float32)  # float32, as the segmenter compares probabilities with its threshold
_FIRST_EDGE_OF_BIN = np.searchsorted(THRESHOLDS, np.arange(BINS) / BINS)


class CalibrationHistogram:
    """Number of pixels by probability and truth; it grows as slices are added.

    Attributes:
        lesion: (n,) int64, number of lesion pixels from each of `THRESHOLDS` up to the next.
        other: (n,) int64, number of pixels without lesion.
        probability_sum: (n,) float64, sum of the probabilities of all pixels.
    """

    def __init__(self) -> None:
        self.lesion, self.other = np.zeros((2, len(THRESHOLDS)), dtype=np.int64)
        self.probability_sum = np.zeros(len(THRESHOLDS))

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count pixels by their probability in [0, 1] and their truth, two arrays of the same shape."""
        index, count = np.searchsorted(_EDGES, probability, side="right") - 1, len(THRESHOLDS)
        self.lesion += np.bincount(index[truth], minlength=count)
        self.other += np.bincount(index[~truth], minlength=count)
        self.probability_sum += np.bincount(index.ravel(), weights=probability.ravel(), minlength=count)

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.lesion.sum() + self.other.sum())


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels of similar probability.

    Attributes:
        low: Lowest probability of the bin.
        high: Upper end of the bin, exclusive.
        pixels: Number of pixels.
        mean_probability: Mean probability of the pixels; None without pixels.
        lesion_share: Share of the pixels that are lesion, 0..1; None without pixels.
    """

    low: float
    high: float
    pixels: int
    mean_probability: float | None
    lesion_share: float | None


def reliability_bins(histogram: CalibrationHistogram) -> tuple[ReliabilityBin, ...]:
    """Sum a histogram into `BINS` bins of equal width."""
    columns = histogram.lesion, histogram.other, histogram.probability_sum
    lesion, other, probability_sum = (np.add.reduceat(column, _FIRST_EDGE_OF_BIN) for column in columns)
    bins = []
    for k, pixels in enumerate((lesion + other).tolist()):
        means = (float(probability_sum[k] / pixels), float(lesion[k] / pixels)) if pixels else (None, None)
        bins.append(ReliabilityBin(k / BINS, (k + 1) / BINS, pixels, *means))
    return tuple(bins)


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float | None:
    """Average |lesion share - mean probability| weighted by pixels (Guo et al. 2017, eq. 3); None without pixels."""
    pixels = sum(each.pixels for each in bins)
    if not pixels:
        return None
    gaps = (each.pixels * abs((each.lesion_share or 0.0) - (each.mean_probability or 0.0)) for each in bins)
    return sum(gaps) / pixels


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision and recall at each of `THRESHOLDS`, lowest threshold first.

    Attributes:
        precision: (n,) NaN where no pixel reaches the threshold.
        recall: (n,) share of the lesion pixels that reach the threshold.
        average_precision: Sum of precision times the gain in recall.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float

    def at_threshold(self, threshold: float) -> tuple[float | None, float]:
        """Return precision (None where no pixel reaches it) and recall at the nearest of `THRESHOLDS`."""
        k = int(np.abs(THRESHOLDS - threshold).argmin())
        precision = float(self.precision[k])
        return None if np.isnan(precision) else precision, float(self.recall[k])


def precision_recall_curve(histogram: CalibrationHistogram) -> PrecisionRecallCurve | None:
    """Compute the curve of a histogram; None if it holds no lesion pixel."""
    counts = histogram.lesion, histogram.lesion + histogram.other
    true_positive, positive = (count[::-1].cumsum()[::-1] for count in counts)
    if not true_positive[0]:
        return None
    precision = np.full(len(THRESHOLDS), np.nan)
    np.divide(true_positive, positive, out=precision, where=positive > 0)
    recall = true_positive / true_positive[0]
    gain = recall - np.append(recall[1:], 0)
    average = float((np.nan_to_num(precision) * gain).sum())
    return PrecisionRecallCurve(precision, recall, average)
