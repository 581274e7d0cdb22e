"""What an evaluation found: slices, cases, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundglass.evaluation.agreement import Agreement, PairedMeasurement, agreement
from groundglass.evaluation.calibration import CalibrationHistogram
from groundglass.evaluation.intervals import Estimate, estimate, mean, mean_of, pooled
from groundglass.evaluation.lesions import Region
from groundglass.evaluation.volume import VolumeScores
from groundglass.metrics import Confusion
from groundglass.report.findings import ModelRef
from groundglass.scan.lung_field import Box

Scores = dict[str, Estimate]


@dataclass(frozen=True, eq=False)
class SliceScore:
    """Counts of one slice.

    Attributes:
        patient: Whose it is; in a stack of strangers every slice is a patient of its own.
        number: Of the slice, from 0 along the axial view (feet to head), or in the order of the pictures.
        number_in_file: Along the file's own axis.
        box: The part that the network looked at; None where no lung was found.
        whole: Counts of every pixel of the slice.
        crop: Counts on the network's own grid; None for a slice without lesion or without lung.
        classes: {class: counts}, without the pixels whose class the reference does not state.
    """

    patient: str
    number: int
    number_in_file: int
    box: Box | None
    whole: Confusion
    crop: Confusion | None
    classes: dict[str, Confusion]

    @property
    def has_lesion(self) -> bool:
        """Whether the reference shows lesion in it."""
        return self.whole.true_positive + self.whole.false_negative > 0


@dataclass(frozen=True, eq=False)
class CaseScore:
    """What was found in one case.

    Attributes:
        case: Its name.
        patient: The group that the bootstrap draws.
        strangers: Whether its slices stand alone: pictures, or a stack of different patients.
        slices: Those that count.
        regions: The reference's lesions and the marked regions.
        volume: What it has as a whole volume.
    """

    case: str
    patient: str
    unrelated_slices: bool
    slices: tuple[SliceScore, ...]
    regions: tuple[Region, ...]
    volume: VolumeScores

    @property
    def lesion_free(self) -> int:
        """Counted slices whose reference shows no lesion."""
        return sum(not each.has_lesion for each in self.slices)

    @property
    def false_positive_ml_per_slice(self) -> float | None:
        """Millilitres marked for each lesion-free slice; None where `volume.false_positive_ml` is."""
        marked = self.volume.false_positive_ml
        return None if marked is None else marked / self.lesion_free

    @property
    def pooled(self) -> dict[str, Confusion]:
        """Counts of its slices together: of `whole` slices, of `lesion_slices` only, and of the `crops` of these."""
        return _pooled(self.slices)

    def pooled_class(self, name: str) -> Confusion:
        """Counts of one class over its slices together."""
        return sum((each.classes[name] for each in self.slices if name in each.classes), Confusion())


@dataclass(frozen=True, eq=False)
class Example:
    """A slice to look at.

    Attributes:
        rank: best, median or worst by Dice among the slices with lesion.
        title: Case and slice.
        dice: Of the slice.
        grey: (height, width) uint8, a lung window.
        reference: (height, width) bool.
        predicted: (height, width) bool.
        aspect: Height of a pixel over its width.
    """

    rank: str
    title: str
    dice: float
    grey: NDArray[np.uint8]
    reference: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    aspect: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything that was found in all cases.

    Attributes:
        model: Name and sha256.
        threshold: A pixel is lesion from this probability on.
        classes: The model's class maps, the lesion map left out.
        cases: In the order of the targets.
        histogram: Probabilities by truth over the pixels that the network looked at.
        examples: Slices to look at.
        warnings: What a reader of the scores has to know.
    """

    model: ModelRef
    threshold: float
    classes: tuple[str, ...]
    cases: tuple[CaseScore, ...]
    histogram: CalibrationHistogram
    examples: tuple[Example, ...]
    warnings: tuple[str, ...] = ()

    @property
    def slices(self) -> tuple[SliceScore, ...]:
        """Those of every case."""
        return tuple(each for case in self.cases for each in case.slices)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Those of every case."""
        return tuple(region for case in self.cases for region in case.regions)

    @property
    def volumes(self) -> tuple[CaseScore, ...]:
        """The cases whose slices belong together."""
        return tuple(case for case in self.cases if not case.unrelated_slices)

    @property
    def pooled(self) -> dict[str, Confusion]:
        """The counts of all cases together, as in `CaseScore`."""
        return _pooled(self.slices)

    def pooled_scores(self) -> dict[str, Scores]:
        """{kind: scores of all pixels together}, with intervals."""
        slices = self.slices
        with_lesion, seen = [s for s in slices if s.has_lesion], [s for s in slices if s.crop]
        return {
            "whole": pooled(_counts(s.whole for s in slices), _patients(slices)),
            "lesion_slices": pooled(_counts(s.whole for s in with_lesion), _patients(with_lesion)),
            "crops": pooled(_counts(s.crop for s in seen if s.crop), _patients(seen)),
        }

    def mean_scores(self) -> dict[str, Scores]:
        """{unit: mean of the units' scores}, with intervals."""
        slices, volumes = self.slices, self.volumes
        with_lesion = [s for s in slices if s.has_lesion]
        patients = {patient: Confusion() for patient in _patients(slices)}
        for each in slices:
            patients[each.patient] += each.whole
        return {
            "slices": mean(_counts(s.whole for s in slices), _patients(slices)),
            "lesion_slices": mean(_counts(s.whole for s in with_lesion), _patients(with_lesion)),
            "volumes": mean(_counts(case.pooled["whole"] for case in volumes), [case.patient for case in volumes]),
            "patients": mean(_counts(patients.values()), list(patients)),
        }

    def class_scores(self, name: str) -> dict[str, Scores]:
        """{"pooled", "slices", "volumes": scores of one class}, each over all counted slices."""
        slices = [s for s in self.slices if name in s.classes]
        volumes = [case for case in self.volumes if any(name in s.classes for s in case.slices)]
        counts = _counts(s.classes[name] for s in slices)
        return {
            "pooled": pooled(counts, _patients(slices)),
            "slices": mean(counts, _patients(slices)),
            "volumes": mean(_counts(case.pooled_class(name) for case in volumes), [case.patient for case in volumes]),
        }

    def surface(self) -> dict[str, Estimate]:
        """Means over the volumes that have them."""
        volumes = self.volumes
        patients = [case.patient for case in volumes]
        return {
            "hd95_mm": mean_of([case.volume.hd95_mm for case in volumes], patients),
            "surface_dice": mean_of([case.volume.surface_dice for case in volumes], patients),
        }

    def pairs(self, quantity: str) -> dict[str, PairedMeasurement]:
        """{case: pair} of `volume_ml` or `burden_percent`, where known."""
        return {case.case: pair for case in self.cases if (pair := getattr(case.volume, quantity)) is not None}

    def agreement(self, quantity: str) -> Agreement:
        """Of `volume_ml` or `burden_percent`."""
        pairs = self.pairs(quantity)
        return agreement(list(pairs.values()), [case.patient for case in self.cases if case.case in pairs])

    def false_positive_ml(self) -> Estimate:
        """Millilitres marked for each lesion-free slice."""
        known = [case for case in self.cases if case.volume.false_positive_ml is not None]
        marked = [case.volume.false_positive_ml or 0.0 for case in known]
        return estimate(marked, [case.lesion_free for case in known], [case.patient for case in known])


def _pooled(slices: Sequence[SliceScore]) -> dict[str, Confusion]:
    return {
        "whole": sum((s.whole for s in slices), Confusion()),
        "lesion_slices": sum((s.whole for s in slices if s.has_lesion), Confusion()),
        "crops": sum((s.crop for s in slices if s.crop), Confusion()),
    }


def _counts(confusions: Iterable[Confusion]) -> NDArray[np.int64]:
    """(n, 4): TP, FP, FN, TN."""
    return np.array([confusion.counts for confusion in confusions], dtype=np.int64).reshape(-1, 4)


def _patients(slices: Sequence[SliceScore]) -> list[str]:
    return [each.patient for each in slices]
