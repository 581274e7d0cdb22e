"""Shared fixtures: a phantom, models without weights, and the real CT where it is available."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: more threads only slow tiny networks down

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.duplicates import SimilarSlices, closest_pairs
from groundglass.inference.engine import OnnxRuntimeEngine
from groundglass.inference.lungs import network as lung_network
from groundglass.inference.segmenter import Segmenter
from groundglass.report import solid_view
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.fake_engine import FakeEngine, RememberingEngine, fake_segmenter
from helpers.grey_band_model import write_grey_band_model


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests as slow that start a browser or a PACS."""
    for item in items:
        if {"browser", "chrome", "start_orthanc"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def remembered_lungs() -> Iterator[None]:
    """Let the lung network compute a slice only once: most tests look at slices of the same few phantoms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lung_network, "OnnxRuntimeEngine", lambda *given: RememberingEngine(OnnxRuntimeEngine(*given)))
        yield


@pytest.fixture(scope="session", autouse=True)
def remembered_pairs() -> Iterator[None]:
    """Let `prepare` look for near-duplicates among the same slices only once: most of what it takes."""
    known: dict[bytes, tuple[SimilarSlices, ...]] = {}

    def remembered(hu: NDArray[np.int16], groups: NDArray[np.str_]) -> tuple[SimilarSlices, ...]:
        key = blake2b(repr((hu.shape, groups.tolist())).encode() + hu.tobytes()).digest()
        if key not in known:
            known[key] = closest_pairs(hu, groups)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("groundglass.data.grouping.closest_pairs", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def coarse_views() -> Iterator[None]:
    """Draw lungs in 3-D from few cells: most of what segmenting a small phantom takes; test_preview.py undoes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solid_view, "VOXELS", 40)
        yield


class SameProcess:
    """Stands in for a pool of processes: calls the function in this process, one item after the other."""

    map = staticmethod(map)

    def __init__(self, initializer: object = None) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session", autouse=True)
def cases_cut_in_this_process() -> Iterator[pytest.MonkeyPatch]:
    """Let `prepare` cut cases in this process, where their lungs may be known; a test of the processes undoes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("groundglass.data.prepare.ProcessPoolExecutor", SameProcess)
        yield patch


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


@pytest.fixture(scope="session")
def grey_band_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a model file, for commands and servers."""
    return write_grey_band_model(tmp_path_factory.mktemp("model"))


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
