"""Overlap scores against values computed by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as st_numpy
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from groundglass.metrics import RATIOS, Confusion

masks = st_numpy.arrays(np.bool_, (2, 5, 7))


def test_scores_equal_those_computed_by_hand() -> None:
    predicted = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    truth = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    confusion = Confusion.count(predicted, truth)
    assert confusion == Confusion(2, 1, 1, 6)
    assert confusion.dice == pytest.approx(4 / 6)
    assert confusion.sensitivity == pytest.approx(2 / 3)
    assert confusion.specificity == pytest.approx(6 / 7)
    assert confusion.precision == pytest.approx(2 / 3)
    assert confusion.iou == pytest.approx(2 / 4)
    assert list(confusion.scores) == ["dice", "sensitivity", "specificity", "precision", "iou"] == list(RATIOS)
    assert confusion.scores == {name: getattr(confusion, name) for name in RATIOS}


def test_undefined_scores_are_none() -> None:
    empty = Confusion.count(np.zeros(4, bool), np.zeros(4, bool))
    assert empty.scores == {"dice": None, "sensitivity": None, "specificity": 1.0, "precision": None, "iou": None}
    full = Confusion.count(np.ones(4, bool), np.ones(4, bool))
    assert (full.dice, full.specificity) == (1.0, None)
    assert Confusion.count(np.ones(4, bool), np.zeros(4, bool)).dice == 0.0


@settings(deadline=None)
@given(masks, masks)
def test_scores_equal_those_of_scikit_learn(predicted: np.ndarray, truth: np.ndarray) -> None:
    confusion = Confusion.count(predicted, truth)
    p, t = predicted.ravel(), truth.ravel()
    if truth.any():
        assert confusion.dice == pytest.approx(f1_score(t, p))
        assert confusion.iou == pytest.approx(jaccard_score(t, p))
        assert confusion.sensitivity == pytest.approx(recall_score(t, p))
    if predicted.any():
        assert confusion.precision == pytest.approx(precision_score(t, p))
    if not truth.all():
        assert confusion.specificity == pytest.approx(recall_score(~t, ~p))


@given(masks, masks)
def test_counts_of_the_parts_add_up_to_those_of_the_whole(predicted: np.ndarray, truth: np.ndarray) -> None:
    parts = [Confusion.count(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert sum(parts, Confusion()) == Confusion.count(predicted, truth)


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        Confusion.count(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
