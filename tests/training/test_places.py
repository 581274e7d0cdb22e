"""Where the false volume of a scan lies, as `bench/held_out.py --where` counts it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("held_out", Path(__file__).parents[2] / "bench" / "held_out.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("z", "y", "x", "place"),
    [
        (10, 42, 20, "lesion border"),
        (1, 58, 20, "dome"),
        (1, 63, 20, "dome"),  # outside the lung
        (1, 75, 20, "abdomen"),
        (10, 58, 20, "lung border"),
        (10, 30, 48, "hilum"),
        (18, 30, 30, "elsewhere"),
    ],
)
def test_a_false_pixel_is_counted_where_it_lies(bench: ModuleType, z: int, y: int, x: int, place: str) -> None:
    lungs, truth, predicted = np.zeros((3, 20, 80, 96), bool)
    lungs[:, 10:60, 8:88] = True
    truth[10, 35:41, 15:25] = predicted[10, 35:41, 15:25] = True
    predicted[z, y, x] = True
    counts = bench.places_of_false_pixels(predicted, truth, lungs)
    assert {name: count for name, count in counts.items() if count} == {place: 1}
