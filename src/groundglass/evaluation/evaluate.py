"""A model's scores on cases with a reference, through the same code as `segment`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from groundglass.data.catalogue import Case
from groundglass.data.slices import CLASS_LABELS, UNSTATED, read_pair
from groundglass.errors import DatasetError, InputError, ModelError
from groundglass.evaluation.calibration import CalibrationHistogram
from groundglass.evaluation.examples import ExampleCollector
from groundglass.evaluation.lesions import match
from groundglass.evaluation.recording import RecordingSegmenter
from groundglass.evaluation.results import CaseScore, Evaluation, SliceScore
from groundglass.evaluation.volume import volume_scores
from groundglass.inference.pipeline import segment_scan
from groundglass.inference.segmenter import Segmenter
from groundglass.metrics import Confusion
from groundglass.report.findings import ModelRef
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import ImageStack


@dataclass(frozen=True)
class Target:
    """What is scored.

    Attributes:
        case: Image and reference.
        patient: The group that the bootstrap draws; in a stack of strangers each slice is a group of its own.
        slices: Which count, from 0 along the axial view (feet to head; pictures: in their order); None: all.
        groups: {slice: patient} of a stack whose slices are known to be of one patient here and there.
    """

    case: Case
    patient: str
    slices: frozenset[int] | None = None
    groups: Mapping[int, str] = field(default_factory=dict)

    @property
    def patients(self) -> frozenset[str]:
        """Of the slices that count; of a case of one patient also as the dataset states it."""
        if not self.groups:
            return frozenset({self.patient, self.case.patient})
        chosen = self.groups.keys() if self.slices is None else self.slices & self.groups.keys()
        return frozenset(self.groups[number] for number in chosen)


def evaluate(
    targets: Sequence[Target],
    segmenter: Segmenter,
    progress: Callable[[int, int], None] = lambda *_: None,
    warnings: tuple[str, ...] = (),
) -> Evaluation:
    """Segment every target and compare it with its reference.

    Args:
        targets: What is scored.
        segmenter: A loaded model.
        progress: Called with the cases done and their number.
        warnings: What a reader of the scores has to know.

    Raises:
        InputError: A case is refused; the message starts with its name.
        ModelError: The model maps a class that no reference states.
    """
    card = segmenter.card
    for name in card.classes[1:]:
        if name not in CLASS_LABELS:
            raise ModelError(
                f"{card.name} maps {name!r}, which no reference states: expected {', '.join(CLASS_LABELS)}"
            )
    histogram, shelf, cases = CalibrationHistogram(), ExampleCollector(), []
    for target in targets:
        try:
            score, lesions = _score(target, segmenter, histogram)
        except InputError as error:
            raise type(error)(f"{target.case.name}: {error}") from error
        cases.append(score)
        shelf.put(target.case, score.slices, lesions)
        progress(len(cases), len(targets))
    model = ModelRef(name=card.name, sha256=card.sha256)
    return Evaluation(model, card.threshold, card.classes[1:], tuple(cases), histogram, shelf.examples(), warnings)


def _score(
    target: Target, segmenter: Segmenter, histogram: CalibrationHistogram
) -> tuple[CaseScore, NDArray[np.bool_]]:
    """The scores of a case, and what was found in it: (z, y, x) in the axial view."""
    scan, labels = read_pair(target.case)
    view = AxialView(scan.geometry)
    labels = view.turn(labels)
    truth, counted = labels > 0, _counted(target, len(labels))
    recorder = RecordingSegmenter(segmenter, truth, counted, histogram)
    segmented = segment_scan(scan, recorder)
    lesions = np.asarray(segmented.lesions)
    unrelated_slices = isinstance(scan, ImageStack)
    alone = f"{target.patient}-{{}}" if target.case.unrelated_slices else target.patient
    patients = [target.groups.get(z, alone.format(z)) for z in range(len(labels))]
    sizes = [segmented.slice_size(z) for z in range(len(labels))]
    slices = tuple(
        SliceScore(
            patient=patients[z],
            number=z,
            number_in_file=int(view.slice_numbers[z]),
            box=segmented.lung_field.boxes[z],
            whole=Confusion.count(*(mask[z, : sizes[z][0], : sizes[z][1]] for mask in (lesions, truth))),
            crop=recorder.crops.get(z),
            classes=classes,
        )
        for z, classes in _class_counts(labels, lesions, recorder, counted)
    )
    volume = volume_scores(segmented, recorder.lung_field, truth, counted, unrelated_slices)
    voxel_ml = view.geometry.voxel_ml if volume.volume_ml else None
    inside = counted[:, None, None]
    regions = match(lesions & inside, truth & inside, voxel_ml, target.case.name, patients)
    return CaseScore(target.case.name, target.patient, unrelated_slices, slices, regions, volume), lesions


def _counted(target: Target, count: int) -> NDArray[np.bool_]:
    """(z,) which slices of a case count."""
    counted = np.full(count, target.slices is None)
    wanted = sorted(target.slices or ())
    if wanted and not 0 <= wanted[0] <= wanted[-1] < count:
        raise DatasetError(f"slices {wanted[0]} to {wanted[-1]} are to be scored, the file has 0 to {count - 1}")
    counted[wanted] = True
    return counted


def _class_counts(
    labels: NDArray[np.uint8], lesions: NDArray[np.bool_], watch: RecordingSegmenter, counted: NDArray[np.bool_]
) -> Iterator[tuple[int, dict[str, Confusion]]]:
    """Each counted slice with {class: counts}; empty where the whole reference states no class of its lesions."""
    stated = not (labels == UNSTATED).any() or np.isin(labels, list(CLASS_LABELS.values())).any()
    for z in np.flatnonzero(counted).tolist():
        classes = {}
        if watch.strongest is not None and stated:
            known = labels[z] != UNSTATED
            strongest, reference = (watch.strongest[z] * lesions[z])[known], labels[z][known]
            for number, name in enumerate(watch.card.classes[1:], start=1):
                classes[name] = Confusion.count(strongest == number, reference == CLASS_LABELS[name])
        yield z, classes
