"""The network that finds the lungs: a whole slice of any window on a small grid, right and left lung as two maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import Engine, OnnxRuntimeEngine, sigmoid
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.model_card import BUNDLED_LUNGS, bundled_model, read_card
from groundglass.parallel import map_in_threads
from groundglass.scan.crop import resize_slice
from groundglass.workers import available_cores

SIDE = 160  # pixels of the network's input
FRAME = 8  # of these, at each side, that are as dark as the darkest pixel: what lies beyond the slice
INSIDE = SIDE - 2 * FRAME


class LungMaps(NamedTuple):
    """What the network says of a slice, or of a part of it.

    Attributes:
        levels: (INSIDE, INSIDE) the slice's numbers on the network's grid.
        probability: (2, INSIDE, INSIDE) of the lung on the left of the image, the patient's right one, and the other.
    """

    levels: NDArray[np.float32]
    probability: NDArray[np.float32]


class LungNetwork:
    """The lung network ready to run.

    Attributes:
        threads: Number of threads, in each of which a slice is computed.
    """

    def __init__(self, engine: Engine, threads: int) -> None:
        """Take an engine that computes in one thread, and runs in several at once."""
        self._engine, self.threads = engine, threads

    def maps(self, slices: Iterable[NDArray[Any]], limits: tuple[float, float] | None) -> Iterator[LungMaps]:
        """Run slices through the network, one in each thread.

        Args:
            slices: (y, x) each, slices or parts of them of any size, in any numbers that rise with HU.
            limits: Numbers beyond which all looks alike to the network, where the window is known.
        """
        return map_in_threads(partial(self._run, limits=limits), slices, self.threads)

    def _run(self, plane: NDArray[Any], limits: tuple[float, float] | None) -> LungMaps:
        levels = resize_slice(plane, INSIDE, INSIDE)
        inside = scale_by_extremes((levels if limits is None else levels.clip(*limits))[None])
        if not inside.any():  # padding alone
            return LungMaps(levels, np.zeros((2, INSIDE, INSIDE), np.float32))
        logits = self._engine.run(framed(inside))[0, :, FRAME:-FRAME, FRAME:-FRAME]
        return LungMaps(levels, sigmoid(logits))


@cache
def open_lung_network(threads: int | None = None) -> LungNetwork:
    """Open the bundled lung network.

    It computes in float32 by ONNX Runtime, so that CPUs differ by rounding alone, and starts sooner than with OpenVINO.
    With one thread for each slice it also works in a process that was forked from this one.

    Args:
        threads: Number of threads; None: one for each core.

    Raises:
        ModelError: Model or card is missing or damaged.
    """
    path = bundled_model(BUNDLED_LUNGS)
    read_card(path)
    return LungNetwork(OnnxRuntimeEngine(path, EngineConfig(threads=1)), threads or available_cores())


def scale_by_extremes(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (n, y, x) so that each image runs from 0 to 1."""
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return np.asarray((images - low) / np.maximum(high - low, 1e-6), dtype=np.float32)


def framed(inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, INSIDE, INSIDE) from 0 to 1 -> (n, 1, SIDE, SIDE), the network's input."""
    return np.pad(inside, ((0, 0), (FRAME, FRAME), (FRAME, FRAME)))[:, None]
