import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from scipy import stats
from sklearn.metrics import f1_score, jaccard_score

from groundglass.evaluation.intervals import FEWEST_PATIENTS, Estimate, estimate, mean, mean_of, pooled

# TP, FP, FN, TN of four slices of three patients: a hit, an empty pair, a false alarm, a miss
COUNTS = np.array([[2, 1, 1, 6], [0, 0, 0, 10], [0, 3, 0, 7], [0, 0, 4, 6]])
PATIENTS = ["a", "a", "b", "c"]


def test_pooled_and_mean_by_hand() -> None:
    together, apart = pooled(COUNTS, PATIENTS), mean(COUNTS, PATIENTS)
    assert together["dice"].value == pytest.approx(4 / (4 + 4 + 5))
    assert together["iou"].value == pytest.approx(2 / 11)
    assert apart["dice"].value == pytest.approx((4 / 6 + 0 + 0) / 3)
    assert (apart["dice"].rows, apart["dice"].undefined) == (3, 1)  # the empty pair has no Dice
    assert apart["sensitivity"].value == pytest.approx((2 / 3 + 0) / 2)
    assert (apart["sensitivity"].rows, apart["sensitivity"].undefined) == (2, 2)
    assert apart["specificity"].value == pytest.approx((6 / 7 + 1 + 0.7 + 1) / 4)
    assert apart["precision"].value == pytest.approx((2 / 3 + 0) / 2)


def test_like_scikit_learn_and_monai() -> None:
    rng = np.random.default_rng(1)
    predicted, truth = rng.random((2, 6, 50)) < 0.4
    parts = (predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth)
    counts = np.stack([part.sum(1) for part in parts], axis=1)
    patients = list("abcdef")
    assert pooled(counts, patients)["dice"].value == pytest.approx(f1_score(truth.ravel(), predicted.ravel()))
    for name, score in (("dice", f1_score), ("iou", jaccard_score)):
        of_slices = [score(t, p) for t, p in zip(truth, predicted, strict=True)]
        assert mean(counts, patients)[name].value == pytest.approx(np.mean(of_slices))
    said, is_so = (torch.from_numpy(mask[:, None, None].astype(np.float32)) for mask in (predicted, truth))
    for name, of_batch in (("dice", compute_dice), ("iou", compute_iou)):
        assert mean(counts, patients)[name].value == pytest.approx(float(of_batch(said, is_so).mean()), abs=1e-6)


def test_nothing_to_count_is_none() -> None:
    nothing = Estimate(None, None, 0, 0, 2)
    assert estimate([0, 0], [0, 0], ["a", "b"]) == nothing
    assert mean_of([None, None], ["a", "b"]) == nothing
    assert pooled(np.zeros((0, 4), dtype=np.int64), [])["dice"] == Estimate(None, None, 0, 0, 0)


def test_the_interval_needs_patients_that_count() -> None:
    few = estimate([1, 2, 9], [2, 4, 0], ["a", "b", "c"])
    assert (few.value, few.interval, few.patients, few.undefined) == (0.5, None, 2, 1)
    assert estimate([1, 2, 3], [2, 4, 6], ["a", "a", "b"]).patients == 2 < FEWEST_PATIENTS
    enough = estimate([1, 2, 3], [2, 4, 6], ["a", "b", "c"])
    assert enough.interval == (0.5, 0.5)


def test_patients_are_drawn_not_rows() -> None:
    rng = np.random.default_rng(2)
    patients = np.repeat([f"p{k}" for k in range(8)], 25)
    values = np.repeat(rng.random(8), 25)
    by_patient = mean_of(values.tolist(), patients.tolist()).interval
    by_row = mean_of(values.tolist(), [str(k) for k in range(200)]).interval
    assert by_patient is not None
    assert by_row is not None
    assert by_patient[1] - by_patient[0] > 3 * (by_row[1] - by_row[0])


def test_the_same_seed_gives_the_same_interval_and_scipy_agrees() -> None:
    values = np.random.default_rng(3).normal(5, 2, 40)
    patients = [str(k) for k in range(40)]
    interval = mean_of(values.tolist(), patients).interval
    assert interval == mean_of(values.tolist(), patients).interval
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert interval == pytest.approx((theirs.low, theirs.high), abs=0.08)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(5)
    patients = [str(k) for k in range(25)]
    covered = 0
    for _ in range(100):
        interval = mean_of(rng.normal(0, 1, 25).tolist(), patients).interval
        covered += interval is not None and interval[0] <= 0 <= interval[1]
    assert 88 <= covered <= 99
