"""Where an exported lung network is wrong on the slices that teach the next one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.inference.engine import OnnxRuntimeEngine
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.lungs.finding import LIMITS_HU
from groundglass.inference.lungs.network import INSIDE, LungNetwork
from groundglass.scan.crop import resize_slice
from groundglass.training.lungs.slices import LEFT, RIGHT, LungSlices
from groundglass.workers import available_cores

MARGIN = 6  # pixels of a stored slice


def count_wrong_pixels(model: Path, slices: LungSlices) -> NDArray[np.int64]:
    """Return (n,) the pixels of each slice, on the network's grid, that an exported lung network gets wrong.

    It is shown whole slices, and the part of them around the lungs of their case, as when it looks for lungs. The
    outline, in which references differ as well, does not count: what is less than three pixels wide.
    """
    network = LungNetwork(OnnxRuntimeEngine(model, EngineConfig(threads=1)), available_cores())
    wrong_pixels = np.zeros(len(slices), np.int64)
    for group in np.unique(slices.group):
        members = np.flatnonzero(slices.group == group)
        for part in ((slice(None), slice(None)), _around(slices.label[members].max(0))):
            found = network.maps((slices.hu[n][part] for n in members), LIMITS_HU)
            for n, maps in zip(members, found, strict=True):
                wrong_pixels[n] += _wrong_pixels(maps.probability, slices.label[n][part])
    return wrong_pixels


def _around(lungs: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return rows and columns around what is not 0 in a map (y, x), with a margin; all of them without any."""
    ends = [np.flatnonzero(lungs.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(0, end[0] - MARGIN), end[-1] + 1 + MARGIN) if len(end) else slice(None) for end in ends)
    return rows, columns


def _wrong_pixels(probability: NDArray[np.float32], label: NDArray[np.uint8]) -> int:
    sides = np.stack([resize_slice(label == side, INSIDE, INSIDE) > 0.5 for side in (RIGHT, LEFT)])
    wrong = ((probability > 0.5) != sides).any(0)
    return int(np.count_nonzero(ndimage.binary_opening(wrong, np.ones((3, 3), bool))))
