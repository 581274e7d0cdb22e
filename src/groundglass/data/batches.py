"""Slices as batches of tensors. The same seed and epoch give the same batches, wherever a training was resumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from groundglass.data.augment import AugmentConfig, augment
from groundglass.data.slices import Slices

BatchKey = tuple[int, NDArray[np.int64]]  # a seed for the augmentation, and which slices


class _EpochBatches(Sampler[BatchKey]):
    """The batches of an epoch; Lightning calls `set_epoch`."""

    def __init__(self, weights: NDArray[np.float64], samples: int, batch_size: int, seed: int) -> None:
        self.weights, self.samples, self.batch_size, self.seed = weights, samples, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.samples // self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        rng = np.random.default_rng((self.seed, self.epoch))
        # Whole rounds take every slice once; what is left of the epoch is drawn by weight, without repetition.
        count = len(self.weights)
        rounds = [rng.permutation(count) for _ in range(self.samples // count)]
        rest = rng.choice(count, self.samples % count, replace=False, p=self.weights / self.weights.sum())
        order = np.concatenate([*rounds, rest]).astype(np.int64)
        for batch in range(len(self)):
            yield int(rng.integers(2**31)), order[batch * self.batch_size : (batch + 1) * self.batch_size]


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, slices: Slices, window: tuple[float, float], config: AugmentConfig) -> None:
        self.slices, self.window, self.config = slices, window, config

    def __getitem__(self, key: BatchKey) -> tuple[Tensor, Tensor]:
        seed, members = key
        hu = torch.from_numpy(self.slices.hu[members].astype(np.float32))[:, None]
        target = torch.from_numpy((self.slices.labels[members] > 0).astype(np.float32))[:, None]
        return augment(hu, target, self.window, self.config, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class DrawConfig:
    """How the slices of an epoch are drawn.

    Attributes:
        batch_size: Slices of a batch; a last incomplete one is left out. The paper does not state it.
        samples: Slices of an epoch; 0: every slice once.
        balance: A slice's weight is (slices of its case)^-balance: 0 treats slices alike, 1 treats cases alike.
    """

    batch_size: int = 4
    samples: int = 0
    balance: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples < 0:
            raise ValueError("batch_size is 1 or more, and samples is not negative")


def training_batches(
    slices: Slices, window: tuple[float, float], draw: DrawConfig, change: AugmentConfig, seed: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches: images (N, 1, H, W) in [0, 1] and targets (N, 1, H, W).

    Args:
        slices: What to draw from.
        window: Lower and upper end in HU.
        draw: How many, and how often each.
        change: How far slices are changed.
        seed: Of order and augmentation.
    """
    counts = Counter(slices.case.tolist())
    weights = np.array([counts[name] ** -draw.balance for name in slices.case.tolist()])
    sampler = _EpochBatches(weights, draw.samples or len(slices), draw.batch_size, seed)
    return DataLoader(_Batches(slices, window, change), batch_size=None, sampler=sampler)


def plain_batches(slices: Slices, window: tuple[float, float], batch_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """All slices in order and unchanged, for scoring."""
    still = AugmentConfig(flip=0, rotate_degrees=0, scale=0, shift=0)
    starts = range(0, len(slices), batch_size)
    keys = [(0, np.arange(start, min(start + batch_size, len(slices)))) for start in starts]
    return DataLoader(_Batches(slices, window, still), batch_size=None, sampler=keys)
