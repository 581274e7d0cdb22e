import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.evaluation.lesions import ALL_SIZES, match_regions, score_by_size, size_classes

Mask = NDArray[np.bool_]


def masks() -> tuple[Mask, Mask]:
    """Reference: A 10 voxels in two slices, B 20, C 1. Predicted: 1 of A, 1 of B, and 30 elsewhere."""
    truth, predicted = np.zeros((2, 4, 12, 12), dtype=np.bool_)
    truth[0, 0, 0:5] = truth[1, 1, 5:10] = True  # A: diagonal across slices
    truth[3, 4:8, 0:5] = True  # B
    truth[3, 11, 11] = True  # C
    predicted[0, 0, 0] = True
    predicted[3, 4, 0] = True
    predicted[2, 6:11, 6:12] = True
    return predicted, truth


def test_regions_of_a_volume_are_connected_across_slices() -> None:
    predicted, truth = masks()
    regions = match_regions(predicted, truth, 0.05, "v", ["p"] * 4)
    lesions = {round(region.size, 3): region for region in regions if region.origin == "reference"}
    assert sorted(lesions) == [0.05, 0.5, 1.0]
    assert lesions[0.5].overlap == 0.1
    assert lesions[0.5].hit  # exactly 10 % is enough
    assert lesions[0.5].slice == 0
    assert not lesions[1.0].hit
    assert not lesions[0.05].hit
    predicted_regions = [(round(region.size, 3), region.hit) for region in regions if region.origin == "prediction"]
    assert predicted_regions == [(0.05, True), (1.5, False), (0.05, True)]
    assert {region.unit for region in regions} == {"ml"}


def test_regions_of_unrelated_slices_are_connected_within_a_slice() -> None:
    predicted, truth = masks()
    regions = match_regions(predicted, truth, None, "s", [f"p-{z}" for z in range(4)])
    lesions = [(region.patient, region.size, region.hit) for region in regions if region.origin == "reference"]
    assert lesions == [("p-0", 5, True), ("p-1", 5, False), ("p-3", 20, False), ("p-3", 1, False)]


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    truth = np.eye(4, dtype=np.bool_)[None]
    assert [region.size for region in match_regions(truth, truth, None, "s", ["p"])] == [4, 4]


def test_size_classes_are_named_by_their_edges() -> None:
    assert size_classes("ml") == ("<0.1 ml", "0.1-1 ml", "1-10 ml", ">=10 ml")
    assert size_classes("px") == ("<100 px", "100-1000 px", ">=1000 px")
    predicted, truth = masks()
    regions = match_regions(predicted, truth, 0.05, "v", ["p"] * 4)
    assert [region.size_class for region in regions if region.origin == "reference"] == [
        "0.1-1 ml",
        "1-10 ml",
        "<0.1 ml",
    ]


def test_each_size_class_has_recall_and_precision() -> None:
    predicted, truth = masks()
    regions = match_regions(predicted, truth, 0.05, "v", ["p"] * 4)
    rows = {row.size_class: row for row in score_by_size(regions, "ml")}
    assert list(rows) == [*size_classes("ml"), ALL_SIZES]
    assert [(row.found, row.recall.rows) for row in rows.values()] == [(0, 1), (1, 1), (0, 1), (0, 0), (1, 3)]
    assert [(row.right, row.precision.rows) for row in rows.values()] == [(2, 2), (0, 0), (0, 1), (0, 0), (2, 3)]
    assert rows[ALL_SIZES].recall.value == pytest.approx(1 / 3)
    assert rows[">=10 ml"].recall.value is None
    assert score_by_size(regions, "px") == ()


def test_empty_masks_have_no_regions() -> None:
    nothing = np.zeros((2, 3, 3), dtype=np.bool_)
    assert match_regions(nothing, nothing, 0.1, "v", ["p"] * 2) == ()
