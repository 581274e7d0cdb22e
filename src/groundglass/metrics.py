"""Scores as functions of counts that add up.

Zhou, Canu and Ruan (2020), eqs. 12-14. Adding the counts of slices or cases before scoring pools over pixels;
averaging their scores does not. A score whose denominator is 0 is undefined and None, never NaN: the Dice of an empty
mask against an empty reference, for one, is not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Every score is a sum of counts over a sum of counts: the weights of (TP, FP, FN, TN) above and below the line.
RATIOS = {
    "dice": ((2, 0, 0, 0), (2, 1, 1, 0)),
    "sensitivity": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "specificity": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "precision": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "iou": ((1, 0, 0, 0), (1, 1, 1, 0)),
}


@dataclass(frozen=True)
class Confusion:
    """Pixels by what was predicted and what is true; `a + b` pools two of them."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @classmethod
    def count(cls, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Confusion:
        """Count two boolean masks of one shape.

        Raises:
            ValueError: The shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape}: expected one shape")
        both, said, is_so = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
        return cls(both, said - both, is_so - both, truth.size - said - is_so + both)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(*(mine + its for mine, its in zip(self.counts, other.counts, strict=True)))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """TP, FP, FN, TN."""
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
        """The scores that every table gives, by name."""
        return {name: self._ratio(name) for name in RATIOS}

    def _ratio(self, name: str) -> float | None:
        above, below = (sum(w * n for w, n in zip(weights, self.counts, strict=True)) for weights in RATIOS[name])
        return above / below if below else None
