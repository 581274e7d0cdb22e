"""Split files: which cases and slices are trained on, validated on and tested on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from groundglass.data.slices import Slices
from groundglass.errors import ConfigError, DatasetError
from groundglass.strict_model import StrictModel, first_error

PARTS = ("train", "validation", "test")
Selection: TypeAlias = NDArray[np.bool_]  # (n,) which slices are selected
_RENAMED = re.compile(r"^ship(?=$|-fold-\d+$)")  # names of splits in version 0.1


class Split(StrictModel):
    """The parts of a data set under a protocol, as a split file holds them.

    A member of a part is CASE, or CASE:NUMBER for a single slice of it.

    Attributes:
        name: Name of the split and of its file.
        protocol: A, B, C or D, or "-".
        rule: One sentence on how the parts were made.
        leaky: Whether slices of one patient may be in two parts.
        seed: Seed of every random choice.
        train: Members that are trained on.
        validation: Members that the epoch and the threshold are chosen by.
        test: Members that are used for the final scores alone.
        groups: {case: its patient groups}.
    """

    name: str
    protocol: str
    rule: str
    leaky: bool = False
    seed: int = 0
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator(*PARTS)
    @classmethod
    def _check_slice_numbers(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            if ":" in member and not member.partition(":")[2].isdigit():
                raise ValueError(f"{member} names no slice: expected CASE or CASE:NUMBER")
        return members

    def part(self, name: str) -> tuple[str, ...]:
        """Return the members of `train`, `validation` or `test`.

        Raises:
            ConfigError: No part has this name.
        """
        if name not in PARTS:
            raise ConfigError(f"a split has no part {name!r}: expected {', '.join(PARTS)}")
        members: tuple[str, ...] = getattr(self, name)
        return members


@dataclass(frozen=True, eq=False)
class ResolvedSplit:
    """The slices of each part of a split, as (n,) booleans over a set of slices; no slice is in two parts."""

    train: Selection
    validation: Selection
    test: Selection


def current_name(name: str) -> str:
    """Return the name that a split of version 0.1 has now: `ship` is called `final`; other names are unchanged."""
    return _RENAMED.sub("final", name)


def read_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        ConfigError: It is missing or damaged, or its split was renamed since version 0.1.
    """
    try:
        split = Split.model_validate_json(path.read_bytes())
    except OSError as error:
        new_name = current_name(path.stem)
        renamed = f"; {path.stem} is called {new_name} since version 0.2" if new_name != path.stem else ""
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}{renamed}; write splits with groundglass split"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no split: {first_error(error)}") from error
    if current_name(split.name) != split.name:
        raise ConfigError(
            f"{path} holds the split {split.name}, which is called {current_name(split.name)} since version 0.2: write "
            "the splits again with groundglass split, or change the name in the file"
        )
    return split


def resolve_split(split: Split, slices: Slices) -> ResolvedSplit:
    """Find the slices of each part in a set of slices; slices that the split does not name are in no part.

    Raises:
        DatasetError: A member is not in the set, a slice is in two parts, or a patient is and the split is not leaky.
    """
    parts = {part: _select_members(split.part(part), slices) for part in PARTS}
    for one, other in combinations(PARTS, 2):
        in_both = np.flatnonzero(parts[one] & parts[other])
        if len(in_both):
            name = slices.name[in_both[0]]
            raise DatasetError(f"split {split.name}: {name} is in {one} and in {other}: a slice has one part")
    if not split.leaky:
        _refuse_shared_patients(split.name, slices, parts)
    if not parts["train"].any():
        raise DatasetError(f"split {split.name} leaves no slice to train on")
    return ResolvedSplit(**parts)


def _select_members(members: Sequence[str], slices: Slices) -> Selection:
    """(n,) the slices that the members of a part name."""
    cases = {member for member in members if ":" not in member}
    single = {member for member in members if ":" in member}
    names = slices.name
    missing = sorted(cases - set(slices.case.tolist())) + sorted(single - set(names.tolist()))
    if missing:
        raise DatasetError(f"the split names {missing[0]}, which is not in the prepared folder: prepare the same data")
    return np.isin(slices.case, list(cases)) | np.isin(names, list(single))


def _refuse_shared_patients(name: str, slices: Slices, parts: dict[str, Selection]) -> None:
    """Check that no patient is in two parts.

    Raises:
        DatasetError: One is; the message names a case of each part.
    """
    part_of: dict[str, tuple[str, str]] = {}
    for part, members in parts.items():
        for patient, case in sorted(set(zip(slices.patient[members], slices.case[members], strict=True))):
            other_part, other_case = part_of.setdefault(str(patient), (part, str(case)))
            if other_part != part:
                raise DatasetError(
                    f"split {name}: {other_case} is in {other_part} and {case} in {part}, but both are patient "
                    f"{patient}: put both in one part"
                )
