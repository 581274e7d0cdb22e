"""The protocols: how the slices of a prepared folder are divided, and why.

    A  slice      the paper's: lesion slices at random. Leaks: neighbouring slices are near-copies
    B  patient    patients apart: fixed test volumes, grouped folds, and near-duplicate groups of single pictures
    C  source     one dataset trains, the other tests
    D  external   MedSeg trains, coronacases test
    -  final      everything trains but the public test volumes; final-fold-N are folds over the patients of that, to
                  choose recipe and threshold by: the public test volumes are in no part of them

Each but `final` holds out an inner validation part of the training by its own rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from groundglass.data.catalogue import MEDSEG
from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Members, Split, sides_of
from groundglass.errors import ConfigError, DatasetError
from groundglass.files import write_atomic

PUBLIC_TEST = ("volumes/4", "volumes/5", "volumes/8")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
FOLDS, RECIPE_FOLDS = 5, 3
LARGEST_HELD_OUT = 1 / 3  # of a source's lesion slices: a patient with more stays in the training


class _Protocols:
    """Makes the protocols of one set of slices."""

    def __init__(self, slices: Slices, seed: int) -> None:
        self.slices, self.seed = slices, seed
        self.lesion = slices.has_lesion
        groups: dict[str, set[str]] = {}
        for case, patient in zip(slices.case.tolist(), slices.patient.tolist(), strict=True):
            groups.setdefault(case, set()).add(patient)
        self.groups = {case: tuple(sorted(names)) for case, names in groups.items()}

    def by_slice(self, among: Members) -> Split:
        order = np.random.default_rng(self.seed).permutation(np.flatnonzero(among & self.lesion))
        tests = round(len(order) * TEST_SHARE)
        validations = round((len(order) - tests) * VALIDATION_SHARE)
        parts = np.split(order, [tests, tests + validations])
        test, validation, train = (np.isin(np.arange(len(among)), part) for part in parts)
        rule = f"the paper's: lesion slices at random, {TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} of the rest choose"
        return self._split("A-slice", rule, train, validation, test, leaky=True)

    def by_patient(self, name: str, rule: str, among: Members, test: Members) -> Split:
        """Patients of `test` apart from the rest of `among`, of which a validation part is held out by patient."""
        in_test = np.isin(self.slices.patient, self.slices.patient[test])
        rest = among & ~in_test
        validation = self.hold_out(rest, VALIDATION_SHARE)
        return self._split(name, rule, rest & ~validation, validation, test)

    def everything_but(self, test: Members, rule: str) -> Split:
        """All other patients train, and none is left to choose by."""
        train = ~np.isin(self.slices.patient, self.slices.patient[test])
        return self._split("final", rule, train, np.zeros_like(train), ~train)

    def hold_out(self, among: Members, share: float) -> Members:
        """Whole patients of each source, in random order, until `share` of its lesion slices is reached."""
        held = np.zeros_like(among)
        rng = np.random.default_rng(self.seed)
        for source in sorted(set(self.slices.source[among].tolist())):
            here = among & self.lesion & (self.slices.source == source)
            patients = rng.permutation(sorted(set(self.slices.patient[here].tolist())))
            wanted, limit = share * here.sum(), LARGEST_HELD_OUT * here.sum()
            for patient in patients:
                of_patient = self.slices.patient == patient
                if (held & here).sum() >= wanted or len(patients) == 1:
                    break
                if (of_patient & here).sum() <= limit:
                    held |= of_patient & among
        return held

    def pictures(self, among: Members, pictures: Members) -> Split:
        test = self.hold_out(pictures, TEST_SHARE)
        rule = "single pictures, near-duplicate groups apart; the volumes train"
        return self.by_patient("B-pictures", rule, among, test)

    def folds(self, name: str, among: Members, divided: Members, count: int) -> Iterator[Split]:
        from sklearn.model_selection import GroupKFold

        members = np.flatnonzero(divided & self.lesion)
        folder = GroupKFold(count).split(members, groups=self.slices.patient[members])
        for fold, (_, chosen) in enumerate(folder, start=1):
            test = divided & np.isin(self.slices.patient, self.slices.patient[members[chosen]])
            rule = f"fold {fold} of {count} over patients, grouped"
            yield self.by_patient(f"{name}-{fold}", rule, among, test)

    def _split(
        self, name: str, rule: str, train: Members, validation: Members, test: Members, leaky: bool = False
    ) -> Split:
        return Split(
            name=name,
            protocol=name[0] if name[1:2] == "-" else "-",
            rule=rule,
            leaky=leaky,
            seed=self.seed,
            train=self._names(train),
            validation=self._names(validation),
            test=self._names(test),
            groups=self.groups,
        )

    def _names(self, members: Members) -> tuple[str, ...]:
        """A case that is a member whole by its name, else each slice."""
        names: list[str] = []
        for case in dict.fromkeys(self.slices.case[members].tolist()):
            of_case = self.slices.case == case
            if members[of_case].all():
                names.append(case)
            else:
                names += [f"{case}:{number}" for number in self.slices.number[of_case & members]]
        return tuple(names)


def make_splits(slices: Slices, test: Sequence[str] = (), folds: int | None = None, seed: int = 0) -> tuple[Split, ...]:
    """Every protocol that the data allows.

    Args:
        slices: Of a prepared folder.
        test: Case patterns of the fixed test part of protocol B; none: the public one, where it is there.
        folds: Grouped folds of protocol B; None: five, or as many as there are patients.
        seed: Of every random choice.

    Raises:
        ConfigError: A pattern matches no case.
        DatasetError: There are fewer patients than folds.
    """
    make = _Protocols(slices, seed)
    everything = np.ones(len(slices), bool)
    medseg = np.isin(slices.source, MEDSEG)
    pictures, volumes = np.isin(slices.source, MEDSEG[:2]), slices.source == "volumes"
    coronacases = slices.source == "coronacases"
    among = medseg if medseg.any() else everything
    divided = volumes if volumes.any() else among
    if not make.lesion.any():
        raise DatasetError("no slice shows lesion: there is nothing to split")
    patients = len(set(slices.patient[divided & make.lesion].tolist()))
    if patients < 2:
        raise DatasetError("all slices are of one patient: no split can keep patients apart")
    folds = folds or min(FOLDS, patients)
    if patients < folds:
        raise DatasetError(f"{patients} patients cannot make {folds} folds: give fewer with --folds")

    splits = [make.by_slice(among), *make.folds("B-patient-fold", among, divided, folds)]
    fixed = _matching(slices, test or [name for name in PUBLIC_TEST if name in set(slices.case.tolist())])
    if fixed.any():
        named = ", ".join(dict.fromkeys(slices.case[fixed].tolist()))
        splits.append(make.by_patient("B-patient", f"patients apart; {named} test", among, fixed))
        shipped = ~np.isin(slices.patient, slices.patient[fixed])
        splits.append(make.everything_but(fixed, f"everything but {named} trains; recipe and threshold are the folds'"))
        scans = shipped & ~pictures
        if len(set(slices.patient[scans & make.lesion].tolist())) >= RECIPE_FOLDS:
            splits += make.folds("final-fold", shipped, scans, RECIPE_FOLDS)
    if pictures.any() and volumes.any():
        splits.append(make.pictures(among, pictures))
        splits.append(make.by_patient("C-pictures-to-volumes", "single pictures train, volumes test", medseg, volumes))
        splits.append(make.by_patient("C-volumes-to-pictures", "volumes train, single pictures test", medseg, pictures))
    if medseg.any() and coronacases.any():
        rule = "MedSeg trains, coronacases (another source, in HU) test"
        splits.append(make.by_patient("D-external", rule, medseg | coronacases, coronacases))
    return tuple(splits)


def write_splits(
    prepared: Path, folder: Path, test: Sequence[str] = (), folds: int | None = None, seed: int = 0
) -> tuple[Split, ...]:
    """Write NAME.json for every protocol that a prepared folder allows; arguments and errors are `make_splits`'s."""
    _, slices = read_prepared(prepared)
    splits = make_splits(slices, test, folds, seed)
    for split in splits:
        sides_of(split, slices)
    for stale in folder.glob("*-fold-*.json"):
        stale.unlink()
    for split in splits:
        write_atomic(folder / f"{split.name}.json", (split.model_dump_json(indent=1) + "\n").encode())
    return splits


def slice_and_patient(slices: Slices, seed: int = 0) -> tuple[Split, Split]:
    """A random split by slice, and one of about the same size by patient: their scores differ by the leak.

    Raises:
        DatasetError: There are too few patients to keep some apart.
    """
    make = _Protocols(slices, seed)
    everything = np.ones(len(slices), bool)
    test = make.hold_out(everything, TEST_SHARE) & make.lesion
    if not test.any():
        raise DatasetError(
            "no patient can be kept apart: none shows lesion, or each holds more than a third of its source's lesion "
            "slices; add patients"
        )
    return make.by_slice(everything), make.by_patient("B-patient", "patients apart, at random", make.lesion, test)


def _matching(slices: Slices, patterns: Sequence[str]) -> Members:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in set(slices.case.tolist())):
            raise ConfigError(f"no case matches {pattern!r}; there are {', '.join(sorted(set(slices.case))[:8])}, …")
    return np.array([any(fnmatch(name, pattern) for pattern in patterns) for name in slices.case], dtype=bool)
