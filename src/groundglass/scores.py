"""Scores as functions of counts that add up.

Zhou, Canu and Ruan (2020), eqs. 12-14. Adding the counts of slices or cases before scoring pools over pixels;
averaging their scores does not. A score whose denominator is 0 is undefined and None, never NaN: the Dice of an empty
mask against an empty reference, for one, is not 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


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
        return Confusion(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def dice(self) -> float | None:
        """Eq. 12: 2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> float | None:
        """Eq. 13: TP / (TP + FN)."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Eq. 14: TN / (TN + FP)."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def scores(self) -> dict[str, float | None]:
        """The scores that every table gives, by name."""
        return {name: getattr(self, name) for name in ("dice", "sensitivity", "specificity", "precision")}
