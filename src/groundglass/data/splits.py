"""Which slices train, which choose, which test: a split file, and what it says of a prepared folder's slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from groundglass.data.slices import Slices
from groundglass.errors import ConfigError, DatasetError
from groundglass.strict_model import first_error

PARTS = ("train", "validation", "test")
Members = NDArray[np.bool_]


class Split(BaseModel):
    """A protocol's parts, as a file holds them.

    Attributes:
        name: Of the file.
        protocol: A, B, C or D, or "-".
        rule: What decides, in one sentence.
        leaky: Whether slices of a patient may be on two sides.
        seed: Of every random choice.
        train: CASE, or CASE:NUMBER for a single slice of it.
        validation: Chooses epoch and threshold.
        test: Neither trained on nor looked at.
        groups: {case: its patient groups}.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    protocol: str
    rule: str
    leaky: bool = False
    seed: int = 0
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] = {}

    @field_validator(*PARTS)
    @classmethod
    def _numbered(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            if ":" in member and not member.partition(":")[2].isdigit():
                raise ValueError(f"{member} names no slice: expected CASE or CASE:NUMBER")
        return members

    def part(self, name: str) -> tuple[str, ...]:
        """The members of `train`, `validation` or `test`.

        Raises:
            ConfigError: There is no such part.
        """
        if name not in PARTS:
            raise ConfigError(f"there is no part {name!r} of a split: expected {', '.join(PARTS)}")
        members: tuple[str, ...] = getattr(self, name)
        return members


@dataclass(frozen=True, eq=False)
class Sides:
    """Boolean (n,) masks over a set of slices; no slice is in two."""

    train: Members
    validation: Members
    test: Members


def read_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        ConfigError: It is missing or damaged.
    """
    try:
        return Split.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; write splits with groundglass split") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no split: {first_error(error)}") from error


def sides_of(split: Split, slices: Slices) -> Sides:
    """Where each slice of a prepared folder stands; slices that the split does not name stand nowhere.

    Raises:
        DatasetError: A member is not in the folder, a slice is on two sides, or a patient is, where the split is not
            leaky; both cases are named.
    """
    masks = {part: _members(split.part(part), slices) for part in PARTS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = np.flatnonzero(masks[one] & masks[other])
        if len(both):
            at = f"{slices.case[both[0]]}:{slices.number[both[0]]}"
            raise DatasetError(f"split {split.name}: {at} is in {one} and in {other}: a slice has one part")
    if not split.leaky:
        _refuse_shared_patients(split.name, slices, masks)
    if not masks["train"].any():
        raise DatasetError(f"split {split.name} leaves no slice to train on")
    return Sides(**masks)


def _members(names: Sequence[str], slices: Slices) -> Members:
    whole = {name for name in names if ":" not in name}
    single = {name for name in names if ":" in name}
    ids = np.array([f"{case}:{number}" for case, number in zip(slices.case, slices.number, strict=True)])
    missing = sorted(whole - set(slices.case.tolist())) + sorted(single - set(ids.tolist()))
    if missing:
        raise DatasetError(f"the split names {missing[0]}, which is not in the prepared folder: prepare the same data")
    return np.isin(slices.case, list(whole)) | np.isin(ids, list(single))


def _refuse_shared_patients(name: str, slices: Slices, masks: dict[str, Members]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for part, members in masks.items():
        for patient, case in sorted(set(zip(slices.patient[members], slices.case[members], strict=True))):
            other_part, other_case = seen.setdefault(str(patient), (part, str(case)))
            if other_part != part:
                raise DatasetError(
                    f"split {name}: {other_case} is in {other_part} and {case} in {part}, but both are patient "
                    f"{patient}: put both in one part"
                )
