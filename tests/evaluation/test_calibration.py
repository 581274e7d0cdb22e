import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.calibration import calibration_curve

from groundglass.evaluation.calibration import (
    BINS,
    THRESHOLDS,
    CalibrationHistogram,
    expected_calibration_error,
    precision_recall_curve,
    reliability_bins,
)


def sample(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities that are among the thresholds, and truths that correlate with them."""
    rng = np.random.default_rng(seed)
    truth = rng.random((40, 60)) < 0.2
    index = np.clip(rng.normal(300 + 500 * truth, 250), 0, len(THRESHOLDS) - 1).astype(np.int64)
    return THRESHOLDS[index].astype(np.float32), truth


def histogram(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> CalibrationHistogram:
    counted = CalibrationHistogram()
    for part in np.array_split(np.arange(len(truth)), 3):  # in parts, as slices are added
        counted.add(probability[part], truth[part])
    return counted


def test_the_precision_recall_curve_equals_that_of_scikit_learn() -> None:
    probability, truth = sample()
    curve = precision_recall_curve(histogram(probability, truth))
    assert curve is not None
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(truth.ravel(), probability.ravel()))
    precision, recall, thresholds = metrics.precision_recall_curve(truth.ravel(), probability.ravel())
    ours = np.isin(THRESHOLDS.astype(np.float32), thresholds)
    assert ours.sum() == len(thresholds)
    assert curve.precision[ours] == pytest.approx(precision[:-1])
    assert curve.recall[ours] == pytest.approx(recall[:-1])


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.37, 0.45, 0.5, 0.98])
def test_a_pixel_at_the_threshold_counts_as_predicted_as_in_the_segmenter(threshold: float) -> None:
    probability, truth = sample(1)
    curve = precision_recall_curve(histogram(probability, truth))
    assert curve is not None
    predicted = probability >= threshold
    assert curve.at_threshold(threshold) == pytest.approx(
        ((predicted & truth).sum() / predicted.sum(), (predicted & truth).sum() / truth.sum())
    )


def test_reliability_equals_that_of_scikit_learn() -> None:
    probability, truth = sample(2)
    bins = [each for each in reliability_bins(histogram(probability, truth)) if each.pixels]
    # The bins of scikit-learn include their upper end, ours the lower: move the probabilities off the edges.
    share, mean = calibration_curve(truth.ravel(), np.clip(probability.ravel() + 1e-7, 0, 1), n_bins=BINS)
    assert [each.lesion_share for each in bins] == pytest.approx(share)
    assert [each.mean_probability for each in bins] == pytest.approx(mean, abs=1e-6)
    assert sum(each.pixels for each in bins) == truth.size


def test_the_expected_calibration_error_matches_a_worked_example() -> None:
    probability = np.array([0.02, 0.02, 0.02, 0.02, 0.92, 0.94], dtype=np.float32)
    truth = np.array([0, 0, 0, 1, 1, 0], dtype=np.bool_)
    bins = reliability_bins(histogram(probability, truth))
    assert len(bins) == BINS
    assert (bins[0].pixels, bins[18].pixels, bins[10].pixels) == (4, 2, 0)
    assert (bins[10].mean_probability, bins[10].lesion_share) == (None, None)
    assert bins[18].mean_probability == pytest.approx(0.93)
    expected = (4 * abs(0.25 - 0.02) + 2 * abs(0.5 - 0.93)) / 6
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_probabilities_of_0_and_1_are_counted() -> None:
    counted = histogram(np.array([0.0, 1.0, 1.0], dtype=np.float32), np.array([False, True, False]))
    assert (counted.other[0], counted.lesion[-1], counted.other[-1], counted.pixels) == (1, 1, 1, 3)


def test_without_lesion_or_pixels_there_is_no_curve_and_no_error() -> None:
    nothing = CalibrationHistogram()
    assert expected_calibration_error(reliability_bins(nothing)) is None
    assert precision_recall_curve(nothing) is None
    assert precision_recall_curve(histogram(np.zeros(3, np.float32), np.zeros(3, np.bool_))) is None
    low = precision_recall_curve(histogram(np.full(3, 0.2, np.float32), np.array([True, False, False])))
    assert low is not None
    assert low.at_threshold(0.5) == (None, 0.0)  # no pixel reaches it
    assert low.average_precision == pytest.approx(1 / 3)
