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
