"""The slices that an input of the network is made of, and what is drawn at random for it."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundglass.data.slices import Slices
from groundglass.scan.crop import slices_apart

THICKEST_MM, MOST_AVERAGED = 10.0, 5  # a thick slice made of thin ones, and the slices in it
BatchKey: TypeAlias = NDArray[np.int64]  # (N, 2): the index of each slice and the seed of its augmentation


class Draw(IntEnum):
    """What is drawn from the seed of a slice, beside its augmentation."""

    SECOND_READER, THICK, COUNT, TRANSPLANT, DONOR, LESIONS = range(1, 7)


def toss(key: BatchKey, what: Draw, probability: float) -> NDArray[np.bool_]:
    """Toss a coin for each slice of a batch, by the seed of its augmentation."""
    return np.array([np.random.default_rng((seed, what)).random() < probability for seed in key[:, 1]], dtype=bool)


def draw(key: BatchKey, what: Draw, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw one of several indices for each slice of a batch, by the seed of its augmentation."""
    return np.array([np.random.default_rng((seed, what)).choice(among) for seed in key[:, 1]], dtype=np.int64)


class SliceInputs:
    """The slices that each input is made of: the slice, its neighbours, and thin slices averaged to thick ones."""

    def __init__(self, slices: Slices, neighbours_mm: float, thick_prob: float) -> None:
        self.neighbours_mm, self.thick_prob, self.spacing_mm = neighbours_mm, thick_prob, slices.spacing_mm
        self.thin = slices.neighbour_indices(neighbours_mm)  # (n, 1 or 3)
        follows = (slices.case[1:] == slices.case[:-1]) & (slices.number[1:] == slices.number[:-1] + 1)
        starts = np.flatnonzero(np.concatenate(([True], ~follows)))
        run = np.searchsorted(starts, np.arange(len(slices)), side="right") - 1
        self.first, self.last = starts[run], np.append(starts[1:], len(slices))[run] - 1  # of the scan of each slice

    def of(self, key: BatchKey) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the (N, 1 or 3, K) slices whose mean each channel of the inputs is, and their (N, K) weights.

        A thick slice is the mean of two to five consecutive slices, together at most `THICKEST_MM`.
        """
        indices, seeds = key[:, 0], key[:, 1]
        thin = self.thin[indices]  # (N, 1 or 3)
        if not self.thick_prob:
            return thin[:, :, None], np.ones((len(key), 1), dtype=np.float32)
        slices = np.repeat(thin[:, :, None], MOST_AVERAGED, axis=2)
        weights = np.zeros((len(key), MOST_AVERAGED), dtype=np.float32)
        for row, (index, thick) in enumerate(zip(indices, toss(key, Draw.THICK, self.thick_prob), strict=True)):
            spacing = float(self.spacing_mm[index])
            most = 1 if math.isnan(spacing) or not thick else min(MOST_AVERAGED, int(THICKEST_MM / spacing))
            count = 1 if most < 2 else int(np.random.default_rng((seeds[row], Draw.COUNT)).integers(2, most + 1))
            if count > 1:
                slices[row, :, :count] = self._thick(index, count)
            weights[row, :count] = 1 / count
        return slices, weights

    def _thick(self, index: int, count: int) -> NDArray[np.int64]:
        """Return the (1 or 3, count) slices of a thick slice and of its neighbours."""
        first, last = self.first[index], self.last[index]
        step = count * slices_apart(self.neighbours_mm, count * float(self.spacing_mm[index]))
        centres = index + np.array([-step, 0, step] if self.neighbours_mm else [0])
        centres = np.where((centres < first) | (centres > last), index, centres)
        return np.clip(centres[:, None] + np.arange(count) - (count - 1) // 2, first, last)
