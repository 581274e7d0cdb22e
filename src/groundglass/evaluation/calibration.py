"""What the probabilities are worth: counted by truth, they give reliability, and precision and recall by threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 20  # for reliability, of equal width
# The probabilities told apart: thousandths, and finer where a saturated network has most of its pixels, near 0 and 1.
_TAIL = 10.0 ** -np.linspace(3.05, 6, 60)
THRESHOLDS = np.unique(np.concatenate([np.arange(1000) / 1000, _TAIL, 1 - _TAIL]))
_EDGES = THRESHOLDS.astype(np.float32)  # as a float32 probability is compared with a threshold
_FIRST_OF_BIN = np.searchsorted(THRESHOLDS, np.arange(BINS) / BINS)


class CalibrationHistogram:
    """Pixels by probability and truth; it grows as planes are added.

    Attributes:
        lesion: (n,) int64, lesion pixels from each of `THRESHOLDS` up to the next.
        other: (n,) int64, the others.
        total: (n,) float64, the sum of the probabilities.
    """

    def __init__(self) -> None:
        self.lesion, self.other = np.zeros((2, len(THRESHOLDS)), dtype=np.int64)
        self.total = np.zeros(len(THRESHOLDS))

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count pixels: probability in [0, 1] and truth, of one shape."""
        place, count = np.searchsorted(_EDGES, probability, side="right") - 1, len(THRESHOLDS)
        self.lesion += np.bincount(place[truth], minlength=count)
        self.other += np.bincount(place[~truth], minlength=count)
        self.total += np.bincount(place.ravel(), weights=probability.ravel(), minlength=count)

    @property
    def pixels(self) -> int:
        """How many were counted."""
        return int(self.lesion.sum() + self.other.sum())


@dataclass(frozen=True)
class Bin:
    """Pixels of about one probability.

    Attributes:
        low: From this probability on.
        high: Up to it.
        pixels: How many.
        mean_probability: Of them; None without pixels.
        lesion_share: Of them; None without pixels.
    """

    low: float
    high: float
    pixels: int
    mean_probability: float | None
    lesion_share: float | None


def reliability(histogram: CalibrationHistogram) -> tuple[Bin, ...]:
    """Twenty bins of equal width."""
    parts = histogram.lesion, histogram.other, histogram.total
    lesion, other, total = (np.add.reduceat(part, _FIRST_OF_BIN) for part in parts)
    bins = []
    for k, pixels in enumerate((lesion + other).tolist()):
        share = (float(total[k] / pixels), float(lesion[k] / pixels)) if pixels else (None, None)
        bins.append(Bin(k / BINS, (k + 1) / BINS, pixels, *share))
    return tuple(bins)


def expected_calibration_error(bins: tuple[Bin, ...]) -> float | None:
    """ECE: |lesion share - mean probability|, weighted by pixels (Guo et al. 2017, eq. 3); None without pixels."""
    pixels = sum(each.pixels for each in bins)
    if not pixels:
        return None
    gaps = (each.pixels * abs((each.lesion_share or 0.0) - (each.mean_probability or 0.0)) for each in bins)
    return sum(gaps) / pixels


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """At each of `THRESHOLDS`, lowest first.

    Attributes:
        precision: (n,) NaN where no pixel reaches the threshold.
        recall: (n,).
        average_precision: Sum of precision times the gain in recall.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average_precision: float

    def at(self, threshold: float) -> tuple[float | None, float]:
        """Precision (None where nothing reaches it) and recall at the nearest of `THRESHOLDS`."""
        k = int(np.abs(THRESHOLDS - threshold).argmin())
        precision = float(self.precision[k])
        return None if np.isnan(precision) else precision, float(self.recall[k])


def precision_recall(histogram: CalibrationHistogram) -> PrecisionRecall | None:
    """None where no lesion pixel was counted."""
    hits, marked = (part[::-1].cumsum()[::-1] for part in (histogram.lesion, histogram.lesion + histogram.other))
    if not hits[0]:
        return None
    precision = np.full(len(THRESHOLDS), np.nan)
    np.divide(hits, marked, out=precision, where=marked > 0)
    recall = hits / hits[0]
    gain = recall - np.append(recall[1:], 0)
    average = float((np.nan_to_num(precision) * gain).sum())
    return PrecisionRecall(precision, recall, average)
