"""Smoothing between slices: a network that sees few of them at a time is sure of some by chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import log_odds, sigmoid

SMALLEST = 1e-4  # probability; what is surer counts no more than this
REACH = 3  # standard deviations
MOST_SLICES = 10_000  # no scan has more, whatever spacing its file states


def smooth_between_slices(
    predictions: Iterable[tuple[int, NDArray[np.float32]]], spacing_mm: float, sigma_mm: float
) -> Iterator[NDArray[np.float32]]:
    """Average the log-odds of lesion with those in the slices around, weighted by a Gaussian of their distance.

    Few slices are held at a time: those that the Gaussian reaches.

    Args:
        predictions: (number of the slice, probabilities (classes, height, width) on a grid that all slices share), in
            the order of the slices; the first map is lesion, and the others do not change.
        spacing_mm: Distance between slices.
        sigma_mm: Standard deviation of the Gaussian; where it reaches no neighbour, nothing changes.

    Yields:
        (classes, height, width) probabilities, one array for each slice.
    """
    reach = int(min(REACH * sigma_mm / spacing_mm, MOST_SLICES))
    if not reach:
        yield from (probability for _, probability in predictions)
        return
    weights = np.exp(-0.5 * (np.arange(reach + 1, dtype=np.float32) * np.float32(spacing_mm / sigma_mm)) ** 2)
    near: deque[tuple[int, NDArray[np.float32]]] = deque()  # log-odds of the slices that those in `waiting` need
    waiting: deque[tuple[int, NDArray[np.float32]]] = deque()

    def smoothed(number: int, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        within = [(weights[abs(other - number)], odds) for other, odds in near if abs(other - number) <= reach]
        mean = sum(weight * odds for weight, odds in within) / sum(weight for weight, _ in within)
        return np.concatenate((sigmoid(mean)[None], probability[1:]))

    for number, probability in predictions:
        while waiting and waiting[0][0] + reach < number:
            yield smoothed(*waiting.popleft())
        waiting.append((number, probability))
        near.append((number, log_odds(probability[0], SMALLEST)))
        while near[0][0] + reach < waiting[0][0]:
            near.popleft()
    for one in waiting:
        yield smoothed(*one)
