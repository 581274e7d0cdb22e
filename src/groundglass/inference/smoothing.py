"""Smoothing between slices: a network that sees few of them at a time is sure of some by chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import sigmoid

SMALLEST = np.float32(1e-4)  # probability; what is surer counts no more than this
REACH = 3  # standard deviations


def smooth_between_slices(
    predictions: Iterable[tuple[int, NDArray[np.float32]]], spacing_mm: float, sigma_mm: float
) -> Iterator[NDArray[np.float32]]:
    """Average the log-odds of each slice with those of the slices around it, weighted by a Gaussian of their distance.

    Few slices are held at a time: those that the Gaussian reaches.

    Args:
        predictions: (number of the slice, probabilities (classes, height, width) on a grid that all slices share), in
            the order of the slices.
        spacing_mm: Distance between slices.
        sigma_mm: Standard deviation of the Gaussian; where it reaches no neighbour, nothing changes.

    Yields:
        (classes, height, width) probabilities, one array for each slice.
    """
    reach = int(REACH * sigma_mm / spacing_mm)
    if not reach:
        yield from (probability for _, probability in predictions)
        return
    near: list[tuple[int, NDArray[np.float32]]] = []  # log-odds of the slices that `waiting` ones may need
    waiting: list[int] = []

    def smoothed(number: int) -> NDArray[np.float32]:
        weights = {other: math.exp(-0.5 * ((other - number) * spacing_mm / sigma_mm) ** 2) for other, _ in near}
        within = [(weights[other], odds) for other, odds in near if abs(other - number) <= reach]
        return sigmoid(sum(np.float32(weight) * odds for weight, odds in within) / sum(weight for weight, _ in within))

    for number, probability in predictions:
        while waiting and waiting[0] + reach < number:
            yield smoothed(waiting.pop(0))
        near = [one for one in near if one[0] + reach >= (waiting[0] if waiting else number)]
        near.append((number, _log_odds(probability)))
        waiting.append(number)
    yield from map(smoothed, waiting)


def _log_odds(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    clipped = probability.clip(SMALLEST, 1 - SMALLEST)
    return np.log(clipped / (1 - clipped))
