"""Protocols: the ways in which the slices of a prepared folder are divided into training, validation and test.

    A  slice      lesion slices at random, as in the paper; leaks, as neighbouring slices are near-copies
    B  patient    patients apart: fixed test volumes, grouped folds, and near-duplicate groups of single pictures
    C  source     train on one dataset, test on the other
    D  external   train on MedSeg, test on coronacases
    -  final      train on everything but the public test volumes; final-fold-N are folds over the patients of this
                  training part, to choose a recipe and the threshold: the public test volumes are in no part of them

Every protocol but `final` holds out a validation part of its training part, by its own rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import cycle
from pathlib import Path

import numpy as np

from groundglass.data.case import MEDSEG_SOURCES
from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Selection, Split, resolve_split
from groundglass.errors import ConfigError, DatasetError
from groundglass.files import write_files

PUBLIC_TEST = ("volumes/4", "volumes/5", "volumes/8")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
FOLDS, FINAL_FOLDS = 5, 3
_FOLD_FILE = re.compile(r"(B-patient|final)-fold-\d+\.json")
LARGEST_HELD_OUT_SHARE = 1 / 3  # of a source's lesion slices: a patient with more stays in the training part


class _SplitMaker:
    """Makes splits of one set of slices; every random choice depends on the seed alone."""

    def __init__(self, slices: Slices, seed: int) -> None:
        self.slices, self.seed = slices, seed
        self.lesion = slices.has_lesion
        groups: dict[str, set[str]] = {}
        for case, patient in zip(slices.case.tolist(), slices.patient.tolist(), strict=True):
            groups.setdefault(case, set()).add(patient)
        self.groups = {case: tuple(sorted(names)) for case, names in groups.items()}

    def by_slice(self, among: Selection) -> Split:
        """Divide the lesion slices of `among` at random."""
        order = np.random.default_rng(self.seed).permutation(np.flatnonzero(among & self.lesion))
        test_count = round(len(order) * TEST_SHARE)
        validation_count = round((len(order) - test_count) * VALIDATION_SHARE)
        parts = np.split(order, [test_count, test_count + validation_count])
        test, validation, train = (np.isin(np.arange(len(among)), part) for part in parts)
        rule = (
            f"lesion slices at random, as in the paper: {TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} of the rest "
            "validation"
        )
        return self._split("A-slice", rule, train, validation, test, leaky=True)

    def by_patient(self, name: str, rule: str, among: Selection, test: Selection) -> Split:
        """Test on `test`; train on the other patients of `among`, of whom some are held out for validation."""
        rest = among & ~self.patients_of(test)
        validation = self.hold_out(rest, VALIDATION_SHARE)
        return self._split(name, rule, rest & ~validation, validation, test)

    def everything_but(self, test: Selection, rule: str) -> Split:
        """Test on the patients of `test`, and train on all others; the validation part is empty."""
        train = ~self.patients_of(test)
        return self._split("final", rule, train, np.zeros_like(train), ~train)

    def hold_out(self, among: Selection, share: float) -> Selection:
        """Select patients of each source in random order until they have `share` of its lesion slices."""
        held_out = np.zeros_like(among)
        rng = np.random.default_rng(self.seed)
        for source in sorted(set(self.slices.source[among].tolist())):
            candidates = among & self.lesion & (self.slices.source == source)
            patients = rng.permutation(sorted(set(self.slices.patient[candidates].tolist())))
            enough, limit = share * candidates.sum(), LARGEST_HELD_OUT_SHARE * candidates.sum()
            for patient in patients:
                of_patient = self.slices.patient == patient
                if (held_out & candidates).sum() >= enough or len(patients) == 1:
                    break
                if (of_patient & candidates).sum() <= limit:
                    held_out |= of_patient & among
        return held_out

    def patients_of(self, selection: Selection) -> Selection:
        """Select all slices of the patients of some slices."""
        return np.isin(self.slices.patient, self.slices.patient[selection])

    def pictures(self, among: Selection, pictures: Selection) -> Split:
        """Test on a part of the single pictures; train on the rest of `among`."""
        test = self.hold_out(pictures, TEST_SHARE)
        rule = "test on single pictures, near-duplicate groups apart; the other pictures and the volumes train"
        return self.by_patient("B-pictures", rule, among, test)

    def folds(self, name: str, among: Selection, divided: Selection, count: int) -> Iterator[Split]:
        """Yield folds that test on the patients of `divided` in turn, and train on the rest of `among`."""
        from sklearn.model_selection import GroupKFold

        indices = np.flatnonzero(divided & self.lesion)
        folds = GroupKFold(count).split(indices, groups=self.slices.patient[indices])
        for fold, (_, tested) in enumerate(folds, start=1):
            test = divided & np.isin(self.slices.patient, self.slices.patient[indices[tested]])
            rule = f"fold {fold} of {count} over patients, grouped"
            yield self.by_patient(f"{name}-{fold}", rule, among, test)

    def balanced_folds(self, among: Selection, count: int) -> Iterator[Split]:
        """Yield folds of like burdens, which test on the patients of `among` in turn, and train on the others.

        Patients are dealt out in the order of their share of lesion, to and fro, first those with scans. Chance puts
        the few that are severely ill together, and a network that saw none of them finds too little in all of them.
        """
        patients = sorted(set(self.slices.patient[among].tolist()), key=self._scans_and_burden, reverse=True)
        to_and_fro = [*range(count), *reversed(range(count))]
        fold_of = dict(zip(patients, cycle(to_and_fro), strict=False))
        for fold in range(count):
            of_fold = [patient for patient, number in fold_of.items() if number == fold]
            rule = f"fold {fold + 1} of {count} over patients, of like burdens"
            yield self.by_patient(f"fold_{fold}", rule, among, among & np.isin(self.slices.patient, of_fold))

    def _scans_and_burden(self, patient: str) -> tuple[bool, float]:
        """Tell whether a patient has scans and not single pictures alone, and how much of the lungs lesion fills."""
        chosen = self.slices.where(self.slices.patient == patient)
        whole = chosen.labels.size if chosen.lungs is None else int(np.count_nonzero(chosen.lungs))
        return bool(np.isfinite(chosen.spacing_mm).any()), int(np.count_nonzero(chosen.labels)) / max(1, whole)

    def _split(
        self, name: str, rule: str, train: Selection, validation: Selection, test: Selection, leaky: bool = False
    ) -> Split:
        return Split(
            name=name,
            protocol=name[0] if name[1:2] == "-" else "-",
            rule=rule,
            leaky=leaky,
            seed=self.seed,
            train=self._members(train),
            validation=self._members(validation),
            test=self._members(test),
            groups=self.groups,
        )

    def _members(self, selection: Selection) -> tuple[str, ...]:
        """Name the selected slices: CASE where all slices of a case are selected, else CASE:NUMBER of each."""
        members: list[str] = []
        for case in dict.fromkeys(self.slices.case[selection].tolist()):
            of_case = self.slices.case == case
            if selection[of_case].all():
                members.append(case)
            else:
                members += self.slices.name[of_case & selection].tolist()
        return tuple(members)


def make_splits(slices: Slices, test: Sequence[str] = (), folds: int | None = None, seed: int = 0) -> tuple[Split, ...]:
    """Make the splits of every protocol that the data allow.

    Args:
        slices: The slices of a prepared folder.
        test: Case patterns of the fixed test part of protocol B; by default `PUBLIC_TEST`, if the folder holds it.
        folds: Number of grouped folds of protocol B; by default five, or one for each patient if there are fewer.
        seed: Seed of every random choice.

    Raises:
        ConfigError: A pattern matches no case.
        DatasetError: There are fewer patients than folds, or no slice shows lesion.
    """
    maker = _SplitMaker(slices, seed)
    medseg = np.isin(slices.source, MEDSEG_SOURCES)
    pictures, volumes = np.isin(slices.source, MEDSEG_SOURCES[:2]), slices.source == "volumes"
    coronacases = slices.source == "coronacases"
    among = medseg if medseg.any() else np.ones(len(slices), bool)
    divided = volumes if volumes.any() else among
    folds = _fold_count(slices, divided, folds)

    splits = [maker.by_slice(among), *maker.folds("B-patient-fold", among, divided, folds)]
    fixed = _matching(slices, test or [name for name in PUBLIC_TEST if name in set(slices.case.tolist())])
    if fixed.any():
        named = ", ".join(dict.fromkeys(slices.case[fixed].tolist()))
        splits.append(maker.by_patient("B-patient", f"patients apart; test on {named}", among, fixed))
        rule = f"everything but {named} trains; recipe and threshold are chosen on final-fold-N"
        splits.append(maker.everything_but(fixed, rule))
        others = ~maker.patients_of(fixed)
        scans = others & ~pictures
        if len(set(slices.patient[scans & maker.lesion].tolist())) >= FINAL_FOLDS:
            splits += maker.folds("final-fold", others, scans, FINAL_FOLDS)
    if pictures.any() and volumes.any():
        splits.append(maker.pictures(among, pictures))
        rule = "train on single pictures, test on volumes"
        splits.append(maker.by_patient("C-pictures-to-volumes", rule, medseg, volumes))
        rule = "train on volumes, test on single pictures"
        splits.append(maker.by_patient("C-volumes-to-pictures", rule, medseg, pictures))
    if medseg.any() and coronacases.any():
        rule = "train on MedSeg, test on coronacases (another source, in HU)"
        splits.append(maker.by_patient("D-external", rule, medseg | coronacases, coronacases))
    return tuple(splits)


def make_training_folds(slices: Slices, folds: int, seed: int = 0) -> tuple[Split, ...]:
    """Make folds over the patients, `fold_0`, `fold_1`, …, and last `fold_all`, which trains on all of them.

    The public test volumes, where the data hold them, are in no fold.

    Raises:
        DatasetError: No slice shows lesion, or there are fewer patients than folds, or only one.
    """
    maker = _SplitMaker(slices, seed)
    public = np.isin(slices.case, PUBLIC_TEST)
    among = ~maker.patients_of(public)
    count = _fold_count(slices, among, folds)
    everything = maker.everything_but(public, "all patients train; the threshold is chosen on what the folds hold out")
    return (*maker.balanced_folds(among, count), everything.model_copy(update={"name": "fold_all"}))


def _fold_count(slices: Slices, divided: Selection, folds: int | None) -> int:
    """Return the number of folds over the patients of `divided`: `folds`, or five at most.

    Raises:
        DatasetError: No slice shows lesion, or there are fewer patients than folds, or only one.
    """
    if not slices.has_lesion.any():
        raise DatasetError("no slice shows lesion: there is nothing to split")
    patients = len(set(slices.patient[divided & slices.has_lesion].tolist()))
    if patients < 2:
        raise DatasetError("all slices are of one patient: no split can keep patients apart")
    folds = folds or min(FOLDS, patients)
    if patients < folds:
        raise DatasetError(f"{patients} patients cannot make {folds} folds: give fewer with --folds")
    return folds


def write_splits(
    prepared: Path, folder: Path, test: Sequence[str] = (), folds: int | None = None, seed: int = 0
) -> tuple[Split, ...]:
    """Write NAME.json for every split of `make_splits`, which takes the same arguments and raises the same errors.

    All files are written, or none. Folds of an earlier call are removed.

    Raises:
        OutputError: The folder cannot be written, or holds files of others of these names; it is as it was before.
    """
    _, slices = read_prepared(prepared)
    splits = make_splits(slices, test, folds, seed)
    for split in splits:
        resolve_split(split, slices)
    files = {f"{split.name}.json": (split.model_dump_json(indent=1) + "\n").encode() for split in splits}
    folds_there = [path.name for path in folder.glob("*.json") if _FOLD_FILE.fullmatch(path.name)]
    write_files(folder, files, folds_there, known_by=f"{splits[0].name}.json")
    return splits


def make_leakage_splits(slices: Slices, seed: int = 0) -> tuple[Split, Split]:
    """Make a random split by slice and one of about the same size by patient: their scores differ by the leakage.

    Raises:
        DatasetError: There are too few patients to keep some apart.
    """
    maker = _SplitMaker(slices, seed)
    everything = np.ones(len(slices), bool)
    test = maker.hold_out(everything, TEST_SHARE) & maker.lesion
    if not test.any():
        raise DatasetError(
            "no patient can be kept apart: no slice shows lesion, or every patient has more than a third of the lesion "
            "slices of a source; add patients"
        )
    return maker.by_slice(everything), maker.by_patient("B-patient", "patients apart, at random", maker.lesion, test)


def _matching(slices: Slices, patterns: Sequence[str]) -> Selection:
    """Select the slices of the cases that match any of the patterns.

    Raises:
        ConfigError: A pattern matches no case.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in set(slices.case.tolist())):
            raise ConfigError(f"no case matches {pattern!r}; there are {', '.join(sorted(set(slices.case))[:8])}, …")
    return np.array([any(fnmatch(name, pattern) for pattern in patterns) for name in slices.case], dtype=bool)
