from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.case_files import read_case
from groundglass.data.labels import UNSTATED
from groundglass.errors import DatasetError, ModelError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.examples import rank_slices
from groundglass.evaluation.results import CaseScore, Evaluation
from groundglass.evaluation.surface import BOTH_EMPTY, EMPTY_MASK, compare_surfaces
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.evaluation.volume import ALL_LESION, PARTLY, QUANTITIES, UNRELATED
from groundglass.inference.pipeline import segment_scan
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.metrics import Confusion
from groundglass.report.analysis import segment
from groundglass.report.measurement import NO_SPACING
from groundglass.scan.geometry import AxialView
from groundglass.scan.packed_mask import PackedMask
from helpers.fake_engine import FakeEngine

Targets = dict[str, EvaluationTarget]


def case_of(evaluation: Evaluation, name: str) -> CaseScore:
    (case,) = [case for case in evaluation.cases if case.case == name]
    return case


@pytest.mark.thorough
def test_counts_and_volumes_are_those_of_segment(
    everything: Evaluation, targets: Targets, class_bands: Segmenter
) -> None:
    case = targets["volumes/8"].case
    analysis = segment(read_scan(case.image), class_bands)
    found, truth = analysis.lesions.voxels, read_scan(case.mask).values > 0
    score = case_of(everything, "volumes/8")
    assert score.pooled_counts["whole"] == Confusion.count(found, truth)
    with_lesion = truth.any((1, 2))
    assert score.pooled_counts["lesion_slices"] == Confusion.count(found[with_lesion], truth[with_lesion])
    assert 0.2 < (score.pooled_counts["whole"].dice or 0) < 0.9
    assert 0.2 < (score.pooled_counts["crops"].dice or 0) < 0.9
    assert score.volume.volume_ml is not None
    assert score.volume.volume_ml.predicted == pytest.approx(analysis.findings.lesion_volume_ml, abs=1e-3)
    assert score.volume.burden_percent is not None
    share = analysis.findings.lesion_share_of_lung_percent
    assert score.volume.burden_percent.predicted == pytest.approx(share, abs=0.01)


def test_the_reference_is_measured_like_a_prediction(
    everything: Evaluation, targets: Targets, class_bands: Segmenter
) -> None:
    target = targets["volumes/8"]
    scan, labels = read_case(target.case)

    class Oracle(Segmenter):
        def class_map(self, *_: object) -> PackedMask:
            return PackedMask.from_slices((AxialView(scan.geometry).to_axial(labels) > 0).astype(np.uint8))

    segmented = segment_scan(scan, Oracle(class_bands.card, class_bands.engine))
    volume = case_of(everything, "volumes/8").volume
    assert volume.volume_ml is not None
    assert volume.volume_ml.reference == pytest.approx((labels > 0).sum() * scan.geometry.voxel_ml)
    assert volume.burden_percent is not None
    lesions, lung = np.asarray(segmented.lesions), np.asarray(segmented.lung_field.mask)
    assert volume.burden_percent.reference == pytest.approx(100 * (lesions & lung).sum() / lung.sum())


def test_the_network_runs_once_over_every_slice(targets: Targets, grey_band: Segmenter) -> None:
    batch_sizes = []

    class Recorder(FakeEngine):
        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            batch_sizes.append(len(images))
            return grey_band.engine.run(images)

    target = targets["volumes/1"]
    evaluation = evaluate([target], Segmenter(grey_band.card, Recorder()))
    assert sum(batch_sizes) == sum(each.box is not None for each in evaluation.slices)


def test_surfaces_and_false_positives_of_a_volume(
    everything: Evaluation, targets: Targets, class_bands: Segmenter
) -> None:
    score, target = case_of(everything, "volumes/8"), targets["volumes/8"]
    scan, labels = read_case(target.case)
    segmented = segment_scan(scan, class_bands)
    lesions, truth = np.asarray(segmented.lesions), segmented.view.to_axial(labels) > 0
    expected = compare_surfaces(lesions, truth, segmented.view.geometry.spacing)
    assert (score.volume.hd95_mm, score.volume.surface_dice) == (expected.hd95_mm, expected.surface_dice)
    lesion_free = ~truth.any((1, 2))
    assert score.volume.false_positive_ml == pytest.approx(lesions[lesion_free].sum() * scan.geometry.voxel_ml)
    assert score.lesion_free_slices == lesion_free.sum() > 0
    assert score.false_positive_ml_per_slice == pytest.approx((score.volume.false_positive_ml or 0) / lesion_free.sum())
    known = [case for case in everything.cases if case.volume.false_positive_ml is not None]
    total = sum(case.volume.false_positive_ml or 0 for case in known) / sum(case.lesion_free_slices for case in known)
    assert everything.false_positive_ml_per_slice().value == pytest.approx(total)


def test_only_selected_slices_count(everything: Evaluation, targets: Targets, class_bands: Segmenter) -> None:
    selected = frozenset({9, 12, 20})
    evaluation = evaluate([replace(targets["volumes/8"], slices=selected)], class_bands)
    (score,), whole = evaluation.cases, case_of(everything, "volumes/8")
    assert {each.z for each in score.slices} == selected
    assert [each.whole for each in score.slices] == [each.whole for each in whole.slices if each.z in selected]
    assert {region.slice for region in score.regions} <= selected
    assert {region.unit for region in score.regions} == {"px"}
    boxes = [each.box for each in score.slices if each.box]
    assert evaluation.histogram.pixels == sum((b.bottom - b.top) * (b.right - b.left) for b in boxes)
    assert score.volume.unknown == dict.fromkeys(QUANTITIES, PARTLY) | {"false_positive_ml": ALL_LESION}
    with pytest.raises(DatasetError, match=r"volumes/8: slices 3 to 99 are to be scored, the file has 0 to 31"):
        evaluate([replace(targets["volumes/8"], slices=frozenset({3, 99}))], class_bands)


def test_each_class_is_counted_where_the_reference_states_it(
    everything: Evaluation, targets: Targets, class_bands: Segmenter
) -> None:
    scan, labels = read_case(targets["volumes/4"].case)
    segmented = segment_scan(scan, class_bands)
    labels, lesions = segmented.view.to_axial(labels), np.asarray(segmented.lesions)
    predictions = list(class_bands.slice_predictions(segmented.hu, segmented.lung_field))
    score = case_of(everything, "volumes/4")
    for number, name in enumerate(("ground-glass", "consolidation"), start=1):
        predicted = np.zeros(labels.shape, dtype=np.bool_)
        for prediction in predictions:
            box = prediction.box
            most_probable = prediction.probability[1:].argmax(0)
            predicted[prediction.z, box.top : box.bottom, box.left : box.right] = most_probable == number - 1
        predicted &= lesions
        known = labels != UNSTATED
        assert score.class_counts(name) == Confusion.count(predicted[known], labels[known] == number)
        assert score.class_counts(name).true_positive > 0
        assert everything.class_scores(name)["pooled"]["dice"].value is not None
    assert (labels == UNSTATED).any()
    assert score.pooled_counts["whole"] == Confusion.count(lesions, labels > 0)


def test_cases_without_stated_classes_are_left_out_of_the_class_scores(everything: Evaluation) -> None:
    for name in ("volumes/8", "stack/tr"):
        assert not any(each.classes for each in case_of(everything, name).slices)
    over_volumes = everything.class_scores("ground-glass")["volumes"]["specificity"]
    assert (over_volumes.rows, over_volumes.undefined) == (3, 0)


def test_slices_are_indexed_from_the_feet_and_as_in_the_file(everything: Evaluation) -> None:
    head_first, feet_first = (case_of(everything, name).slices for name in ("volumes/1", "volumes/4"))
    assert [each.z for each in head_first] == [each.z for each in feet_first] == list(range(32))
    assert [each.index_in_file for each in head_first] == list(range(31, -1, -1))
    assert [each.index_in_file for each in feet_first] == list(range(32))
    assert [each.whole for each in head_first] == [each.whole for each in feet_first]


def test_a_class_that_no_reference_states_is_refused(targets: Targets, class_bands: Segmenter) -> None:
    card = class_bands.card.model_copy(update={"classes": ("lesion", "crazy-paving")})
    with pytest.raises(ModelError, match="maps 'crazy-paving', which no reference states"):
        evaluate(list(targets.values()), Segmenter(card, class_bands.engine))


def test_unrelated_slices_are_patients_of_their_own(everything: Evaluation) -> None:
    stack, picture = case_of(everything, "stack/tr"), case_of(everything, "slices/000")
    assert [each.patient for each in stack.slices] == [f"stack/tr-{z}" for z in range(4)]
    assert [each.patient for each in picture.slices] == ["slices/000"]
    assert stack.volume.unknown == dict.fromkeys(QUANTITIES, UNRELATED)
    assert picture.volume.unknown == dict.fromkeys(QUANTITIES, NO_SPACING)
    assert {region.unit for region in (*stack.regions, *picture.regions)} == {"px"}
    assert [case.case for case in everything.volumes] == ["volumes/1", "volumes/4", "volumes/5", "volumes/8"]


def test_a_case_without_lesion_has_false_positives_and_no_sensitivity(everything: Evaluation) -> None:
    score = case_of(everything, "volumes/5")
    assert score.pooled_counts["lesion_slices"] == score.pooled_counts["crops"] == Confusion()
    assert score.pooled_counts["whole"].sensitivity is None
    assert score.pooled_counts["whole"].dice == 0  # the engine predicts some lesion
    assert score.lesion_free_slices == len(score.slices) == 32
    assert (score.volume.hd95_mm, score.volume.surface_dice) == (None, 0)
    assert score.volume.unknown == {"hd95_mm": EMPTY_MASK}
    assert score.volume.burden_percent is not None
    assert score.volume.burden_percent.reference == 0


def test_an_empty_prediction_on_an_empty_reference_has_no_dice(targets: Targets, grey_band: Segmenter) -> None:
    class Never(FakeEngine):
        def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full_like(images, -9)

    evaluation = evaluate([targets["volumes/5"]], Segmenter(grey_band.card, Never()))
    (score,) = evaluation.cases
    assert score.pooled_counts["whole"].scores == Confusion(true_negative=32 * 144 * 190).scores
    assert score.volume.unknown == {"hd95_mm": EMPTY_MASK, "surface_dice": BOTH_EMPTY}
    assert evaluation.mean_scores()["slices"]["dice"].undefined == 32
    assert evaluation.examples == ()


def test_pooled_scores_add_counts_and_means_average_scores(everything: Evaluation) -> None:
    slices = everything.slices
    assert len(slices) == 4 * 32 + 4 + 1
    assert everything.pooled_counts["whole"] == sum((each.whole for each in slices), Confusion())
    pooled, means = everything.pooled_scores(), everything.mean_scores()
    for kind, confusion in everything.pooled_counts.items():
        assert {name: each.value for name, each in pooled[kind].items()} == pytest.approx(confusion.scores)
    dice = [each.whole.dice for each in slices]
    assert means["slices"]["dice"].value == pytest.approx(np.mean([value for value in dice if value is not None]))
    assert means["slices"]["dice"].undefined == dice.count(None)
    volumes = [case.pooled_counts["whole"].dice or 0 for case in everything.volumes]
    assert means["volumes"]["dice"].value == pytest.approx(np.mean(volumes))
    assert means["volumes"]["dice"].interval is not None
    by_patient = {patient: Confusion() for patient in (each.patient for each in slices)}
    for each in slices:
        by_patient[each.patient] += each.whole
    known = [confusion.dice for confusion in by_patient.values() if confusion.dice is not None]
    assert means["patients"]["dice"].value == pytest.approx(np.mean(known))


def test_slices_of_a_stack_known_to_share_a_patient_are_grouped(
    targets: dict[str, EvaluationTarget], grey_band: Segmenter
) -> None:
    known = replace(targets["stack/tr"], groups={0: "a", 2: "a"})
    (case,) = evaluate([known], grey_band).cases
    assert [each.patient for each in case.slices] == ["a", "stack/tr-1", "a", "stack/tr-3"]


@pytest.mark.thorough
def test_two_volumes_of_one_patient_are_one_patient(targets: dict[str, EvaluationTarget], grey_band: Segmenter) -> None:
    both = [replace(targets[name], patient="a") for name in ("volumes/1", "volumes/4")]
    means = evaluate(both, grey_band).mean_scores()
    assert (means["volumes"]["dice"].rows, means["patients"]["dice"].rows) == (2, 1)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {}),
        (1, {0: "best"}),
        (2, {0: "best", 1: "worst"}),
        (4, {0: "best", 1: "median", 3: "worst"}),
        (
            9,
            {0: "best", 1: "best", 2: "best", 3: "median", 4: "median", 5: "median"}
            | dict.fromkeys((6, 7, 8), "worst"),
        ),
    ],
)
def test_best_median_and_worst_slices_are_ranked(count: int, expected: dict[int, str]) -> None:
    assert rank_slices(count) == expected


def test_examples_show_the_scored_masks(everything: Evaluation) -> None:
    dice = sorted((each.whole.dice or 0 for each in everything.slices if each.has_lesion), reverse=True)
    shown = everything.examples
    assert [example.rank for example in shown] == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    assert [example.dice for example in shown] == dice[:3] + dice[(len(dice) - 3) // 2 :][:3] + dice[-3:]
    dice_of = {
        f"{case.case}, slice {each.index_in_file}" if len(case.slices) > 1 else case.case: each.whole.dice
        for case in everything.cases
        for each in case.slices
    }
    assert any(example.title.startswith("volumes/1,") for example in shown)
    for example in shown:
        assert dice_of[example.title] == example.dice
        assert Confusion.count(example.predicted, example.reference).dice == pytest.approx(example.dice, abs=0.02)
        assert example.grey.std() > 20


def test_a_refused_case_is_named(targets: Targets, grey_band: Segmenter) -> None:
    case = replace(targets["volumes/1"].case, mask=targets["slices/000"].case.mask)
    with pytest.raises(DatasetError, match=r"^volumes/1: .* expected the same grid"):
        evaluate([EvaluationTarget(case, "volumes/1")], grey_band)
