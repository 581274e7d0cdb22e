"""A recorder of the network's predictions while a scan is segmented, so that the network runs once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundglass.data.cutting import letterbox_labels
from groundglass.evaluation.calibration import CalibrationHistogram
from groundglass.inference.model_card import ModelCard
from groundglass.inference.segmenter import SlicePrediction
from groundglass.metrics import Confusion


class PredictionRecorder:
    """Scores that need the probabilities, from the predictions of a scan's slices.

    Attributes:
        crops: {slice: counts on the network's own grid}, for slices with lesion.
        class_map: (z, y, x) uint8, the number of the most probable class from 1, wherever the network looked; 0
            elsewhere. None for a model without class maps.
    """

    def __init__(
        self, card: ModelCard, truth: NDArray[np.bool_], counted: NDArray[np.bool_], histogram: CalibrationHistogram
    ) -> None:
        """Prepare for one scan.

        Args:
            card: The model's card.
            truth: (z, y, x) lesions of the reference.
            counted: (z,) True for the slices whose pixels are added to the histogram.
            histogram: Histogram to add to.
        """
        self.crops: dict[int, Confusion] = {}
        self.class_map = np.zeros(truth.shape, dtype=np.uint8) if len(card.classes) > 1 else None
        self._card, self._truth, self._counted, self._histogram = card, truth, counted, histogram

    def record(self, prediction: SlicePrediction) -> None:
        """Add the prediction of one slice."""
        z, box, truth = prediction.z, prediction.box, self._truth[prediction.z]
        if truth.any():
            truth_on_grid = letterbox_labels(prediction.letterbox, truth.astype(np.uint8)) > 0
            self.crops[z] = Confusion.count(prediction.network_probability[0] >= self._card.threshold, truth_on_grid)
        in_box = slice(box.top, box.bottom), slice(box.left, box.right)
        if self._counted[z]:
            self._histogram.add(prediction.lesion_probability, truth[in_box])
        if self.class_map is not None:
            self.class_map[z][in_box] = 1 + prediction.probability[1:].argmax(0)
