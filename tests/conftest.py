"""Shared fixtures: a phantom, an engine without weights, and the real data where it is."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: two threads wait for each other on tiny networks

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.segmenter import Segmenter
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.fake_engine import MadeUpEngine, made_up_segmenter


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A small oblique chest with lesions of known volume."""
    return chest_phantom(shape=(32, 144, 190))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the real CT; the test is skipped where it is not."""
    path = Path(os.environ.get("GROUNDGLASS_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (path / "medseg").is_dir():
        pytest.skip(f"the real CT is not at {path}; name its folder in GROUNDGLASS_DATA")
    return path


@pytest.fixture(scope="session")
def grey_band() -> Segmenter:
    """A segmenter that needs no model file: window -1250..250 HU, lesion between -750 and -170 HU."""
    return made_up_segmenter()


class ClassBands(MadeUpEngine):
    """An engine without weights: lesion as in `grey_band`, ground-glass where it is darker, else consolidation."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        lesion = np.where((images > 0.33) & (images < 0.72), 5, -5)
        dark = np.where(images < 0.5, 2, -2)
        return np.concatenate([lesion, dark, -dark], axis=1).astype(np.float32)


@pytest.fixture(scope="session")
def class_bands(grey_band: Segmenter) -> Segmenter:
    card = grey_band.card.model_copy(update={"classes": ("lesion", "ground-glass", "consolidation")})
    return Segmenter(card, ClassBands())
