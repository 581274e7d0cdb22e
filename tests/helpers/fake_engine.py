"""Engines without weights, and a segmenter that needs no model file."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import Engine, EngineCard
from groundglass.inference.model_card import ModelCard
from groundglass.inference.segmenter import Segmenter

REMEMBERED = 1000  # batches of images: some 200 MB of the lung network's results


class FakeEngine:
    """The base of engines without weights; subclasses define `run`."""

    card = EngineCard("fake", "f32", 1, "for tests")


class GreyBand(FakeEngine):
    """An engine without weights: everything brighter than lung and darker than soft tissue is lesion."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where((images > 0.33) & (images < 0.72), 5, -5).astype(np.float32)


class RecordingEngine(FakeEngine):
    """An engine that records its input, and finds no lesion."""

    def __init__(self) -> None:
        self.inputs: list[NDArray[np.float32]] = []

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.inputs.append(images)
        return np.full_like(images[:, :1], -9)


class RememberingEngine:
    """An engine that computes the same images only once."""

    def __init__(self, engine: Engine) -> None:
        self.card = engine.card
        self._engine = engine
        self._logits: dict[bytes, NDArray[np.float32]] = {}

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        key = blake2b(np.array(images.shape).tobytes() + images.tobytes()).digest()
        if key not in self._logits:
            if len(self._logits) == REMEMBERED:
                self._logits.pop(next(iter(self._logits)), None)
            self._logits[key] = self._engine.run(images)
        return self._logits[key]


def fake_segmenter() -> Segmenter:
    """Make a segmenter with the window -1250..250 HU, for which -750 to -170 HU is lesion."""
    card = ModelCard(
        name="grey-band",
        sha256="0" * 64,
        network={},
        window_hu=(-1250, 250),
        size=(192, 256),
        threshold=0.5,
        training_data=(),
        never_trained_on=(),
        intended_use="tests",
        limits=(),
    )
    return Segmenter(card, GreyBand())
