"""What the engines of the tests have in common, and a segmenter without weights."""

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.engine import EngineCard
from groundglass.inference.model_card import ModelCard
from groundglass.inference.segmenter import Segmenter


class MadeUpEngine:
    """Without weights; `run` is what makes it an engine."""

    card = EngineCard("made up", "f32", 1, "for tests")


class GreyBand(MadeUpEngine):
    """An engine without weights: lesion is what is brighter than lung and darker than soft tissue."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where((images > 0.33) & (images < 0.72), 5, -5).astype(np.float32)


def made_up_segmenter() -> Segmenter:
    """Window -1250..250 HU, lesion between -750 and -170 HU."""
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
