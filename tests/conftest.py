"""Shared fixtures: a phantom, models without weights, and the real CT where it is available."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: more threads only slow tiny networks down

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.segmenter import Segmenter
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.fake_engine import FakeEngine, fake_segmenter


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A small oblique chest with lesions of known volume."""
    return chest_phantom(shape=(32, 144, 190))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the real CT; the test is skipped where there is none."""
    path = Path(os.environ.get("GROUNDGLASS_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
    if not (path / "medseg").is_dir():
        pytest.skip(f"there is no real CT in {path}: set GROUNDGLASS_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def grey_band() -> Segmenter:
    """A segmenter that needs no model file: window -1250..250 HU, lesion between -750 and -170 HU."""
    return fake_segmenter()


class ClassBands(FakeEngine):
    """An engine without weights: lesion as in `grey_band`; its darker part is ground-glass, the rest consolidation."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        lesion = np.where((images > 0.33) & (images < 0.72), 5, -5)
        dark = np.where(images < 0.5, 2, -2)
        return np.concatenate([lesion, dark, -dark], axis=1).astype(np.float32)


@pytest.fixture(scope="session")
def class_bands(grey_band: Segmenter) -> Segmenter:
    """A segmenter that needs no model file, with a map for each of two classes."""
    card = grey_band.card.model_copy(update={"classes": ("lesion", "ground-glass", "consolidation")})
    return Segmenter(card, ClassBands())
