"""Which slices train, which choose, which test."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundglass.data.slices import Slices
from groundglass.errors import ConfigError, DatasetError


@dataclass(frozen=True)
class SplitConfig:
    """By patient: patterns of case names; by slice: the paper's random split, which leaks between neighbours.

    Attributes:
        by: `patient` or `slice`.
        test: Case patterns (`volumes/4`) that are neither trained on nor looked at.
        validation: Case patterns that choose epoch and threshold.
        test_share: By slice: share of the slices for the test.
        validation_share: By slice: share of the rest that chooses.
        lesion_free: Keep slices of the lung without lesion in the training (the paper leaves them out).
        seed: By slice: of the shuffle.
    """

    by: Literal["patient", "slice"] = "patient"
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test_share: float = 0.2
    validation_share: float = 0.1
    lesion_free: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Split:
    """Boolean (n,) masks over a set of slices; no slice is in two."""

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]


def _matches(slices: Slices, patterns: tuple[str, ...]) -> NDArray[np.bool_]:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in set(slices.case)):
            raise ConfigError(
                f"split: no case matches {pattern!r}; there are {', '.join(sorted(set(slices.case))[:8])}…"
            )
    return np.array([any(fnmatch(name, pattern) for pattern in patterns) for name in slices.case], dtype=bool)


def split_slices(slices: Slices, config: SplitConfig) -> Split:
    """Divide slices as the configuration says.

    Raises:
        ConfigError: A pattern matches no case.
        DatasetError: A patient is on two sides, or a side is empty.
    """
    usable = slices.has_lesion | config.lesion_free
    if config.by == "slice":
        order = np.random.default_rng(config.seed).permutation(np.flatnonzero(usable))
        tests = round(len(order) * config.test_share)
        validations = round((len(order) - tests) * config.validation_share)
        parts = np.split(order, [tests, tests + validations])
        test, validation, train = (np.isin(np.arange(len(slices)), part) for part in parts)
    else:
        test, validation = _matches(slices, config.test), _matches(slices, config.validation)
        train = ~test & ~validation
        _refuse_shared_patients(slices, {"training": train, "validation": validation, "test": test})
        train = train & usable
    if not train.any():
        raise DatasetError("no slice is left to train on: the split takes them all; narrow split.test")
    return Split(train, validation, test)


def _refuse_shared_patients(slices: Slices, sides: dict[str, NDArray[np.bool_]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for side, members in sides.items():
        for patient, case in sorted(set(zip(slices.patient[members], slices.case[members], strict=True))):
            other_side, other_case = seen.setdefault(str(patient), (side, str(case)))
            if other_side != side:
                raise DatasetError(
                    f"{other_case} is in {other_side} and {case} in {side}, but both are patient {patient}: "
                    "put both on the same side"
                )
