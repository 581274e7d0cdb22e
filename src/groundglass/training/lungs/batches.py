"""Batches for the lung network: slices turned, cut, blanked, noisy, in any window, each scaled by its own extremes.

Whatever a scanner, an anonymiser or a screenshot does to a slice is drawn at random here, so that the network needs to
know neither the window nor the field of view. Every random number follows from seed, epoch and batch alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from groundglass.inference.lungs.network import FRAME, INSIDE
from groundglass.training.lungs.slices import DRAWN, LEFT, NO_CHEST, RIGHT, LungSlices

PADDING_HU = (-1000.0, -1024.0, -2000.0, -3024.0)  # what scanners and anonymisers write where there is no patient
BLANK_HU = (*PADDING_HU, -1024.0, 0.0)  # what data sets write outside the lungs
NO_CHEST_SHARES = {NO_CHEST: 0.16, DRAWN: 0.08}  # of the slices of an epoch
PICTURES_SHARE = 0.15  # of them single pictures
LITTLE_LUNG = 1 / 3  # of the largest lungs of a case: slices with less, or none, count double
MOST_EXTRA = 9.0  # times the usual weight that a slice gains where an earlier network was wrong


@dataclass(frozen=True)
class LungSampling:
    """How an epoch is drawn.

    Attributes:
        steps: Batches in an epoch.
        batch_size: Slices in a batch.
        seed: Seed of all random numbers.
    """

    steps: int = 100
    batch_size: int = 12
    seed: int = 0


class LungBatches:
    """A `BatchSource` of images (N, 1, S, S) in [0, 1] and maps (N, 2, S, S) of the right and the left lung.

    Cases count by the square root of their slices, single pictures and images without lung with shares of their own.
    Within a case, slices that show little lung or none (domes, abdomen, neck) count double, and more those in which an
    earlier network was wrong. The right lung is the one on the left of the image, also where an image is mirrored or
    turned upside down: the network learns where a lung lies beside the mediastinum, and the scan's geometry tells what
    that side is called.
    """

    def __init__(
        self, slices: LungSlices, sampling: LungSampling, wrong_pixels: NDArray[np.int64] | None = None
    ) -> None:
        self._hu, self._label = torch.from_numpy(slices.hu), torch.from_numpy(slices.label)
        self._weights, self._sampling, self._epoch = slice_weights(slices, wrong_pixels), sampling, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    def to_device(self, device: torch.device) -> None:
        """Make batches on a device from now on."""
        self._hu, self._label = self._hu.to(device), self._label.to(device)

    def shard(self, rank: int, world_size: int) -> None:
        """Refuse more than one process: the network is small.

        Raises:
            ValueError: There are several processes.
        """
        if world_size > 1 or rank:
            raise ValueError("the lung network is trained in one process")

    def __len__(self) -> int:
        return self._sampling.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self._sampling.steps):
            rng = np.random.default_rng((self._sampling.seed, self._epoch, step))
            chosen = rng.choice(len(self._hu), self._sampling.batch_size, p=self._weights)
            yield augment_lungs(self._hu[chosen].float()[:, None], self._label[chosen], rng)


def slice_weights(slices: LungSlices, wrong_pixels: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return (n,) the chance of each slice to be drawn.

    Args:
        slices: The slices.
        wrong_pixels: (n,) pixels in which an earlier network was wrong; None: there was none.
    """
    names, group, count = np.unique(slices.group, return_inverse=True, return_counts=True)
    fixed = np.array([NO_CHEST_SHARES.get(name, 0.0) for name in names.tolist()])
    pictures = (count == 1) & (fixed == 0)
    fixed += PICTURES_SHARE * pictures / max(pictures.sum(), 1)
    cases = np.where(fixed > 0, 0.0, np.sqrt(count))
    share = fixed + (1 - fixed.sum()) * cases / max(cases.sum(), 1.0)
    area = (slices.label > 0).sum((1, 2))
    largest = np.zeros(len(names), area.dtype)
    np.maximum.at(largest, group, area)
    within = np.where(area < LITTLE_LUNG * largest[group], 2.0, 1.0)
    if wrong_pixels is not None:
        usual = np.maximum(1.0, np.bincount(group, wrong_pixels) / count)
        within *= 1 + (wrong_pixels / usual[group]).clip(max=MOST_EXTRA)
    weights = share[group] * within / np.bincount(group, within)[group]
    return np.asarray(weights / weights.sum())


class _Draw:
    """Random numbers for the slices of a batch, one each."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self._rng, self._count = rng, count

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.from_numpy(self._rng.uniform(low, high, self._count).astype(np.float32))

    def chance(self, probability: float) -> Tensor:
        return torch.from_numpy(self._rng.random(self._count) < probability)

    def one_of(self, values: Sequence[float]) -> Tensor:
        return torch.from_numpy(self._rng.choice(values, self._count).astype(np.float32))

    def normal(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self._rng.standard_normal(like.shape).astype(np.float32))

    def pixels(self, most: int) -> int:
        return int(self._rng.integers(0, most + 1))


def augment_lungs(hu: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Change slices at random.

    Args:
        hu: (N, 1, H, W) float32.
        label: (N, H, W) uint8 of `RIGHT` and `LEFT`.
        rng: The source of all random numbers.

    Returns:
        Images (N, 1, SIDE, SIDE) from 0 to 1, framed by 0, and the maps of right and left lung, 0 or 1.
    """
    draw = _Draw(rng, len(hu))
    maps = torch.stack([label == RIGHT, label == LEFT], 1).float()
    contrast = torch.where(draw.chance(0.1), draw.uniform(0.1, 0.8), 1.0)
    hu = _blank_outside(darken_lungs(hu, maps, contrast), maps, draw)
    hu, maps = _move(hu, maps, draw)
    hu, maps = _cut(hu, maps, draw)
    image, maps = _window(_degrade(hu, draw), draw), (maps > 0.5).float()
    return functional.pad(image, [FRAME] * 4), functional.pad(maps, [FRAME] * 4)


def _column(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def darken_lungs(hu: Tensor, maps: Tensor, contrast: Tensor) -> Tensor:
    """Make aerated lung darker, as in emphysema; what is dense in it stays.

    Args:
        hu: (N, 1, H, W).
        maps: (N, 2, H, W) of the right and the left lung, 0 or 1.
        contrast: (N,) by which its distance from air is multiplied.
    """
    aerated = (maps.amax(1, keepdim=True) > 0.5) & (hu < -500)
    return torch.where(aerated, -1000 + (hu + 1000) * _column(contrast), hu)


def _blank_outside(hu: Tensor, maps: Tensor, draw: _Draw) -> Tensor:
    """Sometimes set all outside the lungs to one value, as public data sets do."""
    lungs, reach = maps.amax(1, keepdim=True), draw.pixels(2)
    near = functional.max_pool2d(lungs, 2 * reach + 1, stride=1, padding=reach)
    blanked = draw.chance(0.15) & lungs.flatten(1).any(1)
    return torch.where(_column(blanked) & (near < 0.5), _column(draw.one_of(BLANK_HU)), hu)


def _move(hu: Tensor, maps: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Turn, mirror, stretch, zoom into and shift."""
    angle = draw.uniform(-math.pi / 12, math.pi / 12)
    angle = angle + math.pi * draw.chance(0.06)
    angle = torch.where(draw.chance(0.03), draw.uniform(-math.pi, math.pi), angle)
    zoom = torch.exp(draw.uniform(-0.35, 0.75) + draw.chance(0.12) * draw.uniform(0.2, 0.7))
    stretch = torch.exp(draw.uniform(-0.35, 0.35))
    mirror, flip = (1 - 2 * draw.chance(probability).float() for probability in (0.5, 0.06))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack([cos * mirror * stretch, -sin * flip * stretch, sin * mirror, cos * flip], 1)
    reach = (0.15 + 0.45 * (zoom - 1).clamp(min=0)).clamp(max=0.75)
    shift = torch.stack([draw.uniform(-1, 1) * reach, draw.uniform(-1, 1) * reach], 1)
    pose = torch.cat([rows.view(-1, 2, 2) / zoom[:, None, None], shift[:, :, None]], 2)
    grid = functional.affine_grid(pose.to(hu.device), [len(hu), 1, INSIDE, INSIDE], align_corners=False)
    hu = functional.grid_sample(hu + 1000, grid, align_corners=False) - 1000
    maps = functional.grid_sample(maps, grid, align_corners=False)
    for sides_change in (mirror < 0, torch.cos(angle) < 0):
        maps = torch.where(_column(sides_change.to(hu.device)), maps.flip(1), maps)
    return hu, maps


def _cut(hu: Tensor, maps: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Cut the field of view at some sides, or to a circle, and fill the rest with a padding value."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, INSIDE)] * 2, indexing="ij")
    ends = [torch.where(draw.chance(0.5), draw.uniform(0.3, 1.0), 1.0)[:, None, None] for _ in range(4)]
    outside = (x < -ends[0]) | (x > ends[1]) | (y < -ends[2]) | (y > ends[3])
    outside &= draw.chance(0.35)[:, None, None]
    circle = x**2 + y**2 > draw.uniform(0.85, 1.1)[:, None, None] ** 2
    outside = (outside | (circle & draw.chance(0.3)[:, None, None]))[:, None].to(hu.device)
    return torch.where(outside, _column(draw.one_of(PADDING_HU)), hu), maps * ~outside


def _degrade(hu: Tensor, draw: _Draw) -> Tensor:
    """Blur and add noise."""
    offsets = torch.arange(-3, 4).float()
    kernel = torch.exp(-0.5 * (offsets / draw.uniform(0.05, 1.2)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    stack = functional.pad(hu.transpose(0, 1), [3] * 4, mode="replicate")
    stack = functional.conv2d(stack, kernel[:, None, None, :], groups=len(hu))
    blurred = functional.conv2d(stack, kernel[:, None, :, None], groups=len(hu)).transpose(0, 1)
    hu = torch.where(_column(draw.chance(0.3)), blurred, hu)
    return hu + _column(draw.uniform(0, 60) * draw.chance(0.5)) * draw.normal(hu)


def _window(hu: Tensor, draw: _Draw) -> Tensor:
    """Apply a window drawn from narrow lung windows to all of CT, then scale by the extremes of the result."""
    low, high = draw.uniform(-1500, -900), draw.uniform(100, 700)
    wide, narrow = draw.chance(0.25), draw.chance(0.15)
    low, high = (
        torch.where(wide, draw.uniform(-2048, -1000), low),
        torch.where(wide, draw.uniform(400, 1700), high),
    )
    low, high = (
        torch.where(narrow, draw.uniform(-1100, -850), low),
        torch.where(narrow, draw.uniform(-50, 200), high),
    )
    image = ((hu - _column(low)) / _column(high - low)).clamp(0, 1)
    image = torch.where(_column(draw.chance(0.5)), (image * 255).round() / 255, image)
    return scale_by_extremes(image ** torch.exp(_column(draw.uniform(-0.35, 0.35))))


def scale_by_extremes(image: Tensor) -> Tensor:
    """Scale (N, 1, H, W) so that each image runs from 0 to 1."""
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp(min=1e-3)
