"""Results of an evaluation: slices, cases, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundglass.evaluation.agreement import Agreement, PairedMeasurement, measure_agreement
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
        patient: Patient group of the slice; in a stack of unrelated slices each slice is its own group.
        z: Index of the slice, from 0 along the axial view (feet to head), or in the order of the pictures.
        index_in_file: Index of the slice along the file's own axis.
        box: The part that the network looked at; None if no lung was found in the slice.
        whole: Counts of every pixel of the slice.
        crop: Counts on the network's own grid; None for a slice without lesion or without lung.
        classes: {class: counts}, without the pixels whose class the reference does not state; empty if the case states
            no classes, or the model has no class maps.
    """

    patient: str
    z: int
    index_in_file: int
    box: Box | None
    whole: Confusion
    crop: Confusion | None
    classes: dict[str, Confusion]

    @property
    def has_lesion(self) -> bool:
        """True if the reference shows lesion in the slice."""
        return self.whole.true_positive + self.whole.false_negative > 0


@dataclass(frozen=True, eq=False)
class CaseScore:
    """Results of one case.

    Attributes:
        case: Name of the case.
        patient: Patient group that the bootstrap resamples.
        unrelated_slices: True if the slices stand alone: pictures, or a stack of different patients.
        slices: The slices that count.
        regions: The lesions of the reference and the predicted regions.
        volume: The scores that need a whole volume.
    """

    case: str
    patient: str
    unrelated_slices: bool
    slices: tuple[SliceScore, ...]
    regions: tuple[Region, ...]
    volume: VolumeScores

    @property
    def lesion_free_slices(self) -> int:
        """Number of slices that count and whose reference shows no lesion."""
        return sum(not score.has_lesion for score in self.slices)

    @property
    def false_positive_ml_per_slice(self) -> float | None:
        """`volume.false_positive_ml` divided by the lesion-free slices; None where that is None."""
        false_positive_ml = self.volume.false_positive_ml
        return None if false_positive_ml is None else false_positive_ml / self.lesion_free_slices

    @property
    def pooled_counts(self) -> dict[str, Confusion]:
        """Counts added over the slices: of `whole` slices, of `lesion_slices` only, and of the `crops` of these."""
        return _pooled_counts(self.slices)

    def class_counts(self, name: str) -> Confusion:
        """Add the counts of one class over the slices."""
        return sum((score.classes[name] for score in self.slices if name in score.classes), Confusion())


@dataclass(frozen=True, eq=False)
class Example:
    """A slice for a person to look at, cut to the part that the network looked at.

    Attributes:
        rank: best, median or worst by Dice among the slices with lesion.
        title: Case and slice.
        dice: Dice of the whole slice.
        grey: (height, width) uint8, the CT in the lung window.
        reference: (height, width) bool, lesions of the reference.
        predicted: (height, width) bool, predicted lesions.
        aspect: Height of a pixel divided by its width.
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
    """Results of all cases.

    Attributes:
        model: Name and sha256 of the model.
        threshold: Probability from which a pixel is lesion.
        classes: Names of the model's class maps, without the lesion map.
        cases: Results of each case, in the order of the targets.
        histogram: Probabilities by truth over the pixels that the network looked at.
        examples: Slices to look at.
        warnings: Warnings that belong with the scores, such as test cases that trained the model.
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
        """Scores of the slices of all cases."""
        return tuple(score for case in self.cases for score in case.slices)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Lesions and predicted regions of all cases."""
        return tuple(region for case in self.cases for region in case.regions)

    @property
    def volumes(self) -> tuple[CaseScore, ...]:
        """The cases that are volumes: neither pictures nor stacks of unrelated slices."""
        return tuple(case for case in self.cases if not case.unrelated_slices)

    @property
    def pooled_counts(self) -> dict[str, Confusion]:
        """Counts added over all cases, as in `CaseScore`."""
        return _pooled_counts(self.slices)

    def pooled_scores(self) -> dict[str, Scores]:
        """Score all pixels together: {"whole", "lesion_slices", "crops": scores}."""
        slices = self.slices
        with_lesion, with_crop = [s for s in slices if s.has_lesion], [s for s in slices if s.crop]
        return {
            "whole": pooled(_counts(s.whole for s in slices), _patients(slices)),
            "lesion_slices": pooled(_counts(s.whole for s in with_lesion), _patients(with_lesion)),
            "crops": pooled(_counts(s.crop for s in with_crop if s.crop), _patients(with_crop)),
        }

    def mean_scores(self) -> dict[str, Scores]:
        """Average the scores of units: {"slices", "lesion_slices", "volumes", "patients": scores}."""
        slices, volumes = self.slices, self.volumes
        with_lesion = [s for s in slices if s.has_lesion]
        by_patient = {patient: Confusion() for patient in _patients(slices)}
        for score in slices:
            by_patient[score.patient] += score.whole
        of_volumes = _counts(case.pooled_counts["whole"] for case in volumes)
        return {
            "slices": mean(_counts(s.whole for s in slices), _patients(slices)),
            "lesion_slices": mean(_counts(s.whole for s in with_lesion), _patients(with_lesion)),
            "volumes": mean(of_volumes, [case.patient for case in volumes]),
            "patients": mean(_counts(by_patient.values()), list(by_patient)),
        }

    def class_scores(self, name: str) -> dict[str, Scores]:
        """Score one class over the slices that state it: {"pooled", "slices", "volumes": scores}."""
        slices = [s for s in self.slices if name in s.classes]
        volumes = [case for case in self.volumes if any(name in s.classes for s in case.slices)]
        of_slices = _counts(s.classes[name] for s in slices)
        of_volumes = _counts(case.class_counts(name) for case in volumes)
        return {
            "pooled": pooled(of_slices, _patients(slices)),
            "slices": mean(of_slices, _patients(slices)),
            "volumes": mean(of_volumes, [case.patient for case in volumes]),
        }

    def surface_scores(self) -> dict[str, Estimate]:
        """Average `hd95_mm` and `surface_dice` over the volumes for which they are known."""
        volumes = self.volumes
        patients = [case.patient for case in volumes]
        return {
            "hd95_mm": mean_of([case.volume.hd95_mm for case in volumes], patients),
            "surface_dice": mean_of([case.volume.surface_dice for case in volumes], patients),
        }

    def paired_measurements(self, quantity: str) -> dict[str, PairedMeasurement]:
        """Select the cases for which `volume_ml` or `burden_percent` is known: {case: pair}."""
        return {case.case: pair for case in self.cases if (pair := getattr(case.volume, quantity)) is not None}

    def agreement(self, quantity: str) -> Agreement:
        """Measure how well prediction and reference agree in `volume_ml` or `burden_percent`."""
        pairs = self.paired_measurements(quantity)
        return measure_agreement(list(pairs.values()), [case.patient for case in self.cases if case.case in pairs])

    def false_positive_ml_per_slice(self) -> Estimate:
        """Divide the false positive millilitres of all volumes by their lesion-free slices."""
        known = [case for case in self.cases if case.volume.false_positive_ml is not None]
        false_positive_ml = [case.volume.false_positive_ml or 0.0 for case in known]
        lesion_free_slices = [case.lesion_free_slices for case in known]
        return estimate(false_positive_ml, lesion_free_slices, [case.patient for case in known])


def _pooled_counts(slices: Sequence[SliceScore]) -> dict[str, Confusion]:
    return {
        "whole": sum((s.whole for s in slices), Confusion()),
        "lesion_slices": sum((s.whole for s in slices if s.has_lesion), Confusion()),
        "crops": sum((s.crop for s in slices if s.crop), Confusion()),
    }


def _counts(confusions: Iterable[Confusion]) -> NDArray[np.int64]:
    """(n, 4): TP, FP, FN, TN."""
    return np.array([confusion.counts for confusion in confusions], dtype=np.int64).reshape(-1, 4)


def _patients(slices: Sequence[SliceScore]) -> list[str]:
    return [score.patient for score in slices]
