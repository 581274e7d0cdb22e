"""What is scored: cases of a prepared folder or a dataset, a part of a split or those that patterns name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundglass.data.catalogue import find_cases, select
from groundglass.data.prepared import read_manifest
from groundglass.data.splits import Split
from groundglass.errors import DatasetError
from groundglass.evaluation.evaluate import Target


def find_targets(data: Path, patterns: Sequence[str] = ()) -> tuple[Target, ...]:
    """The cases of a prepared folder (with its patient groups), a dataset folder or a CSV, in their order.

    Args:
        data: Where they are; a prepared folder leads to its original files.
        patterns: Case names; none: all.

    Raises:
        DatasetError: There is no dataset, a pattern matches none, or an original file is gone.
    """
    if not (data / "manifest.json").is_file():
        cases = find_cases(data)
        return tuple(Target(case, case.patient) for case in (select(cases, patterns) if patterns else cases))
    prepared = {case.name: case for case in read_manifest(data).cases}
    cases = tuple(case.case for case in prepared.values())
    targets = []
    for case in select(cases, patterns) if patterns else cases:
        if not case.image.is_file() or not case.lesion.is_file():
            raise DatasetError(f"{case.image} or its mask is gone since {data} was prepared: prepare it again")
        group = prepared[case.name].group
        targets.append(Target(case, group[0] if group and not case.strangers else case.patient))
    return tuple(targets)


def part_of(targets: Sequence[Target], split: Split, part: str) -> tuple[Target, ...]:
    """The targets, and of each the slices, that a part of a split names.

    Raises:
        ConfigError: The split has no such part.
        DatasetError: A member is no target.
    """
    by_name = {target.case.name: target for target in targets}
    slices: dict[str, set[int] | None] = {}
    for member in split.part(part):
        name, _, number = member.partition(":")
        if name not in by_name:
            raise DatasetError(
                f"split {split.name} names {name}, which is not in the data: name the data it was made of"
            )
        chosen = slices.setdefault(name, set() if number else None)
        if chosen is not None:
            chosen.add(int(number))
    if not slices:
        raise DatasetError(f"part {part} of split {split.name} is empty: there is nothing to score")
    return tuple(
        Target(by_name[name].case, by_name[name].patient, None if chosen is None else frozenset(chosen))
        for name, chosen in slices.items()
    )
