"""Scores of a model on cases with a reference, through the same code as `segment`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.data.case_files import read_case
from groundglass.data.labels import CLASS_LABELS, UNSTATED
from groundglass.errors import DatasetError, InputError, ModelError
from groundglass.evaluation.calibration import CalibrationHistogram
from groundglass.evaluation.examples import ExampleCollector
from groundglass.evaluation.lesions import match_regions
from groundglass.evaluation.recording import PredictionRecorder
from groundglass.evaluation.results import CaseScore, Evaluation, SliceScore
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.evaluation.volume import measure_volume
from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan, segment_lesions, segment_lungs
from groundglass.inference.segmenter import Segmenter
from groundglass.metrics import Confusion
from groundglass.report.findings import ModelRef
from groundglass.scan.scan import ImageStack


def evaluate(
    targets: Sequence[EvaluationTarget],
    segmenter: Segmenter,
    progress: Callable[[int, int], None] = lambda *_: None,
    warnings: tuple[str, ...] = (),
) -> Evaluation:
    """Segment every target and compare it with its reference.

    Args:
        targets: The cases to score.
        segmenter: A loaded model.
        progress: Called with the number of cases done and the number of all.
        warnings: Warnings that belong with the scores, such as those of `training_warnings`.

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
    histogram, examples, scores = CalibrationHistogram(), ExampleCollector(), []
    for target in targets:
        try:
            score, segmented = _score_target(target, segmenter, histogram)
        except InputError as error:
            raise type(error)(f"{target.case.name}: {error}") from error
        scores.append(score)
        examples.add(target.case, score.slices, segmented)
        progress(len(scores), len(targets))
    model = ModelRef(name=card.name, sha256=card.sha256)
    return Evaluation(
        model, card.threshold, card.classes[1:], tuple(scores), histogram, examples.read_examples(), warnings
    )


def _score_target(
    target: EvaluationTarget, segmenter: Segmenter, histogram: CalibrationHistogram
) -> tuple[CaseScore, SegmentedScan]:
    """Segment a case, score it, and add its probabilities to the histogram."""
    scan, labels = read_case(target.case)
    lungs_only = segment_lungs(scan, segmenter.card)
    labels = lungs_only.view.to_axial(labels)
    truth, counted = labels > 0, _counted_slices(target, len(labels))
    recorder = PredictionRecorder(segmenter.card, truth, counted, histogram)
    segmented = segment_lesions(lungs_only, segmenter, on_prediction=recorder.record)

    slices = _score_slices(target, segmented, labels, counted, recorder, segmenter.card)
    unrelated_slices = isinstance(scan, ImageStack)
    volume = measure_volume(segmented, lungs_only.lung_field, truth, counted, unrelated_slices)
    voxel_ml = segmented.view.geometry.voxel_ml if volume.volume_ml else None
    in_counted = counted[:, None, None]
    patients = [target.patient_of(z) for z in range(len(labels))]
    lesions = np.asarray(segmented.lesions)
    regions = match_regions(lesions & in_counted, truth & in_counted, voxel_ml, target.case.name, patients)
    return CaseScore(target.case.name, target.patient, unrelated_slices, slices, regions, volume), segmented


def _counted_slices(target: EvaluationTarget, count: int) -> NDArray[np.bool_]:
    """(z,) True for the slices of a case that count."""
    if target.slices is None:
        return np.ones(count, dtype=np.bool_)
    counted, indices = np.zeros(count, dtype=np.bool_), sorted(target.slices)
    if indices and not 0 <= indices[0] <= indices[-1] < count:
        raise DatasetError(f"slices {indices[0]} to {indices[-1]} are to be scored, the file has 0 to {count - 1}")
    counted[indices] = True
    return counted


def _score_slices(
    target: EvaluationTarget,
    segmented: SegmentedScan,
    labels: NDArray[np.uint8],
    counted: NDArray[np.bool_],
    recorder: PredictionRecorder,
    card: ModelCard,
) -> tuple[SliceScore, ...]:
    """Score each slice that counts against the (z, y, x) labels of the reference."""
    states_classes = not (labels == UNSTATED).any() or np.isin(labels, list(CLASS_LABELS.values())).any()
    scores = []
    for z in np.flatnonzero(counted).tolist():
        height, width = segmented.slice_size(z)
        predicted, reference = segmented.lesions[z], labels[z]
        classes = {}
        if recorder.class_map is not None and states_classes:
            classes = _class_counts(recorder.class_map[z] * predicted, reference, card.classes[1:])
        scores.append(
            SliceScore(
                patient=target.patient_of(z),
                z=z,
                index_in_file=int(segmented.view.slice_numbers[z]),
                box=segmented.lung_field.boxes[z],
                whole=Confusion.count(predicted[:height, :width], reference[:height, :width] > 0),
                crop=recorder.crops.get(z),
                classes=classes,
            )
        )
    return tuple(scores)


def _class_counts(
    class_map: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[str]
) -> dict[str, Confusion]:
    """{class: counts} of a slice (y, x), over the pixels whose class the reference states."""
    stated = labels != UNSTATED
    return {
        name: Confusion.count(class_map[stated] == number, labels[stated] == CLASS_LABELS[name])
        for number, name in enumerate(classes, start=1)
    }
