import pytest

from groundglass.evaluation.agreement import PairedMeasurement, agreement


def test_by_hand() -> None:
    pairs = [
        PairedMeasurement(12, 10),
        PairedMeasurement(5, 6),
        PairedMeasurement(30, 25),
    ]  # errors 2, -1, 5: mean 2, standard deviation 3
    found = agreement(pairs, ["a", "b", "c"])
    assert (found.volumes, found.bias.value) == (3, 2)
    assert found.mean_absolute_error.value == pytest.approx(8 / 3)
    assert found.limits == pytest.approx((2 - 1.96 * 3, 2 + 1.96 * 3))
    assert found.bias.interval is not None
    assert found.bias.interval[0] <= 2 <= found.bias.interval[1]


def test_one_volume_has_a_bias_and_no_limits() -> None:
    found = agreement([PairedMeasurement(12, 10)], ["a"])
    assert (found.volumes, found.bias.value, found.bias.interval, found.limits) == (1, 2, None, None)


def test_no_volume() -> None:
    found = agreement([], [])
    assert (found.volumes, found.bias.value, found.limits) == (0, None, None)
