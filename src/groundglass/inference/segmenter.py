"""A scan's lesions: every slice with lung through the network, back on the slice's own pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    def probabilities(
        self, hu: NDArray[np.float32], places: Sequence[tuple[int, Letterbox]]
    ) -> Iterator[NDArray[np.float32]]:
        """Some slices through the network, a batch at a time.

        Args:
            hu: (z, y, x) upright axial slices, approximate HU.
            places: Which slices, and what of each.

        Yields:
            (height, width) probability of lesion on the network's own grid, one for each place.
        """
        window = self.card.window
        for start in range(0, len(places), BATCH):
            group = places[start : start + BATCH]
            crops = np.stack([letterbox.take(hu[z], window.low_hu) for z, letterbox in group])
            logits = self._engine.run(window.scale(crops)[:, None])[:, 0]
            yield from np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)

    def places(self, field: LungField) -> list[tuple[int, Letterbox]]:
        """The slices with lung, each with the letterbox of its lung field."""
        return [(z, Letterbox(box, self.card.size)) for z, box in enumerate(field.boxes) if box is not None]

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
        places = self.places(field)
        probabilities = self.probabilities(hu, places)
        for done, ((z, letterbox), probability) in enumerate(zip(places, probabilities, strict=True), start=1):
            box = letterbox.box
            lesion = letterbox.put_back(probability) >= self.card.threshold
            found[z, box.top : box.bottom, box.left : box.right] = lesion
            if done % BATCH == 0 or done == len(places):
                progress(done, len(places))
        return found
