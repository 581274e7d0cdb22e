"""Lesions of one slice transplanted into the lungs of another, so that each is seen in many chests."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from groundglass.training.slice_inputs import Draw

TRANSPLANTED = 0.7  # probability that a connected lesion of the donor is transplanted


def transplant(
    hu: Tensor, maps: Tensor, donor_hu: Tensor, donor_maps: Tensor, seeds: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Transplant lesions of donor slices, at their place, into the lungs of other slices.

    Lung becomes as dense as the lesion is, and nothing becomes less dense: vessels stay.

    Args:
        hu: (N, 1 or 3, H, W) slices, or each between its neighbours.
        maps: (N, maps, H, W) in [0, 1]: lesion first, the lungs last.
        donor_hu: The slices, of the same shape, whose lesions are transplanted.
        donor_maps: Their maps.
        seeds: (N,) seeds that choose among the lesions of each donor.

    Returns:
        HU and maps with the lesions of both.
    """
    chosen = [
        _some_lesions(lesion, seed) for lesion, seed in zip(donor_maps[:, 0].cpu().numpy(), seeds.tolist(), strict=True)
    ]
    placed = torch.from_numpy(np.stack(chosen)).to(hu.device)[:, None] & (maps[:, -1:] > 0.5)
    softened = functional.avg_pool2d(placed.float(), 3, stride=1, padding=1)
    hu = hu + softened * (donor_hu - hu).clamp(min=0)
    return hu, torch.cat((torch.where(placed, donor_maps[:, :-1], maps[:, :-1]), maps[:, -1:]), dim=1)


def _some_lesions(lesion: NDArray[np.float32], seed: int) -> NDArray[np.bool_]:
    """Choose connected lesions of an (H, W) map at random."""
    regions, count = ndimage.label(lesion > 0.5)
    chosen = np.random.default_rng((seed, Draw.LESIONS)).random(count) < TRANSPLANTED
    return np.concatenate(([False], chosen))[regions]
