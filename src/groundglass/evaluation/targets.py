"""What is scored: cases of a prepared folder or a dataset, a part of a split or those that patterns name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundglass.data.catalogue import find_cases, select
from groundglass.data.prepared import PreparedCase, read_complete, read_slices
from groundglass.data.splits import Split, sides_of
from groundglass.errors import DatasetError
from groundglass.evaluation.evaluate import Target
from groundglass.files import sha256_of
from groundglass.inference.model_card import TrainedOn


def find_targets(
    data: Path, patterns: Sequence[str] = (), split: Split | None = None, part: str = "test"
) -> tuple[Target, ...]:
    """What is to be scored of a prepared folder (with its patient groups), a dataset folder or a CSV.

    Args:
        data: Where the cases are; a prepared folder leads to its original files.
        patterns: Case names; none: all.
        split: Score a part of it alone.
        part: Which: train, validation or test.

    Raises:
        DatasetError: There is no dataset, a pattern or member matches none, the split does not keep patients apart, or
            an original file is gone or changed.
        ConfigError: The split has no such part.
    """
    prepared: dict[str, PreparedCase] = {}
    if (data / "manifest.json").is_file():
        manifest = read_complete(data)
        prepared = {case.name: case for case in manifest.cases}
        targets = tuple(_target(case) for case in manifest.cases)
        if split is not None:
            sides_of(split, read_slices(data, manifest))
    else:
        targets = tuple(Target(case, case.patient) for case in find_cases(data))
    if split is not None:
        targets = _part_of(targets, split, part)
    if patterns:
        chosen = set(select([target.case for target in targets], patterns))
        targets = tuple(target for target in targets if target.case in chosen)
    if prepared:
        _refuse_changed(targets, prepared, data)
    return targets


def _target(prepared: PreparedCase) -> Target:
    groups = dict(zip(prepared.number, prepared.group, strict=True))
    if prepared.unrelated_slices or not groups:
        return Target(prepared.case, prepared.patient, groups=groups)
    return Target(prepared.case, prepared.group[0])


def _refuse_changed(targets: Sequence[Target], prepared: dict[str, PreparedCase], data: Path) -> None:
    for target in targets:
        case, known = target.case, prepared[target.case.name]
        for file, expected in ((case.image, known.image_sha256), (case.lesion, known.mask_sha256)):
            if not file.is_file() or sha256_of(file) != expected:
                raise DatasetError(f"{file} is gone or changed since {data} was prepared: prepare it again")


def _part_of(targets: Sequence[Target], split: Split, part: str) -> tuple[Target, ...]:
    """The targets, and of each the slices, that a part of a split names."""
    by_name = {target.case.name: target for target in targets}
    slices = _members(split.part(part))
    missing = next((name for name in slices if name not in by_name), None)
    if missing is not None:
        raise DatasetError(f"split {split.name} names {missing}, which is not in the data: give what it was made of")
    if not slices:
        raise DatasetError(f"part {part} of split {split.name} is empty: there is nothing to score")
    return tuple(replace(by_name[name], slices=chosen) for name, chosen in slices.items())


def _members(members: Sequence[str]) -> dict[str, frozenset[int] | None]:
    """{case: its slices, or None for all of them}."""
    found: dict[str, set[int] | None] = {}
    for member in members:
        name, _, number = member.partition(":")
        chosen = found.setdefault(name, set() if number else None)
        if chosen is not None:
            chosen.add(int(number))
    return {name: None if chosen is None else frozenset(chosen) for name, chosen in found.items()}


def training_warnings(targets: Sequence[Target], trained_on: TrainedOn | None) -> tuple[str, ...]:
    """Warnings where targets, or their patients, trained a model or chose its epoch and threshold.

    Args:
        targets: What is scored.
        trained_on: Of the model's card; None: not known.
    """
    if trained_on is None:
        return ("what this model was trained on is not known: these scores may be no test; export it again",)
    same = [target for target in targets if trained_on.holds(target.case.name, target.slices)]
    patients = set(trained_on.patients)
    kin = [target for target in targets if target not in same and patients & target.patients]
    warnings = []
    for found, what in (
        (same, "trained this model or chose its threshold: these scores are no test"),
        (kin, "are of patients that trained this model: these scores leak"),
    ):
        if found:
            shown = ", ".join(target.case.name for target in found[:4]) + (", …" if len(found) > 4 else "")
            warnings.append(f"{len(found)} of {len(targets)} cases ({shown}) {what}")
    return tuple(warnings)
