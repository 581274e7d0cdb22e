"""A scan's lesions: every slice with lung through the network, back on the slice's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.card import ModelCard, bundled_model, read_card
from groundglass.inference.engine import Engine, open_engine
from groundglass.scan.crop import Letterbox
from groundglass.scan.lungs import LungField

BATCH = 4


class Segmenter:
    """A model, ready to run: its card and its engine."""

    def __init__(self, card: ModelCard, engine: Engine) -> None:
        self.card, self._engine = card, engine

    @classmethod
    def load(cls, model: Path | None = None) -> Segmenter:
        """Open an ONNX file with its card; None: the bundled model.

        Raises:
            ModelError: Model or card is missing or damaged.
            EngineError: No engine on this machine can run it.
        """
        model = model or bundled_model()
        return cls(read_card(model), open_engine(model))

    def probability(self, hu: NDArray[np.float32], boxes: list[Letterbox]) -> NDArray[np.float32]:
        """Crops of some slices through the network.

        Args:
            hu: (n, y, x) upright axial slices, approximate HU.
            boxes: One letterbox a slice.

        Returns:
            (n, height, width) probability of lesion on the network's own grid.
        """
        window = self.card.window
        air = window.low_hu
        crops = np.stack([box.take(plane, air) for box, plane in zip(boxes, hu, strict=True)])
        logits = self._engine.run(window.scale(crops)[:, None])[:, 0]
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)

    def lesions(
        self,
        hu: NDArray[np.float32],
        field: LungField,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> NDArray[np.bool_]:
        """Find the lesions of a scan.

        Args:
            hu: (z, y, x) upright axial slices, approximate HU.
            field: Where the lungs are; slices without a box are not looked at.
            progress: Called with the slices done and their number.

        Returns:
            (z, y, x) bool.
        """
        found = np.zeros(hu.shape, dtype=np.bool_)
        places = [(z, Letterbox(box, self.card.size)) for z, box in enumerate(field.boxes) if box is not None]
        for start in range(0, len(places), BATCH):
            group = places[start : start + BATCH]
            probabilities = self.probability(hu[[z for z, _ in group]], [letterbox for _, letterbox in group])
            for (z, letterbox), probability in zip(group, probabilities, strict=True):
                box = letterbox.box
                lesion = letterbox.put_back(probability) >= self.card.threshold
                found[z, box.top : box.bottom, box.left : box.right] = lesion
            progress(start + len(group), len(places))
        return found
