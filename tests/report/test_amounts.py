"""How numbers are written in every report."""

import pytest

from groundglass.report.amounts import format_ml, format_number


@pytest.mark.parametrize(
    ("volume_ml", "words"),
    [(None, "unknown"), (0, "0.0"), (0.004, "<0.01"), (0.097, "0.10"), (0.13, "0.13"), (0.996, "1.00"), (1.25, "1.2"),
     (9.94, "9.9"), (12.6, "13"), (931.6, "932")],
)  # fmt: skip
def test_a_volume_has_the_decimal_places_that_are_worth_stating(volume_ml: float | None, words: str) -> None:
    assert format_ml(volume_ml) == words


def test_what_is_more_than_0_is_never_written_as_0() -> None:
    assert [format_number(value) for value in (0.0, 0.04, 0.06)] == ["0.0", "<0.1", "0.1"]
    assert format_number(0.4, 0) == "<1"
    assert [format_number(value, sign=True) for value in (0.04, -0.04, -1.2)] == ["+0.0", "+0.0", "-1.2"]
    assert format_number(-0.3, 0) == "0"
