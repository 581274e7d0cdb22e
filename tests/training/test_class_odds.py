"""The odds of classes, chosen by what readers stated of held-out pixels."""

import numpy as np
import pytest

from groundglass.training.class_odds import choose_class_odds


def maps(*probabilities: tuple[float, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(probabilities, dtype=np.float32)


def test_a_class_that_is_found_too_seldom_gets_higher_odds() -> None:
    probability = maps((0.9, 0.1), (0.9, 0.2), (0.9, 0.6), (0.9, 0.7))
    assert choose_class_odds(probability, np.array([0, 0, 1, 1])) == (1.0, 8.0)


def test_one_that_is_found_too_often_gets_lower_odds() -> None:
    probability = maps((0.6, 0.7), (0.5, 0.7), (0.1, 0.9))
    assert choose_class_odds(probability, np.array([0, 0, 1])) == (1.0, 0.25)


def test_each_of_three_classes_gets_its_own() -> None:
    probability = maps((0.9, 0.1, 0.1), (0.9, 0.6, 0.1), (0.9, 0.1, 0.85))
    factors = choose_class_odds(probability, np.array([0, 1, 2]))
    assert factors == (1.0, 8.0, 2.0)


def test_where_no_factor_does_better_none_is_taken() -> None:
    assert choose_class_odds(maps((0.9, 0.01)), np.array([0])) == (1.0, 1.0)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_class_alone_needs_no_factor(classes: int) -> None:
    assert choose_class_odds(maps((0.9, 0.5)[:classes]), np.array([0]))[0] == 1.0
