"""Random augmentation of a training batch: pose, window, blur and noise, to generalise to other scanners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from groundglass.scan.intensity import AIR_HU

BLUR_RADIUS_PX = 4  # the blur kernel is 2 * 4 + 1 pixels wide


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of each augmentation; all zero leaves slices unchanged.

    Attributes:
        flip: Probability of a left-right mirror image.
        rotate_degrees: Largest rotation in either direction.
        scale: Largest relative change of size; the width is changed by up to a further third of it.
        shift: Largest shift in either direction, as a fraction of the side.
        window_hu: Largest change of the window's lower and of its upper end, in HU, which changes the contrast.
        gamma: Largest absolute logarithm of the exponent of a gamma curve.
        noise: Largest standard deviation of added noise, as a fraction of the window.
        blur_px: Largest standard deviation of a Gaussian blur, in pixels: softer kernels, thicker slices.
        rotate_180_prob: Probability of a rotation by 180 degrees: a prone patient, or a wrong orientation in the file.
        drop_neighbours_prob: Probability that a slice takes the place of its neighbours, as in a single picture.
    """

    flip: float = 0.5
    rotate_degrees: float = 15.0
    scale: float = 0.2
    shift: float = 0.1
    window_hu: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur_px: float = 0.0
    rotate_180_prob: float = 0.0
    drop_neighbours_prob: float = 0.0


def _random(generators: Sequence[torch.Generator]) -> Tensor:
    """Draw (N,) numbers in [0, 1), one from each slice's own generator."""
    return torch.stack([torch.rand((), generator=generator) for generator in generators])


def _uniform(limit: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw (N,) numbers in [-limit, limit]."""
    return (_random(generators) * 2 - 1) * limit


def _random_pose(config: AugmentConfig, aspect: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw (N, 2, 3) affine matrices [A | t] for `affine_grid`, which map output to input coordinates.

        A = 1/size * [stretch 0] * [cos           -sin / aspect] * [mirror 0]        t = [shift_x]
                     [0       1]   [sin * aspect   cos         ]   [0      1]            [shift_y]

    Coordinates run from -1 to 1 along either side, so a rotation contains `aspect`, which is width / height, and a
    shift by a fraction of the side is twice that fraction. The draws keep their order: it decides what a seed gives.
    """
    angle = _uniform(math.radians(config.rotate_degrees), generators)
    if config.rotate_180_prob:
        angle = angle + math.pi * (_random(generators) < config.rotate_180_prob)
    size = torch.exp(_uniform(math.log1p(config.scale), generators))
    stretch = torch.exp(_uniform(math.log1p(config.scale) / 3, generators))
    mirror = torch.where(_random(generators) < config.flip, -1.0, 1.0)
    shift_x, shift_y = _uniform(2 * config.shift, generators), _uniform(2 * config.shift, generators)

    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack((cos * mirror * stretch, -sin / aspect * stretch), dim=1)  # (N, 2)
    row_y = torch.stack((sin * aspect * mirror, cos), dim=1)  # (N, 2)
    matrix = torch.stack((row_x, row_y), dim=1) / size[:, None, None]  # (N, 2, 2)
    return torch.cat((matrix, torch.stack((shift_x, shift_y), dim=1)[:, :, None]), dim=2)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur each slice of (N, C, H, W), neighbours included, with its own Gaussian of (N,) `sigma` pixels."""
    offsets = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], dim=0)  # (N * C, 9)
    # One group for each of the N * C maps; rows and columns one after the other, because a Gaussian is separable.
    maps = functional.pad(image.flatten(0, 1)[None], [BLUR_RADIUS_PX] * 4, mode="replicate")  # (1, N * C, H + 8, W + 8)
    maps = functional.conv2d(maps, kernel[:, None, None, :], groups=len(kernel))
    maps = functional.conv2d(maps, kernel[:, None, :, None], groups=len(kernel))
    return maps.view(image.shape)


def _noise(image: Tensor, seeds: Sequence[int]) -> Tensor:
    """Draw standard normal numbers shaped like the (N, C, H, W) images, on their device, from each slice's seed."""
    generators = [torch.Generator(image.device).manual_seed(seed) for seed in seeds]
    return torch.stack(
        [torch.randn(image.shape[1:], generator=generator, device=image.device) for generator in generators]
    )


def augment(
    hu: Tensor, maps: Tensor, window: tuple[float, float], config: AugmentConfig, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Augment slices at random, and scale each by its (changed) window to [0, 1].

    The random numbers, except those of the noise, are drawn on the CPU; the slices are changed on their own device.

    Args:
        hu: (N, 1 or 3, H, W) float32, approximate HU: slices, or each between its neighbours.
        maps: (N, C, H, W) in [0, 1].
        window: Lower and upper end in HU.
        config: Strength of each augmentation.
        seeds: (N,) a seed for each slice, so that its changes do not depend on the other slices of the batch.

    Returns:
        Images in [0, 1] of the same shape as `hu`, and the maps in the same pose.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(limit: float) -> Tensor:
        return _uniform(limit, generators).to(hu.device)

    height, width = hu.shape[2:]
    pose = _random_pose(config, width / height, generators).to(hu.device)
    grid = functional.affine_grid(pose, [len(seeds), 1, height, width], align_corners=False)
    if config.drop_neighbours_prob:
        dropped = (_random(generators) < config.drop_neighbours_prob).to(hu.device)
        middle = hu[:, hu.shape[1] // 2, None]
        hu = torch.where(dropped[:, None, None, None], middle, hu)
    low, high = (end + uniform(config.window_hu)[:, None, None, None] for end in window)
    # Relative to air, so that the zeros which grid_sample fills in are air, as around a letterboxed slice.
    moved = functional.grid_sample(hu - AIR_HU, grid, align_corners=False) + AIR_HU
    maps = functional.grid_sample(maps.float(), grid, align_corners=False)
    if config.blur_px:
        moved = _blur(moved, uniform(config.blur_px).clamp(min=0))
    image = ((moved - low) / (high - low)).clamp(0, 1)
    if config.gamma:
        image = image ** torch.exp(uniform(config.gamma))[:, None, None, None]
    if config.noise:
        strength = uniform(config.noise).clamp(min=0)[:, None, None, None]
        image = image + strength * _noise(image, seeds)
    return image.clamp(0, 1), maps
