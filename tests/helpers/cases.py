"""Cases of a parametrised test, most of them left to `make test-all`."""

from collections.abc import Sequence

import pytest
from _pytest.mark import ParameterSet


def sample(cases: Sequence[object], every: int) -> list[ParameterSet]:
    """Keep every n-th case in the fast part; the others, which differ from it in little, are slow."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] if number % every else []
        )
        for number, case in enumerate(cases)
    ]


def all_or_each(cases: Sequence[str]) -> list[ParameterSet]:
    """All cases at once in the fast part; each of them alone, which tells the one that fails, is slow."""
    alone = (pytest.param((case,), marks=pytest.mark.slow, id=case) for case in cases)
    return [pytest.param(tuple(cases), id="all"), *alone]
