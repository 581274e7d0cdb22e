"""Random changes of a training batch: pose, window, blur and noise, so that other scanners look familiar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from groundglass.scan.intensity import AIR_HU

BLUR_REACH_PX = 4  # of its kernel, either way


@dataclass(frozen=True)
class AugmentConfig:
    """How far a slice may be changed; all zero leaves it as it is.

    Attributes:
        flip: Chance of a left-right mirror image.
        rotate_degrees: Largest turn either way.
        scale: Largest relative change of size, each axis on its own by a third of it.
        shift: Largest shift either way, as a share of the side.
        window_hu: Largest change of the window's lower and of its upper end, in HU: other windows, other contrast.
        gamma: Largest change of the logarithm of a gamma curve's exponent.
        noise: Largest standard deviation of added noise, as a share of the window.
        blur_px: Largest standard deviation of a Gaussian blur, in pixels: softer kernels, thicker slices.
        upside_down: Chance of a turn by 180 degrees: a patient who lies prone, or a wrong mark of orientation.
        alone: Chance that a slice takes the places of its neighbours, as a picture does.
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


def _random(dice: Sequence[torch.Generator]) -> Tensor:
    """(N,) numbers in [0, 1), one of each slice's own."""
    return torch.stack([torch.rand((), generator=die) for die in dice])


def _uniform(reach: float, dice: Sequence[torch.Generator]) -> Tensor:
    """(N,) numbers in [-reach, reach]."""
    return (_random(dice) * 2 - 1) * reach


def _pose(config: AugmentConfig, aspect: float, dice: Sequence[torch.Generator]) -> Tensor:
    """(N, 2, 3) affine matrices for `affine_grid`; `aspect` is width / height."""
    angle = _uniform(math.radians(config.rotate_degrees), dice)
    if config.rotate_180_prob:
        angle = angle + math.pi * (_random(dice) < config.rotate_180_prob)
    size = torch.exp(_uniform(math.log1p(config.scale), dice))
    stretch = torch.exp(_uniform(math.log1p(config.scale) / 3, dice))
    mirror = torch.where(_random(dice) < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack((cos * mirror * stretch, -sin / aspect * stretch, sin * aspect * mirror, cos), dim=1)
    shift = torch.stack((_uniform(2 * config.shift, dice), _uniform(2 * config.shift, dice)), dim=1)
    return torch.cat((rows.view(-1, 2, 2) / size[:, None, None], shift[:, :, None]), dim=2)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Each (C, H, W) slice with its neighbours blurred with its own Gaussian, separably."""
    offsets = torch.arange(-BLUR_REACH_PX, BLUR_REACH_PX + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], dim=0)
    stack = functional.pad(image.flatten(0, 1)[None], [BLUR_REACH_PX] * 4, mode="replicate")  # a group each
    stack = functional.conv2d(stack, kernel[:, None, None, :], groups=len(kernel))
    stack = functional.conv2d(stack, kernel[:, None, :, None], groups=len(kernel))
    return stack.view(image.shape)


def _noise(image: Tensor, seeds: Sequence[int]) -> Tensor:
    """Standard normal numbers like the (N, C, H, W) images, drawn on their device from each slice's own seed."""
    dice = [torch.Generator(image.device).manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(image.shape[1:], generator=die, device=image.device) for die in dice])


def augment(
    hu: Tensor, maps: Tensor, window: tuple[float, float], config: AugmentConfig, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Change slices at random, and scale each by its (changed) window.

    The random numbers are drawn on the CPU, but for the noise; the work is done where the slices are.

    Args:
        hu: (N, 1 or 3, H, W) float32, approximate HU: slices, or each between its neighbours.
        maps: (N, C, H, W) in [0, 1].
        window: Lower and upper end in HU.
        config: How far.
        seeds: (N,) of each slice's random numbers: what becomes of it does not depend on its companions.

    Returns:
        Images like `hu` in [0, 1], and the maps moved alike.
    """
    dice = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(reach: float) -> Tensor:
        return _uniform(reach, dice).to(hu.device)

    height, width = hu.shape[2:]
    pose = _pose(config, width / height, dice).to(hu.device)
    grid = functional.affine_grid(pose, [len(seeds), 1, height, width], align_corners=False)
    if config.drop_neighbours_prob:
        drop_neighbours_prob = (_random(dice) < config.drop_neighbours_prob).to(hu.device)
        hu = torch.where(drop_neighbours_prob[:, None, None, None], hu[:, hu.shape[1] // 2, None], hu)
    low, high = (end + uniform(config.window_hu)[:, None, None, None] for end in window)
    # Above air, so that the 0 which grid_sample fills in means air, as around a letterboxed slice.
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
