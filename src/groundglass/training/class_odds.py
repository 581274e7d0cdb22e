"""By how much the odds of each class are scaled before classes are compared, from what folds held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.segmenter import scale_odds

FACTORS = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 16.0, 32.0)  # of the best ones, the first is taken


def choose_class_odds(probability: NDArray[np.float32], stated: NDArray[np.integer]) -> tuple[float, ...]:
    """Choose the factors with which the most probable class agrees best with the stated one.

    The first class keeps a factor of 1; those of the others are chosen one after another.

    Args:
        probability: (pixels, classes) of pixels that readers marked.
        stated: (pixels,) the class that they stated, from 0.

    Returns:
        A factor of `FACTORS` for each class, with the highest mean Dice over the classes that are stated.
    """
    factors = [1.0] * probability.shape[1]
    for number in range(1, len(factors)):
        trials = [[*factors[:number], factor, *factors[number + 1 :]] for factor in FACTORS]
        factors = max(trials, key=lambda trial: _mean_dice(scale_odds(probability, trial).argmax(1), stated))
    return tuple(factors)


def _mean_dice(found: NDArray[np.integer], stated: NDArray[np.integer]) -> float:
    """Return the mean Dice of the classes that are stated anywhere."""
    classes: Sequence[int] = np.unique(stated).tolist()
    shared = [np.count_nonzero((found == number) & (stated == number)) for number in classes]
    both = [np.count_nonzero(found == number) + np.count_nonzero(stated == number) for number in classes]
    return float(np.mean([2 * a / b for a, b in zip(shared, both, strict=True)]))
