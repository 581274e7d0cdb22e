"""Slices as batches of tensors.

Which slices a batch holds, and how each is changed, follows from the seed and the epoch alone: neither from where a
training was resumed, nor from how many processes share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundglass.data.slices import CLASS_LABELS, UNSTATED, Slices
from groundglass.errors import ConfigError
from groundglass.training.augment import AugmentConfig, augment

SCORING_BATCH = 8  # slices, where nothing is learnt from them
Batch = tuple[Tensor, Tensor]
BatchKey = NDArray[np.int64]  # (n, 2): of each slice its place and the seed of its changes


class _InOrder:
    """All slices as they come, in every epoch."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def of(self, _: int) -> Iterator[BatchKey]:
        for start in range(0, self.count, self.batch_size):
            places = np.arange(start, min(start + self.batch_size, self.count))
            yield np.stack((places, np.zeros_like(places)), axis=1)


class _Drawn:
    """Slices drawn at random, the same for an epoch whenever it is drawn."""

    def __init__(self, weights: NDArray[np.float64], samples: int, batch_size: int, seed: int) -> None:
        self.weights, self.samples, self.seed = weights, samples, seed
        self.batch_size = min(batch_size, samples)

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def of(self, epoch: int) -> Iterator[BatchKey]:
        rng = np.random.default_rng((self.seed, epoch))
        # Whole rounds take every slice once; what is left of the epoch is drawn by weight, without repetition.
        count = len(self.weights)
        rounds = [rng.permutation(count) for _ in range(self.samples // count)]
        rest = rng.choice(count, self.samples % count, replace=False, p=self.weights / self.weights.sum())
        order = np.concatenate([*rounds, rest]).astype(np.int64)
        keys = np.stack((order, rng.integers(2**31, size=len(order))), axis=1)
        for batch in range(len(self)):
            yield keys[batch * self.batch_size : (batch + 1) * self.batch_size]


class Batches:
    """An epoch's batches: images (N, 1 or 3, H, W) in [0, 1] and targets (N, 1 + classes, H, W).

    Targets are 1 or 0; in a map of a class also -1, where the reference states none: the loss leaves that pixel out.
    Soft targets, (n, H, W) in [0, 1], take the place of the lesion map.
    Each batch is made in a thread while the one before it is in use, on the device where it is wanted.
    """

    def __init__(
        self,
        slices: Slices,
        window: tuple[float, float],
        classes: Sequence[str],
        change: AugmentConfig,
        order: _InOrder | _Drawn,
        neighbours_mm: float,
        soft: NDArray[np.float16] | None = None,
    ) -> None:
        self.soft = None if soft is None else torch.from_numpy(soft)
        self.hu, self.labels = torch.from_numpy(slices.hu), torch.from_numpy(slices.labels)
        self.seen = torch.from_numpy(slices.between_neighbours(neighbours_mm))
        self.window, self.change, self.order = window, change, order
        self.classes = [CLASS_LABELS[name] for name in classes]
        self.epoch, self.rank, self.world = 0, 0, 1
        self._thread = ThreadPoolExecutor(1, "batches")

    def set_epoch(self, epoch: int) -> None:
        """Give that epoch's batches the next time."""
        self.epoch = epoch

    def place(self, device: torch.device) -> None:
        """From now on keep the slices on a device, and make the batches there."""
        self.hu, self.labels, self.seen = self.hu.to(device), self.labels.to(device), self.seen.to(device)
        self.soft = None if self.soft is None else self.soft.to(device)

    def share(self, rank: int, world: int) -> None:
        """From now on give of every batch the slices of one process: each `world`-th, from the `rank`-th on.

        The last batch of unchanged slices may leave a process none.

        Raises:
            ConfigError: The batches of a training hold fewer slices than there are processes.
        """
        if isinstance(self.order, _Drawn) and self.order.batch_size < world:
            raise ConfigError(
                f"a batch of {self.order.batch_size} cannot be shared by {world} processes: "
                "choose a larger sampling.batch_size, or fewer devices"
            )
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        ahead: Future[Batch] | None = None
        for key in self.order.of(self.epoch):
            following = self._thread.submit(self._make, key[self.rank :: self.world])
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()

    def _make(self, key: BatchKey) -> Batch:
        places, seeds = key.T
        taken = torch.from_numpy(places).to(self.hu.device)
        hu = self.hu[self.seen[taken]].float()
        maps = _maps(self.labels[taken], self.classes)
        if self.soft is not None:
            maps[:, 0] = self.soft[taken].float()
        image, maps = augment(hu, maps, self.window, self.change, seeds.tolist()) if len(key) else (hu, maps)
        return image, _targets(maps, soft=self.soft is not None)


def _maps(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """(N, H, W) labels -> 0 or 1: (N, 1, H, W) lesion, and with classes (N, C, H, W) of them and (N, 1, H, W) of none.

    As maps they can be turned and scaled; labels cannot.
    """
    kinds = (*classes, UNSTATED) if classes else ()
    return torch.stack([labels > 0, *(labels == kind for kind in kinds)], dim=1).float()


def _targets(maps: Tensor, soft: bool) -> Tensor:
    """`_maps` -> (N, 1 + classes, H, W): 1, 0, or in a class -1 where none is stated, which the loss leaves out."""
    whole = maps.round()
    lesion, classes, unstated = (maps if soft else whole)[:, :1], whole[:, 1:-1], whole[:, -1:]
    return torch.cat((lesion, torch.where(unstated > 0, -1.0, classes)), dim=1)


@dataclass(frozen=True)
class SamplingConfig:
    """How the slices of an epoch are drawn.

    Attributes:
        batch_size: Slices of a batch, over all processes; a last incomplete one is left out. The paper does not state
            it.
        samples: Slices of an epoch; 0: every slice once.
        balance: A slice's weight is (slices of its case)^-balance: 0 treats slices alike, 1 treats cases alike.
        lesion_free: Draw slices of the lung without lesion too (the paper leaves them out).
    """

    batch_size: int = 4
    samples: int = 0
    balance: float = 0.0
    lesion_free: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples < 0:
            raise ValueError("batch_size is 1 or more, and samples is not negative")


def training_batches(
    slices: Slices,
    window: tuple[float, float],
    sampling: SamplingConfig,
    change: AugmentConfig,
    seed: int,
    classes: Sequence[str] = (),
    neighbours_mm: float = 0.0,
    soft: NDArray[np.float16] | None = None,
) -> Batches:
    """Shuffled, changed batches.

    Args:
        slices: What to draw from.
        window: Lower and upper end in HU.
        draw: How many, and how often each.
        change: How far slices are changed.
        seed: Of order and changes.
        classes: Of `CLASS_LABELS`; a target map each, after the lesion's.
        neighbours_mm: Images hold the slices that far below and above too; 0: the slice alone.
        soft: (n, height, width) in [0, 1], in the place of the lesion map; None: the reader's mask.
    """
    counts = Counter(slices.case.tolist())
    weights = np.array([counts[name] ** -sampling.balance for name in slices.case.tolist()])
    drawn = _Drawn(weights, sampling.samples or len(slices), sampling.batch_size, seed)
    return Batches(slices, window, classes, change, drawn, neighbours_mm, soft)


def plain_batches(
    slices: Slices,
    window: tuple[float, float],
    batch_size: int,
    classes: Sequence[str] = (),
    neighbours_mm: float = 0.0,
) -> Batches:
    """All slices in order and unchanged, for scoring; arguments as for `training_batches`."""
    still = AugmentConfig(flip=0, rotate_degrees=0, scale=0, shift=0)
    return Batches(slices, window, classes, still, _InOrder(len(slices), batch_size), neighbours_mm)
