"""Random changes of a training batch: pose, window, blur and noise, so that other scanners look familiar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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
    """

    flip: float = 0.5
    rotate_degrees: float = 15.0
    scale: float = 0.2
    shift: float = 0.1
    window_hu: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur_px: float = 0.0


def _uniform(count: int, reach: float, generator: torch.Generator) -> Tensor:
    """(count,) numbers in [-reach, reach]."""
    return (torch.rand(count, generator=generator) * 2 - 1) * reach


def _pose(count: int, config: AugmentConfig, aspect: float, generator: torch.Generator) -> Tensor:
    """(count, 2, 3) affine matrices for `affine_grid`; `aspect` is width / height."""
    angle = _uniform(count, math.radians(config.rotate_degrees), generator)
    size = torch.exp(_uniform(count, math.log1p(config.scale), generator))
    stretch = torch.exp(_uniform(count, math.log1p(config.scale) / 3, generator))
    mirror = torch.where(torch.rand(count, generator=generator) < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack((cos * mirror * stretch, -sin / aspect * stretch, sin * aspect * mirror, cos), dim=1)
    matrix = rows.view(count, 2, 2) / size[:, None, None]
    return torch.cat((matrix, _uniform(2 * count, 2 * config.shift, generator).view(count, 2, 1)), dim=2)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Each (1, H, W) slice blurred with its own Gaussian, separably."""
    count = len(image)
    offsets = torch.arange(-3, 4, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    stack = functional.pad(image.transpose(0, 1), (3, 3, 3, 3), mode="replicate")  # (1, n, H, W): a group each
    stack = functional.conv2d(stack, kernel.view(count, 1, 1, 7), groups=count)
    return functional.conv2d(stack, kernel.view(count, 1, 7, 1), groups=count).transpose(0, 1)


def augment(
    hu: Tensor, target: Tensor, window: tuple[float, float], config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Change a batch at random, and scale it by its (changed) window.

    Args:
        hu: (N, 1, H, W) float32, approximate HU.
        target: (N, C, H, W), 0 or 1.
        window: Lower and upper end in HU.
        config: How far.
        generator: Source of every random number.

    Returns:
        (N, 1, H, W) in [0, 1] and the target moved alike.
    """
    count, _, height, width = hu.shape
    grid = functional.affine_grid(
        _pose(count, config, width / height, generator), [count, 1, height, width], align_corners=False
    )
    low = window[0] + _uniform(count, config.window_hu, generator)
    high = window[1] + _uniform(count, config.window_hu, generator)
    outside = window[0] - hu  # so that the 0 which grid_sample fills in means air
    moved = functional.grid_sample(-outside, grid, align_corners=False) + window[0]
    target = functional.grid_sample(target.float(), grid, align_corners=False).round()
    if config.blur_px:
        moved = _blur(moved, _uniform(count, config.blur_px, generator).clamp(min=0))
    low, high = low[:, None, None, None], high[:, None, None, None]
    image = ((moved - low) / (high - low)).clamp(0, 1)
    if config.gamma:
        image = image ** torch.exp(_uniform(count, config.gamma, generator))[:, None, None, None]
    if config.noise:
        strength = _uniform(count, config.noise, generator).clamp(min=0)[:, None, None, None]
        image = image + strength * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1), target
