import pytest

from groundglass.evaluation.agreement import PairedMeasurement, measure_agreement


def test_agreement_matches_a_worked_example() -> None:
    pairs = [
        PairedMeasurement(12, 10),
        PairedMeasurement(5, 6),
        PairedMeasurement(30, 25),
    ]  # errors 2, -1, 5: mean 2, standard deviation 3
    agreement = measure_agreement(pairs, ["a", "b", "c"])
    assert (agreement.volumes, agreement.bias.value) == (3, 2)
    assert agreement.mean_absolute_error.value == pytest.approx(8 / 3)
    assert agreement.limits == pytest.approx((2 - 1.96 * 3, 2 + 1.96 * 3))
    assert agreement.bias.interval is not None
    assert agreement.bias.interval[0] <= 2 <= agreement.bias.interval[1]


def test_one_volume_has_a_bias_and_no_limits() -> None:
    agreement = measure_agreement([PairedMeasurement(12, 10)], ["a"])
    assert (agreement.volumes, agreement.bias.value, agreement.bias.interval, agreement.limits) == (1, 2, None, None)


def test_without_volumes_nothing_is_estimated() -> None:
    agreement = measure_agreement([], [])
    assert (agreement.volumes, agreement.bias.value, agreement.limits) == (0, None, None)
