"""Overlap scores from pixel counts: Zhou, Canu and Ruan (2020), eqs. 12-14.

Adding the counts of slices or cases before scoring pools over pixels; averaging their scores does not. A score whose
denominator is 0 is undefined and None, never NaN. The Dice of an empty mask against an empty reference is therefore
None, not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Every score is a ratio of weighted counts: the weights of (TP, FP, FN, TN) in the numerator and in the denominator.
RATIOS = {
    "dice": ((2, 0, 0, 0), (2, 1, 1, 0)),
    "sensitivity": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "specificity": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "precision": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "iou": ((1, 0, 0, 0), (1, 1, 1, 0)),
}


@dataclass(frozen=True)
class Confusion:
    """A binary confusion matrix in pixels; `a + b` pools two of them."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @classmethod
    def count(cls, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Confusion:
        """Count the pixels of two boolean masks of the same shape.

        Raises:
            ValueError: The shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape}: expected one shape")
        both, positive, true = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
        return cls(both, positive - both, true - both, truth.size - positive - true + both)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(TP, FP, FN, TN) in pixels."""
        return self.true_positive, self.false_positive, self.false_negative, self.true_negative

    @property
    def dice(self) -> float | None:
        """Eq. 12: 2 TP / (2 TP + FP + FN)."""
        return self._ratio("dice")

    @property
    def sensitivity(self) -> float | None:
        """Eq. 13: TP / (TP + FN)."""
        return self._ratio("sensitivity")

    @property
    def specificity(self) -> float | None:
        """Eq. 14: TN / (TN + FP)."""
        return self._ratio("specificity")

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return self._ratio("precision")

    @property
    def iou(self) -> float | None:
        """Intersection over union, the Jaccard index: TP / (TP + FP + FN)."""
        return self._ratio("iou")

    @property
    def scores(self) -> dict[str, float | None]:
        """{name: score} for every name in `RATIOS`."""
        return {name: self._ratio(name) for name in RATIOS}

    def _ratio(self, name: str) -> float | None:
        numerator, denominator = (
            sum(weight * count for weight, count in zip(weights, self.counts, strict=True)) for weights in RATIOS[name]
        )
        return numerator / denominator if denominator else None
