"""The cases to score: from a prepared folder or a dataset, as a part of a split or patterns of names select them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from groundglass.data.case import Case, sha256_of_scan
from groundglass.data.catalogue import find_cases, select
from groundglass.data.prepared import PreparedCase, read_complete_manifest, read_slices
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import DatasetError
from groundglass.inference.model_card import TrainedOn
from groundglass.plain_text import first_names

SHOWN_CASES = 4  # names of cases in a warning


@dataclass(frozen=True)
class EvaluationTarget:
    """A case to score, or some of its slices.

    Attributes:
        case: Image and reference.
        patient: Patient group that the bootstrap resamples; in a stack of unrelated slices each slice is its own group.
        slices: Indices of the slices to score, from 0 along the axial view (feet to head; pictures: in their order);
            None: all.
        groups: {slice index: patient} for a stack of unrelated slices of which some are known to share a patient.
    """

    case: Case
    patient: str
    slices: frozenset[int] | None = None
    groups: Mapping[int, str] = field(default_factory=dict)

    @property
    def patients(self) -> frozenset[str]:
        """Patients of the slices to score; for a case of one patient also the patient that the dataset states."""
        if not self.groups:
            return frozenset({self.patient, self.case.patient})
        scored = self.groups.keys() if self.slices is None else self.slices & self.groups.keys()
        return frozenset(self.groups[z] for z in scored)

    def patient_of(self, z: int) -> str:
        """Return the patient group of a slice."""
        own_group = f"{self.patient}-{z}" if self.case.unrelated_slices else self.patient
        return self.groups.get(z, own_group)


def find_targets(
    data: Path, patterns: Sequence[str] = (), split: Split | None = None, part: str = "test"
) -> tuple[EvaluationTarget, ...]:
    """List the cases to score in a prepared folder (with its patient groups), a dataset folder or a CSV.

    Args:
        data: Folder or CSV of the cases; a prepared folder leads to its original files.
        patterns: Patterns of case names; none selects all cases.
        split: Split of which one part is scored; None: all cases.
        part: Part of the split: train, validation or test.

    Raises:
        DatasetError: There is no dataset, a pattern or member matches no case, the split does not keep patients apart,
            or an original file is missing or was changed.
        ConfigError: The split has no such part.
    """
    prepared: dict[str, PreparedCase] = {}
    if (data / "manifest.json").is_file():
        manifest = read_complete_manifest(data)
        prepared = {case.name: case for case in manifest.cases}
        targets = tuple(_prepared_target(case) for case in manifest.cases)
        if split is not None:
            resolve_split(split, read_slices(data, manifest))
    else:
        targets = tuple(EvaluationTarget(case, case.patient) for case in find_cases(data))
    if split is not None:
        targets = _select_part(targets, split, part)
    if patterns:
        selected = set(select([target.case for target in targets], patterns))
        targets = tuple(target for target in targets if target.case in selected)
    if prepared:
        _check_unchanged(targets, prepared, data)
    return targets


def _prepared_target(prepared: PreparedCase) -> EvaluationTarget:
    groups = dict(zip(prepared.number, prepared.group, strict=True))
    if prepared.unrelated_slices or not groups:
        return EvaluationTarget(prepared.case, prepared.patient, groups=groups)
    return EvaluationTarget(prepared.case, prepared.group[0])


def _check_unchanged(targets: Sequence[EvaluationTarget], prepared: dict[str, PreparedCase], data: Path) -> None:
    for target in targets:
        case, recorded = target.case, prepared[target.case.name]
        for file, expected in ((case.image, recorded.image_sha256), (case.mask, recorded.mask_sha256)):
            if not file.is_file() or sha256_of_scan(file) != expected:
                raise DatasetError(f"{file} is missing or was changed since {data} was prepared: prepare it again")


def _select_part(targets: Sequence[EvaluationTarget], split: Split, part: str) -> tuple[EvaluationTarget, ...]:
    """Select the targets, and of each the slices, that a part of a split names."""
    by_name = {target.case.name: target for target in targets}
    slices = _slices_by_case(split.part(part))
    missing = next((name for name in slices if name not in by_name), None)
    if missing is not None:
        raise DatasetError(
            f"split {split.name} names {missing}, which is not in the data: name the data that the split was made from"
        )
    if not slices:
        raise DatasetError(f"part {part} of split {split.name} is empty: there is nothing to score")
    return tuple(replace(by_name[name], slices=scored) for name, scored in slices.items())


def _slices_by_case(members: Sequence[str]) -> dict[str, frozenset[int] | None]:
    """Parse members CASE or CASE:SLICE of a split: {case: its slices, or None for all of them}."""
    parsed: dict[str, set[int] | None] = {}
    for member in members:
        name, _, z = member.partition(":")
        slices = parsed.setdefault(name, set() if z else None)
        if slices is not None:
            slices.add(int(z))
    return {name: None if slices is None else frozenset(slices) for name, slices in parsed.items()}


def training_warnings(targets: Sequence[EvaluationTarget], trained_on: TrainedOn | None) -> tuple[str, ...]:
    """Warn of targets that, or whose patients, trained a model or chose its epoch and threshold.

    Args:
        targets: The cases to score.
        trained_on: What the model's card states; None: it is not known.
    """
    if trained_on is None:
        return (
            "the data that this model was trained on is not known, so these scores may not be a test; export it again",
        )
    seen = [target for target in targets if trained_on.holds(target.case.name, target.slices)]
    patients = set(trained_on.patients)
    same_patients = [target for target in targets if target not in seen and patients & target.patients]
    warnings = []
    for found, message in (
        (seen, "trained this model or chose its threshold: these scores are no test"),
        (same_patients, "are of patients that trained this model: these scores leak"),
    ):
        if found:
            names = first_names([target.case.name for target in found], SHOWN_CASES)
            warnings.append(f"{len(found)} of {len(targets)} cases ({names}) {message}")
    return tuple(warnings)
