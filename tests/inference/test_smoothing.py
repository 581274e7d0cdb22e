import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.smoothing import smooth_between_slices


def volume(values: Sequence[float]) -> list[tuple[int, NDArray[np.float32]]]:
    """Return slices with one map of 2 x 3 pixels, of one probability each."""
    return [(z, np.full((1, 2, 3), value, np.float32)) for z, value in enumerate(values)]


def smoothed(values: Sequence[float], spacing_mm: float, sigma_mm: float) -> list[float]:
    return [float(one.mean()) for one in smooth_between_slices(volume(values), spacing_mm, sigma_mm)]


def test_a_constant_stays_as_it_is() -> None:
    assert smoothed([0.8] * 9, 1.0, 2.5) == pytest.approx([0.8] * 9, abs=1e-6)


def test_log_odds_are_averaged_by_a_gaussian_of_the_distance_in_mm() -> None:
    values, spacing, sigma = [0.9, 0.2, 0.6, 0.3], 2.0, 1.5  # reaches two slices
    logits = [math.log(value / (1 - value)) for value in values]
    expected = []
    for z in range(4):
        near = [(logits[other], abs(other - z) * spacing) for other in range(4) if abs(other - z) <= 2]
        weights = [math.exp(-(distance**2) / (2 * sigma**2)) for _, distance in near]
        mean = sum(weight * logit for weight, (logit, _) in zip(weights, near, strict=True)) / sum(weights)
        expected.append(1 / (1 + math.exp(-mean)))
    assert smoothed(values, spacing, sigma) == pytest.approx(expected, abs=1e-6)


def test_what_a_single_thin_slice_shows_is_outvoted_by_its_neighbours() -> None:
    values = [0.01] * 6 + [0.95] + [0.01] * 6
    assert max(smoothed(values, 1.0, 2.5)) < 0.1
    assert max(smoothed(values, 6.0, 2.5)) > 0.75  # but not in thick slices


@pytest.mark.parametrize(("spacing_mm", "sigma_mm"), [(8.0, 2.5), (1.0, 0.0)])
def test_slices_out_of_reach_are_the_same_arrays(spacing_mm: float, sigma_mm: float) -> None:
    slices = volume([0.1, 0.9, 1.0])
    result = list(smooth_between_slices(slices, spacing_mm, sigma_mm))
    assert all(one is probability for one, (_, probability) in zip(result, slices, strict=True))


@pytest.mark.parametrize("spacing_mm", [1e-9, 1e-300, 5e-324])
def test_slices_at_one_place_are_averaged_whatever_their_distance(spacing_mm: float) -> None:
    assert smoothed([0.1, 0.9, 0.5], spacing_mm, 2.5) == pytest.approx([0.5] * 3, abs=1e-6)


def test_slices_that_are_left_out_keep_their_distance() -> None:
    apart = [(0, volume([0.9])[0][1]), (10, volume([0.1])[0][1])]
    assert [float(one.mean()) for one in smooth_between_slices(apart, 1.0, 2.5)] == pytest.approx([0.9, 0.1], abs=1e-6)


def test_certain_probabilities_stay_finite() -> None:
    assert smoothed([0.0, 1.0, 1.0, 1.0, 0.0], 3.0, 2.5)[2] == pytest.approx(1.0, abs=1e-3)


def test_maps_after_the_first_do_not_change() -> None:
    slices = [
        (z, np.stack([np.full((2, 3), 0.1 * z, np.float32), np.full((2, 3), 0.2 * z, np.float32)])) for z in (1, 4)
    ]
    result = list(smooth_between_slices(slices, 1.0, 2.5))
    assert [float(one[1].mean()) for one in result] == pytest.approx([0.2, 0.8])
    assert 0.1 < result[0][0].mean() < result[1][0].mean() < 0.4


def test_few_slices_are_held_at_a_time() -> None:
    read = []

    def numbered() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for z, probability in volume([0.5] * 100):
            read.append(z)
            yield z, probability

    for done, _ in enumerate(smooth_between_slices(numbered(), 1.0, 2.5)):
        assert len(read) <= done + 9
