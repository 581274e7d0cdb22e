"""How numbers are written in every report."""

import pytest

from groundglass.report.amounts import format_ml, format_number, true_minus


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
    assert [format_number(value, sign=True) for value in (0.04, -0.04, -1.2)] == ["+0.0", "+0.0", "−1.2"]
    assert format_number(-0.3, 0) == "0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("values run from -1024 to 504 (-3.5 mm)", "values run from −1024 to 504 (−3.5 mm)"),
        ("scan of 2026-03-01, ct-2.nii, 1.2-3, COVID-19, -v", "scan of 2026-03-01, ct-2.nii, 1.2-3, COVID-19, -v"),
    ],
)
def test_negative_numbers_have_a_minus_sign_and_dates_and_names_keep_their_hyphens(text: str, shown: str) -> None:
    assert true_minus(text) == shown
