"""Looking for lungs: the slices as the lung network is to see them, and what is kept of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.lungs.network import INSIDE, LungNetwork
from groundglass.inference.lungs.parts import HALF, Maps, View
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import PackedMask, voxels_per_slice

SMALLEST_REGION = 0.04  # share of the largest region: smaller regions are no lung
SMALLEST_LUNG = 0.004  # share of a slice: with less of it in every slice of a volume, or in an image, there is no lung
# Mean probability of lung in what is found, of one slice and of several. Lungs of training scans have 0.98 and more,
# a slice of them seldom less than 0.92; heads and drawn images 0.6 to 0.9.
LEAST_CERTAINTY, LEAST_CERTAINTY_OF_VOLUME = 0.85, 0.9


@dataclass(frozen=True, eq=False)
class ShownSlices:
    """The slices of a scan as the network is to see them.

    Attributes:
        values: (z, y, x) the scan's numbers.
        limits: Numbers beyond which all looks alike to the network; None where the window is not known.
        blank: The number of what was blanked, which is shown as soft tissue; None: nothing was.
        tissue: The number of soft tissue, where something was blanked.
    """

    values: NDArray[Any]
    limits: tuple[float, float] | None
    blank: float | None
    tissue: float

    def part(self, z: int, box: Box) -> NDArray[Any]:
        """Return (y, x) a part of a slice."""
        plane = self.values[z, box.top : box.bottom, box.left : box.right]
        return plane if self.blank is None else np.where(plane == self.blank, self.tissue, plane)


def look(
    network: LungNetwork,
    slices: ShownSlices,
    views: Sequence[View],
    keep_levels: bool = False,
    looked: Callable[[], None] = lambda: None,
) -> list[View]:
    """Run the network on the slices of all views, one after the other, and return the views with its answers.

    Args:
        network: The lung network.
        slices: The slices.
        views: What the network is shown of them.
        keep_levels: Keep the slices as the network sees them.
        looked: Called after each slice.
    """
    wanted = [(int(z), view.box) for view in views if view.box for z in view.slices]
    found = network.maps((slices.part(z, box) for z, box in wanted), slices.limits)
    seen = []
    for view in views:
        maps = np.zeros((len(view.slices), 2, INSIDE, INSIDE), dtype=np.uint8)
        levels = np.zeros((len(maps) if keep_levels else 0, INSIDE, INSIDE), dtype=np.float32)
        for row, one in enumerate(islice(found, len(maps) if view.box else 0)):
            looked()
            maps[row] = np.rint(255 * one.probability)
            if keep_levels:
                levels[row] = one.levels
        drop_doubtful_regions(maps)
        seen.append(replace(view, levels=levels, maps=maps))
    return seen


def drop_doubtful_regions(maps: Maps) -> None:
    """Set the maps of a part to 0 where regions are too small to be lung, and everywhere if the lungs are doubtful."""
    probability = [plane.max(0) for plane in maps]
    lungs = PackedMask.from_slices(plane >= HALF for plane in probability)
    pixels = voxels_per_slice(lungs)
    certainty = sum(int(plane[lung].sum()) for plane, lung in zip(probability, lungs, strict=True))
    least = LEAST_CERTAINTY_OF_VOLUME if len(maps) > 1 else LEAST_CERTAINTY
    if pixels.max() < SMALLEST_LUNG * INSIDE**2 or certainty < least * 255 * pixels.sum():
        maps[:] = 0
        return
    regions = find_components(lungs, CONNECTIVITY_6)
    kept = regions.select(regions.sizes >= SMALLEST_REGION * regions.sizes.max())
    for plane, lung, keep in zip(maps, lungs, kept, strict=True):
        plane[:, lung & ~keep] = 0
