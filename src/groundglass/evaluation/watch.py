"""A segmenter that counts what the network says while `segment`'s own code uses it: the network runs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.data.slices import take_labels
from groundglass.evaluation.calibration import Histogram
from groundglass.inference.segmenter import Place, Plane, Segmenter
from groundglass.scan.intensity import HuVolume
from groundglass.scan.lungs import LungField
from groundglass.scores import Confusion


class Watch(Segmenter):
    """Tells what `segmenter` tells, and counts the planes that pass.

    Attributes:
        field: The lung field before lesions were counted in; there once the segmenter was used.
        crops: {slice: counts on the network's own grid}, for slices with lesion.
        strongest: (z, y, x) uint8, the number of the class map with the highest probability, from 1; 0 where nothing
            was looked at. None for a model without class maps.
    """

    field: LungField

    def __init__(
        self, segmenter: Segmenter, truth: NDArray[np.bool_], counted: NDArray[np.bool_], histogram: Histogram
    ) -> None:
        """Watch a segmenter on a scan whose reference is `truth` (z, y, x), over the slices `counted` (z,)."""
        super().__init__(segmenter.card, segmenter.engine)
        self.crops: dict[int, Confusion] = {}
        self.strongest = np.zeros(truth.shape, dtype=np.uint8) if len(self.card.classes) > 1 else None
        self._truth, self._counted, self._histogram = truth, counted, histogram

    def grids(self, hu: HuVolume, places: Sequence[Place]) -> Iterator[NDArray[np.float32]]:
        """See `Segmenter`; counts the crops."""
        for (z, letterbox, _), grid in zip(places, super().grids(hu, places), strict=True):
            if self._truth[z].any():
                truth = take_labels(letterbox, self._truth[z].astype(np.uint8)) > 0
                self.crops[z] = Confusion.count(grid[0] >= self.card.threshold, truth)
            yield grid

    def planes(self, hu: HuVolume, field: LungField) -> Iterator[Plane]:
        """See `Segmenter`; counts the probabilities and keeps the strongest class."""
        self.field = field
        for plane in super().planes(hu, field):
            z, box, probability = plane
            place = z, slice(box.top, box.bottom), slice(box.left, box.right)
            if self._counted[z]:
                self._histogram.add(probability[0], self._truth[place])
            if self.strongest is not None:
                self.strongest[place] = 1 + probability[1:].argmax(0)
            yield plane
