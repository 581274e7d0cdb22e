import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from scipy import stats
from sklearn.metrics import f1_score, jaccard_score

from groundglass.evaluation.intervals import MIN_PATIENTS, Estimate, estimate, mean, mean_of, pooled

# TP, FP, FN, TN of four slices of three patients: a hit, an empty pair, a false alarm, a miss
COUNTS = np.array([[2, 1, 1, 6], [0, 0, 0, 10], [0, 3, 0, 7], [0, 0, 4, 6]])
PATIENTS = ["a", "a", "b", "c"]


def test_pooled_and_mean_scores_match_a_worked_example() -> None:
    pooled_scores, mean_scores = pooled(COUNTS, PATIENTS), mean(COUNTS, PATIENTS)
    assert pooled_scores["dice"].value == pytest.approx(4 / (4 + 4 + 5))
    assert pooled_scores["iou"].value == pytest.approx(2 / 11)
    assert mean_scores["dice"].value == pytest.approx((4 / 6 + 0 + 0) / 3)
    assert (mean_scores["dice"].rows, mean_scores["dice"].undefined) == (3, 1)  # the empty pair has no Dice
    assert mean_scores["sensitivity"].value == pytest.approx((2 / 3 + 0) / 2)
    assert (mean_scores["sensitivity"].rows, mean_scores["sensitivity"].undefined) == (2, 2)
    assert mean_scores["specificity"].value == pytest.approx((6 / 7 + 1 + 0.7 + 1) / 4)
    assert mean_scores["precision"].value == pytest.approx((2 / 3 + 0) / 2)


def test_scores_equal_those_of_scikit_learn_and_monai() -> None:
    rng = np.random.default_rng(1)
    predicted, truth = rng.random((2, 6, 50)) < 0.4
    parts = (predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth)
    counts = np.stack([part.sum(1) for part in parts], axis=1)
    patients = list("abcdef")
    assert pooled(counts, patients)["dice"].value == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))
    for name, score in (("dice", f1_score), ("iou", jaccard_score)):
        slice_scores = [score(t, p) for t, p in zip(truth, predicted, strict=True)]
        assert mean(counts, patients)[name].value == pytest.approx(np.mean(slice_scores))
    predicted_batch, truth_batch = (
        torch.from_numpy(mask[:, None, None].astype(np.float32)) for mask in (predicted, truth)
    )
    for name, monai_score in (("dice", compute_dice), ("iou", compute_iou)):
        assert mean(counts, patients)[name].value == pytest.approx(
            float(monai_score(predicted_batch, truth_batch).mean()), abs=1e-6
        )


def test_without_anything_to_count_the_value_is_none() -> None:
    nothing = Estimate(None, None, 0, 0, 2)
    assert estimate([0, 0], [0, 0], ["a", "b"]) == nothing
    assert mean_of([None, None], ["a", "b"]) == nothing
    assert pooled(np.zeros((0, 4), dtype=np.int64), [])["dice"] == Estimate(None, None, 0, 0, 0)


def test_an_interval_needs_three_patients_that_count() -> None:
    few = estimate([1, 2, 9], [2, 4, 0], ["a", "b", "c"])
    assert (few.value, few.interval, few.patients, few.undefined) == (0.5, None, 2, 1)
    assert estimate([1, 2, 3], [2, 4, 6], ["a", "a", "b"]).patients == 2 < MIN_PATIENTS
    enough = estimate([1, 2, 3], [2, 4, 6], ["a", "b", "c"])
    assert enough.interval == (0.5, 0.5)


def test_patients_are_resampled_not_rows() -> None:
    rng = np.random.default_rng(2)
    patients = np.repeat([f"p{k}" for k in range(8)], 25)
    values = np.repeat(rng.random(8), 25)
    by_patient = mean_of(values.tolist(), patients.tolist()).interval
    by_row = mean_of(values.tolist(), [str(k) for k in range(200)]).interval
    assert by_patient is not None
    assert by_row is not None
    assert by_patient[1] - by_patient[0] > 3 * (by_row[1] - by_row[0])


def test_the_interval_is_reproducible_and_close_to_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(5, 2, 40)
    patients = [str(k) for k in range(40)]
    interval = mean_of(values.tolist(), patients).interval
    assert interval == mean_of(values.tolist(), patients).interval
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert interval == pytest.approx((expected.low, expected.high), abs=0.08)


def test_95_percent_intervals_cover_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(5)
    patients = [str(k) for k in range(25)]
    covered = 0
    for _ in range(100):
        interval = mean_of(rng.normal(0, 1, 25).tolist(), patients).interval
        covered += interval is not None and interval[0] <= 0 <= interval[1]
    assert 88 <= covered <= 99
