"""Whether grey levels are bright where CT is dark: then their negative shows lungs better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from groundglass.inference.lungs.network import INSIDE, LungNetwork
from groundglass.inference.lungs.parts import View, certain_pixels, mean_certainty
from groundglass.inference.lungs.search import ShownSlices, look
from groundglass.scan.lung_field import Box

NEGATIVES = 8  # pictures, or slices of a volume, whose negative is looked at
MUCH_CERTAINTY, LITTLE_CERTAINTY = 0.08, 0.02  # of 1; of 222 real pictures none is taken for a negative


def is_inverted(network: LungNetwork, slices: ShownSlices, located: Sequence[View]) -> bool:
    """Return whether the negative of most parts in which lungs were found shows lungs better.

    Args:
        network: The lung network.
        slices: What it saw.
        located: What it said of it, with the levels on its own grid, which are not scaled again.
    """
    shown = [view for view in located if view.maps.any()]
    looked_at = [_few_slices(view) for view in shown[:: max(1, len(shown) // NEGATIVES)]]
    negatives = [_negative(network, slices, view) for view in looked_at]
    return sum(map(_shows_lungs_better, negatives, looked_at)) > len(looked_at) / 2


def _few_slices(view: View) -> View:
    """Return the view with some of its slices that show lung."""
    shown = np.flatnonzero(view.lungs.any((1, 2)))
    few = shown[:: math.ceil(len(shown) / NEGATIVES)]
    return replace(view, slices=view.slices[few], levels=view.levels[few], maps=view.maps[few])


def _negative(network: LungNetwork, slices: ShownSlices, view: View) -> View:
    """Return what the network says of the negative of the levels of a view."""
    negative = replace(slices, values=-view.levels, blank=None)
    grid = replace(view, slices=np.arange(len(view.levels)), box=Box(0, INSIDE, 0, INSIDE))
    return look(network, negative, [grid])[0]


def _shows_lungs_better(one: View, other: View) -> bool:
    """Return whether lungs are found with much more certainty, or with about the same in more pixels."""
    gain = mean_certainty(one.maps) - mean_certainty(other.maps)
    return gain > MUCH_CERTAINTY or (gain > -LITTLE_CERTAINTY and certain_pixels([one]) > certain_pixels([other]))
