"""A segmenter that records scores while `segment_scan` uses it, so that the network runs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.data.slices import take_labels
from groundglass.evaluation.calibration import CalibrationHistogram
from groundglass.inference.segmenter import Segmenter, SliceInput, SlicePrediction
from groundglass.metrics import Confusion
from groundglass.scan.intensity import HuVolume
from groundglass.scan.lung_field import LungField


class RecordingSegmenter(Segmenter):
    """Behaves like the segmenter it is made from and records counts for each predicted slice.

    Attributes:
        lung_field: The lung field before lesions were included; set once a scan was segmented.
        crops: {slice: counts on the network's own grid}, for slices with lesion.
        strongest: (z, y, x) uint8, the number of the class map with the highest probability, from 1; 0 outside the
            boxes. None for a model without class maps.
    """

    lung_field: LungField

    def __init__(
        self,
        segmenter: Segmenter,
        truth: NDArray[np.bool_],
        counted: NDArray[np.bool_],
        histogram: CalibrationHistogram,
    ) -> None:
        """Record `segmenter` on a scan with the reference `truth` (z, y, x), over the slices `counted` (z,)."""
        super().__init__(segmenter.card, segmenter.engine)
        self.crops: dict[int, Confusion] = {}
        self.strongest = np.zeros(truth.shape, dtype=np.uint8) if len(self.card.classes) > 1 else None
        self._truth, self._counted, self._histogram = truth, counted, histogram

    def network_probabilities(self, hu: HuVolume, inputs: Sequence[SliceInput]) -> Iterator[NDArray[np.float32]]:
        """See `Segmenter`; also scores the lesion map on the network's own grid."""
        for (z, letterbox, _), probability in zip(inputs, super().network_probabilities(hu, inputs), strict=True):
            if self._truth[z].any():
                truth = take_labels(letterbox, self._truth[z].astype(np.uint8)) > 0
                self.crops[z] = Confusion.count(probability[0] >= self.card.threshold, truth)
            yield probability

    def slice_predictions(self, hu: HuVolume, lung_field: LungField) -> Iterator[SlicePrediction]:
        """See `Segmenter`; also adds the probabilities to the histogram and keeps the strongest class."""
        self.lung_field = lung_field
        for prediction in super().slice_predictions(hu, lung_field):
            z, box, probability = prediction
            place = z, slice(box.top, box.bottom), slice(box.left, box.right)
            if self._counted[z]:
                self._histogram.add(probability[0], self._truth[place])
            if self.strongest is not None:
                self.strongest[place] = 1 + probability[1:].argmax(0)
            yield prediction
