"""Slices as batches of tensors.

The slices of a batch and their augmentation follow from the seed and the epoch alone. They depend neither on where a
training was resumed, nor on how many processes share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundglass.data.labels import CLASS_LABELS, UNSTATED
from groundglass.data.slices import NOT_READ, Slices
from groundglass.errors import ConfigError
from groundglass.training.augment import AugmentConfig, augment
from groundglass.training.slice_inputs import BatchKey, Draw, SliceInputs, draw, toss
from groundglass.training.transplant import transplant

SCORING_BATCH = 8  # slices in a batch that is scored, not trained on
Batch: TypeAlias = tuple[Tensor, Tensor]  # images (N, 1 or 3, H, W) in [0, 1], targets (N, maps, H, W)
NO_AUGMENTATION = AugmentConfig(flip=0, rotate_degrees=0, scale=0, shift=0)


class _SequentialOrder:
    """All slices in their order, the same in every epoch."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def keys(self, _: int) -> Iterator[BatchKey]:
        for start in range(0, self.count, self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, self.count))
            yield np.stack((indices, np.zeros_like(indices)), axis=1)


class _RandomOrder:
    """Slices sampled at random by weight; an epoch is the same whenever it is sampled."""

    def __init__(self, weights: NDArray[np.float64], samples: int, batch_size: int, seed: int) -> None:
        self.weights, self.samples, self.seed = weights, samples, seed
        self.batch_size = min(batch_size, samples)

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def keys(self, epoch: int) -> Iterator[BatchKey]:
        rng = np.random.default_rng((self.seed, epoch))
        # Take every slice as often as the epoch holds all of them; sample the rest by weight, without replacement.
        count = len(self.weights)
        permutations = [rng.permutation(count) for _ in range(self.samples // count)]
        rest = rng.choice(count, self.samples % count, replace=False, p=self.weights / self.weights.sum())
        order = np.concatenate([*permutations, rest]).astype(np.int64)
        keys = np.stack((order, rng.integers(2**31, size=len(order))), axis=1)
        for batch in range(len(self)):
            yield keys[batch * self.batch_size : (batch + 1) * self.batch_size]


class Batches:
    """The batches of an epoch: images (N, 1 or 3, H, W) in [0, 1] and targets (N, maps, H, W).

    The maps are lesion, each of `classes`, and lung if `lung_map` is set. Targets are 1 or 0, and -1 in the map of a
    class where the reference states none: the loss ignores that pixel. Where two people read a scan, the lesion map is
    the first reader's or the second's, at random. Soft targets, (n, H, W) in [0, 1], replace the lesion map. Each batch
    is made in a thread while the one before it is in use, on the device where it is needed.
    """

    def __init__(
        self,
        slices: Slices,
        window: tuple[float, float],
        classes: Sequence[str],
        augmentation: AugmentConfig,
        order: _SequentialOrder | _RandomOrder,
        neighbours_mm: float,
        soft_targets: NDArray[np.float16] | None = None,
        lung_map: bool = False,
        thick_prob: float = 0.0,
        transplant_prob: float = 0.0,
    ) -> None:
        self.hu, self.labels = torch.from_numpy(slices.hu), torch.from_numpy(slices.labels)
        self.lungs = torch.from_numpy(slices.lungs) if lung_map and slices.lungs is not None else None
        self.second_reader = None if slices.second_reader is None else torch.from_numpy(slices.second_reader)
        self.inputs = SliceInputs(slices, neighbours_mm, thick_prob)
        self.soft_targets = None if soft_targets is None else torch.from_numpy(soft_targets)
        self.donors = np.flatnonzero(slices.has_lesion)
        self.transplant_prob = transplant_prob if len(self.donors) else 0.0
        self.window, self.augmentation, self.order = window, augmentation, order
        self.classes = [CLASS_LABELS[name] for name in classes]
        self.epoch, self.rank, self.world_size = 0, 0, 1
        self._thread = ThreadPoolExecutor(1, "batches")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def to_device(self, device: torch.device) -> None:
        """Move the slices to a device, and make the batches there from now on."""
        self.hu, self.labels = self.hu.to(device), self.labels.to(device)
        self.lungs, self.second_reader, self.soft_targets = (
            None if maps is None else maps.to(device) for maps in (self.lungs, self.second_reader, self.soft_targets)
        )

    def shard(self, rank: int, world_size: int) -> None:
        """Yield from now on only one process's part of each batch: every `world_size`-th slice, starting at `rank`.

        The part of the last sequential batch may be empty.

        Raises:
            ConfigError: The batches of a training hold fewer slices than there are processes.
        """
        if isinstance(self.order, _RandomOrder) and self.order.batch_size < world_size:
            raise ConfigError(
                f"a batch of {self.order.batch_size} cannot be shared by {world_size} processes: "
                "choose a larger sampling.batch_size, or fewer devices"
            )
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        ahead: Future[Batch] | None = None
        for key in self.order.keys(self.epoch):
            following = self._thread.submit(self._make, key[self.rank :: self.world_size])
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()

    def _make(self, key: BatchKey) -> Batch:
        (hu, maps), seeds = self._read(key), key[:, 1]
        chosen = toss(key, Draw.TRANSPLANT, self.transplant_prob)
        if chosen.any():
            donors = np.stack((draw(key[chosen], Draw.DONOR, self.donors), seeds[chosen]), axis=1)
            hu[chosen], maps[chosen] = transplant(hu[chosen], maps[chosen], *self._read(donors), seeds[chosen])
        image, maps = augment(hu, maps, self.window, self.augmentation, seeds.tolist()) if len(key) else (hu, maps)
        if self.lungs is None:
            return image, _targets(maps, soft=self.soft_targets is not None)
        lesions = _targets(maps[:, :-1], soft=self.soft_targets is not None)
        return image, torch.cat((lesions, maps[:, -1:].round()), dim=1)

    def _read(self, key: BatchKey) -> tuple[Tensor, Tensor]:
        """Return HU (N, 1 or 3, H, W) and maps (N, maps, H, W) of a batch."""
        averaged, weights = (torch.from_numpy(array).to(self.hu.device) for array in self.inputs.of(key))
        hu = (self.hu[averaged].float() * weights[:, None, :, None, None]).sum(2)
        return hu, self._maps(averaged[:, averaged.shape[1] // 2], weights, key)

    def _maps(self, averaged: Tensor, weights: Tensor, key: BatchKey) -> Tensor:
        """Return the maps of a batch, (N, maps, H, W): each the weighted mean of the maps of (N, K) slices."""
        slices = averaged.flatten()  # (N * K,)
        maps = _label_maps(self.labels[slices], self.classes)  # (N * K, maps, H, W)
        if self.second_reader is not None:
            second, turn = self.second_reader[slices], torch.from_numpy(toss(key, Draw.SECOND_READER, 0.5))
            turn = turn.to(slices.device).repeat_interleave(averaged.shape[1])[:, None, None]
            maps[:, 0] = torch.where(turn & (second != NOT_READ), (second == 1).float(), maps[:, 0])
        if self.soft_targets is not None:
            maps[:, 0] = self.soft_targets[slices].float()
        if self.lungs is not None:
            maps = torch.cat((maps, self.lungs[slices, None].float()), dim=1)
        mean: Tensor = (maps.unflatten(0, averaged.shape) * weights[:, :, None, None, None]).sum(1)
        return mean


def _label_maps(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """(N, H, W) labels -> (N, 1, H, W) map of 0 or 1 for lesion, and with classes (N, 1 + C + 1, H, W).

    The maps are lesion, each class, and lesion of no stated class. Unlike labels, they can be rotated and scaled.
    """
    labels_of_maps = (*classes, UNSTATED) if classes else ()
    return torch.stack([labels > 0, *(labels == label for label in labels_of_maps)], dim=1).float()


def _targets(maps: Tensor, soft: bool) -> Tensor:
    """Augmented `_label_maps` -> (N, 1 + C, H, W): 1 or 0, and -1 in the classes where none is stated."""
    rounded = maps.round()
    lesion, classes, unstated = (maps if soft else rounded)[:, :1], rounded[:, 1:-1], rounded[:, -1:]
    return torch.cat((lesion, torch.where(unstated > 0, -1.0, classes)), dim=1)


@dataclass(frozen=True)
class SamplingConfig:
    """How the slices of an epoch are sampled.

    Attributes:
        batch_size: Slices in a batch, over all processes; an incomplete last batch is dropped. The paper does not
            state it.
        samples: Slices in an epoch; 0 takes every slice once.
        balance: Weights a slice by (slices of its case)^-balance: 0 treats slices alike, 1 treats cases alike.
        lesion_free: Also sample slices of the lung without lesion, which the paper leaves out.
        thick_prob: Probability that a thin slice is replaced by the mean of itself and its neighbours, as in a scan of
            thicker slices.
        transplant_prob: Probability that lesions of another slice are transplanted into the lungs.
    """

    batch_size: int = 4
    samples: int = 0
    balance: float = 0.0
    lesion_free: bool = False
    thick_prob: float = 0.0
    transplant_prob: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples < 0:
            raise ValueError("batch_size must be 1 or more, and samples must not be negative")


def training_batches(
    slices: Slices,
    window: tuple[float, float],
    sampling: SamplingConfig,
    augmentation: AugmentConfig,
    seed: int,
    classes: Sequence[str] = (),
    neighbours_mm: float = 0.0,
    soft_targets: NDArray[np.float16] | None = None,
    lung_map: bool = False,
) -> Batches:
    """Return shuffled, augmented batches.

    Args:
        slices: Slices to sample from.
        window: Lower and upper end in HU.
        sampling: Number of slices, and the weight of each.
        augmentation: Strength of each augmentation.
        seed: Seed of order and augmentation.
        classes: Names from `CLASS_LABELS`; each gets a target map after the lesion's.
        neighbours_mm: Distance of the slices below and above that are added to each image; 0 adds none.
        soft_targets: (n, height, width) in [0, 1] to replace the lesion map; None takes the reader's mask.
        lung_map: Add a target map of the lungs.
    """
    slices_in_case = Counter(slices.case.tolist())
    weights = np.array([slices_in_case[case] ** -sampling.balance for case in slices.case.tolist()])
    order = _RandomOrder(weights, sampling.samples or len(slices), sampling.batch_size, seed)
    return Batches(
        slices,
        window,
        classes,
        augmentation,
        order,
        neighbours_mm,
        soft_targets,
        lung_map,
        sampling.thick_prob,
        sampling.transplant_prob,
    )


def plain_batches(
    slices: Slices,
    window: tuple[float, float],
    batch_size: int,
    classes: Sequence[str] = (),
    neighbours_mm: float = 0.0,
    lung_map: bool = False,
) -> Batches:
    """Return all slices in order and without augmentation, for scoring; arguments as for `training_batches`."""
    order = _SequentialOrder(len(slices), batch_size)
    first_reader = replace(slices, second_reader=None)
    return Batches(first_reader, window, classes, NO_AUGMENTATION, order, neighbours_mm, lung_map=lung_map)
