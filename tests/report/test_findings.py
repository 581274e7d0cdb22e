import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from groundglass.inference.model_card import BurdenInterval
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.extent import Extent, classify_extent
from groundglass.report.findings import Findings, ModelRef
from groundglass.report.image_numbers import image_numbers, name_image, place_image
from groundglass.report.lesion_list import MOST_LISTED
from groundglass.report.measurement import measure
from groundglass.report.sentence import report_sentence
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.scan import DicomSeries, Scan
from helpers.segmented import segmented_scan

SHAPE = (10, 20, 30)
# 5 x 0.8 x 0.5 mm: a voxel is 2 mm3. Upright: the view is the array itself.
GEOMETRY = Geometry(SHAPE, np.array([[0, 0, 0.5, -7], [0, 0.8, 0, -8], [5, 0, 0, 100], [0, 0, 0, 1]]))
MODEL = ModelRef(name="m", sha256="0" * 64)


def box(*slices: slice) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[slices] = True
    return mask


RIGHT, LEFT = box(slice(1, 9), slice(2, 18), slice(2, 12)), box(slice(1, 9), slice(2, 18), slice(18, 28))
LESION = box(slice(2, 4), slice(4, 9), slice(4, 8))  # 2 x 5 x 4 voxels in the right lung
SMALL = box(slice(7, 8), slice(10, 12), slice(20, 23))  # 1 x 2 x 3 in the left


def findings(
    lesions: NDArray[np.bool_],
    right: NDArray[np.bool_] = RIGHT,
    left: NDArray[np.bool_] = LEFT,
    geometry: Geometry = GEOMETRY,
    calibrated: bool = True,
) -> Findings:
    hu = np.where(lesions, -500, -900).astype(np.float32)
    kind = IntensityKind.HU if calibrated else IntensityKind.WINDOW_8BIT
    intensity = Intensity(kind, np.ones(1), np.zeros(1), "because", calibrated)
    lungs = LungField(right, left, (None,) * SHAPE[0])
    return measure(segmented_scan(geometry, lungs, lesions, hu, intensity), MODEL)


def segmented(lesions: NDArray[np.bool_]) -> SegmentedScan:
    return segmented_scan(GEOMETRY, LungField(RIGHT, LEFT, (None,) * SHAPE[0]), lesions)


def test_volumes_and_shares_equal_those_computed_by_hand() -> None:
    found = findings(LESION | SMALL)
    assert found.lesion_volume_ml == pytest.approx(46 * 2 / 1000)
    assert found.lung_volume_ml == pytest.approx(2 * 8 * 16 * 10 * 2 / 1000)
    assert found.lesion_share_of_lung_percent == pytest.approx(100 * 46 / 2560, abs=0.005)
    assert found.right_lung.lesion_volume_ml == pytest.approx(0.08)
    assert found.right_lung.lesion_share_of_lung_percent == pytest.approx(100 * 40 / 1280, abs=0.005)
    assert found.left_lung.lesion_volume_ml == pytest.approx(0.012)
    assert (found.lesion_slices, found.lesion_slice_indices, found.slices) == (3, (2, 3, 7), 10)


def test_the_largest_lesions_come_first_with_side_zone_density_and_position() -> None:
    found = findings(LESION | SMALL)
    first, second = found.largest_lesions
    assert found.lesion_count == 2
    assert first.volume_ml == pytest.approx(0.08)
    # index centre (2.5, 6, 5.5) -> x 5.5 * 0.5 - 7, y 6 * 0.8 - 8, z 2.5 * 5 + 100
    assert first.centre_lps_mm == pytest.approx((-4.2, -3.2, 112.5), abs=0.06)
    assert (first.side, first.zone, first.mean_hu, first.area_px, first.slices) == ("right", "lower", -500.0, 20, 2)
    assert second.volume_ml == pytest.approx(0.012)
    assert (second.side, second.zone, second.slice, second.slices) == ("left", "upper", 7, 1)


def test_the_point_of_a_curved_lesion_lies_inside_it_on_its_largest_slice() -> None:
    ring = box(slice(3, 7), slice(3, 16), slice(3, 11)) & ~box(slice(0, 10), slice(5, 14), slice(5, 9))
    tail = box(slice(2, 3), slice(3, 4), slice(3, 4))
    thick = box(slice(5, 6), slice(3, 6), slice(3, 11))  # makes slice 5 the largest
    lesion = ring | tail | thick
    (found,) = findings(lesion).largest_lesions
    assert lesion[found.point_index]
    assert found.slice == found.point_index[0] == 5
    assert found.centre_lps_mm is not None
    centre = np.linalg.inv(GEOMETRY.affine_lps) @ [*found.centre_lps_mm, 1]
    assert not lesion[tuple(np.round(centre[:3]).astype(int))]  # where the page used to jump
    assert found.point_lps_mm == pytest.approx(GEOMETRY.position(found.point_index), abs=0.06)


def test_the_point_is_an_index_of_the_file_however_its_axes_lie() -> None:
    sagittal = np.array([[0.5, 0, 0, -7], [0, 0, 0.8, -8], [0, -5, 0, 145], [0, 0, 0, 1]])  # axes x, -z, y
    (found,) = findings(SMALL, geometry=Geometry((30, 10, 20), sagittal)).largest_lesions
    in_file = SMALL.transpose(2, 0, 1)[:, ::-1]
    assert in_file[found.point_index]
    assert found.slice == 2


def test_a_lung_in_two_slices_has_no_thirds() -> None:
    two = np.arange(SHAPE[0])[:, None, None] // 2 == 1  # the slices of the lesion
    found = findings(LESION, right=RIGHT & two)
    assert found.zones is not None
    assert {zone.side for zone in found.zones} == {"left"}
    assert found.largest_lesions[0].zone is None
    reason = "the lung is shown in fewer than three slices, too few for thirds"
    assert found.unknown["largest_lesions.0.zone"] == reason
    both = findings(LESION, RIGHT & two, LEFT & two)
    assert both.zones is None
    assert both.unknown["zones"] == reason


def test_more_lesions_than_are_listed_are_counted() -> None:
    specks = box(slice(1, 9, 2), slice(2, 18, 2), slice(2, 12, 2)) | box(
        slice(1, 9, 2), slice(2, 18, 2), slice(18, 28, 2)
    )
    found = findings(specks)
    assert found.lesion_count == 4 * 8 * 10
    assert len(found.largest_lesions) == MOST_LISTED


def test_a_lesion_outside_the_lungs_has_no_side() -> None:
    found = findings(box(slice(2, 4), slice(4, 9), slice(13, 16)))
    assert found.largest_lesions[0].side is None
    assert found.unknown["largest_lesions.0.side"] == "the lesion lies outside the lung field"


def test_images_are_numbered_from_1_with_their_positions_unless_dicom_states_numbers() -> None:
    found = findings(LESION).input
    assert found.image_numbers == tuple(range(1, 11))
    assert found.slice_positions_mm == pytest.approx(tuple(range(100, 150, 5)))
    assert place_image(findings(LESION), 3) == "image 4 of 10, 115 mm"


def test_images_keep_the_numbers_of_dicom_where_rows_rise_more_steeply_than_slices() -> None:
    along_y, along_x = np.array([0, 0.75, 0.4375**0.5]), np.array([0.8, -0.6 * 0.4375**0.5, 0.45])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.cross(along_x, along_y), along_y, along_x], axis=1)  # rises by 0.60, 0.66 and 0.45
    headers = [Dataset() for _ in range(3)]
    for header, number in zip(headers, (31, 32, 33), strict=True):
        header.InstanceNumber = number
    scan = Scan(np.zeros((3, 4, 5)), Geometry((3, 4, 5), affine), series=DicomSeries(tuple(headers)))
    assert image_numbers(scan, AxialView(scan.geometry)) == (31, 32, 33)


def test_the_volume_of_each_class_is_measured() -> None:
    class_map = LESION.astype(np.uint8) + 2 * SMALL.astype(np.uint8)
    lungs = LungField(RIGHT, LEFT, (None,) * SHAPE[0])
    segmented = segmented_scan(GEOMETRY, lungs, LESION | SMALL)
    segmented = replace(segmented, class_map=PackedMask.from_slices(class_map))
    found = measure(segmented, MODEL, classes=("ground-glass", "consolidation"))
    assert [(each.name, each.volume_ml) for each in found.classes] == [("ground-glass", 0.08), ("consolidation", 0.012)]
    assert [each.lesion_share_of_lung_percent for each in found.classes] == [1.56, 0.23]  # 40 and 6 of 2560


def test_slice_indices_follow_the_order_of_the_file() -> None:
    flipped = GEOMETRY.affine_lps.copy()
    flipped[2] = [-5, 0, 0, 145]  # head to feet
    found = findings(SMALL, geometry=Geometry(SHAPE, flipped))
    assert found.lesion_slice_indices == (2,)  # slice 7 of the view is the file's slice 2


def test_mean_intensity_of_lesion_and_of_the_lung_without_it() -> None:
    assert findings(LESION).mean_intensity.model_dump() == {"lesion_hu": -500.0, "lung_hu": -900.0}


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, f"{path}.{key}" if path else key)]
    if isinstance(value, list):
        return [leaf for key, part in enumerate(value) for leaf in leaves(part, f"{path}.{key}")]
    return [(path, value)]


NOTHING = box(slice(0, 0))
CASES = {
    "lesions": findings(LESION | SMALL),
    "none": findings(NOTHING),
    "no left lung": findings(LESION, left=NOTHING),
    "no lung": findings(LESION, right=NOTHING, left=NOTHING),
    "estimated": findings(LESION, calibrated=False),
    "pictures": findings(LESION | SMALL, geometry=Geometry.pixels(SHAPE), calibrated=False),
}


@pytest.mark.parametrize("case", CASES)
def test_every_null_has_a_reason_and_every_reason_a_null(case: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    parsed = json.loads(CASES[case].to_json(), parse_constant=refuse)
    assert parsed.pop("schema") == 4
    unknown = parsed.pop("unknown")
    nulls = {path for path, value in leaves(parsed) if value is None}
    assert nulls == set(unknown)
    assert all(unknown.values())


def test_volumes_are_zero_without_lesion_and_unknown_without_lung() -> None:
    none, no_left = CASES["none"], CASES["no left lung"]
    assert (none.lesion_volume_ml, none.lesion_slices, none.largest_lesions) == (0.0, 0, ())
    assert none.unknown["mean_intensity.lesion_hu"] == "no lesion was found"
    assert no_left.left_lung.lung_volume_ml is None
    assert no_left.unknown["left_lung.lung_volume_ml"] == "no left lung was found in the scan"


def test_images_have_shares_and_areas_but_no_volumes() -> None:
    found = CASES["pictures"]
    assert found.lesion_volume_ml is None
    assert found.lesion_share_of_lung_percent == pytest.approx(100 * 46 / 2560, abs=0.005)
    assert [lesion.area_px for lesion in found.largest_lesions] == [20, 20, 6]  # slices are unrelated
    assert found.extent is None


def test_lesion_outside_the_lungs_has_a_warning_and_does_not_raise_the_share_above_100_percent() -> None:
    outside = box(slice(1, 9), slice(2, 18), slice(12, 18))
    found = findings(RIGHT | LEFT | outside)
    assert found.lesion_share_of_lung_percent == 100.0
    assert any("1.5 ml of lesion lie outside the lung field" in warning for warning in found.warnings)


def test_the_summary_states_volume_share_and_slices() -> None:
    assert findings(LESION | SMALL).summary == "lesion 0.09 ml, 1.8 % of the lung, in 3 of 10 slices"
    assert CASES["none"].summary == "no lesion found in 10 slices"
    assert CASES["pictures"].summary == "lesion covers 1.8 % of the lung's area, in 3 of 10 slices"


@pytest.mark.parametrize(
    ("share", "interval", "expected"), [(0.04, None, True), (0.05, None, False), (0.05, (0.0, 1.0), True)]
)
def test_what_is_marked_in_healthy_lungs_too_is_no_lesion_of_relevant_size(
    share: float, interval: tuple[float, float] | None, expected: bool
) -> None:
    found = findings(LESION | SMALL).model_copy(
        update={
            "lesion_share_of_lung_percent": share,
            "lesion_share_interval_percent": interval,
            "lung_volume_ml": 0.092 / share * 100,
        }
    )
    words = "no lesion of relevant size (0.09 ml marked, as in healthy lungs)"
    assert (found.summary == words) == expected
    assert ("no lesion of relevant size was marked" in report_sentence(found)) == expected
    extent = classify_extent(share, interval)
    assert (extent.name, extent.range) == (("none", "nearly 0 %") if expected else ("minimal", "below 10 %"))


def test_an_interval_that_begins_at_0_makes_the_extent_none() -> None:
    wide = BurdenInterval(offset_percent=5.0, low=0.2, high=2.0, scans=9, coverage=0.8)
    extents = [measure(segmented(LESION | SMALL), MODEL, interval=interval).extent for interval in (None, wide)]
    assert extents == [Extent(name="minimal", range="below 10 %"), Extent(name="none", range="nearly 0 %")]


def test_what_a_person_marked_is_never_called_what_is_marked_in_healthy_lungs() -> None:
    spot = box(slice(3, 4), slice(5, 6), slice(5, 6))
    drawn, found = (measure(segmented(spot), MODEL, corrected=corrected) for corrected in (True, False))
    assert (found.is_negligible, drawn.is_negligible) == (True, False)
    assert found.extent == Extent(name="none", range="nearly 0 %")
    assert drawn.extent == Extent(name="minimal", range="below 10 %")
    assert report_sentence(drawn).endswith("image 4 of 10; the mask was corrected by hand.")


def test_the_sentence_of_a_mask_that_a_person_emptied_says_so() -> None:
    emptied = measure(segmented(np.zeros_like(LESION)), MODEL, corrected=True)
    assert report_sentence(emptied).endswith(": no lesion was marked in 10 slices; the mask was corrected by hand.")


def test_lesion_outside_the_lungs_is_not_called_as_in_healthy_lungs_and_affects_no_zone() -> None:
    found = findings(box(slice(1, 9), slice(2, 18), slice(13, 17)))
    assert found.summary == "lesion 1.0 ml, 0.0 % of the lung, in 8 of 10 slices"
    assert "relevant size" not in report_sentence(found)
    assert "most affected" not in report_sentence(found)


def test_the_interval_of_the_volume_holds_what_lies_outside_the_lungs_too() -> None:
    exact = BurdenInterval(offset_percent=0.0, low=1.0, high=1.0, scans=9, coverage=0.8)
    outside = box(slice(1, 9), slice(2, 18), slice(13, 17))
    found = measure(segmented(RIGHT | outside), MODEL, interval=exact)
    assert found.lesion_volume_ml == pytest.approx(2.56 + 1.024)
    assert found.lesion_volume_interval_ml == (3.6, 3.6)


def test_a_lesion_of_one_voxel_is_not_written_as_none_of_the_lung() -> None:
    shape = (30, 80, 100)
    lungs = np.zeros((2, *shape), dtype=np.bool_)
    lungs[0, :, :, 5:45] = lungs[1, :, :, 55:95] = True
    lesions = np.zeros(shape, dtype=np.bool_)
    lesions[4, 40, 20] = True
    geometry = Geometry(shape, GEOMETRY.affine_lps)
    found = measure(segmented_scan(geometry, LungField(lungs[0], lungs[1], (None,) * shape[0]), lesions), MODEL)
    assert found.zones is not None
    assert [zone.score for zone in found.zones] == [0, 0, 1, 0, 0, 0]
    assert found.zones[2].lesion_share_of_lung_percent == 0.0031
    assert found.right_lung.lesion_share_of_lung_percent == 0.001
    assert found.lesion_share_of_lung_percent == 0.00052


def test_hu_and_positions_near_0_are_not_called_less_than_1() -> None:
    found = findings(LESION)
    place = found.input.model_copy(update={"slice_positions_mm": (0.3,) * 10})
    means = found.mean_intensity.model_copy(update={"lesion_hu": 0.3})
    found = found.model_copy(update={"input": place, "mean_intensity": means})
    assert place_image(found, 2) == "image 3 of 10, 0 mm"
    assert "; mean density 0 HU;" in report_sentence(found)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        (range(1, 11), "image 3 of 10"),
        (range(10, 0, -1), "image 8 of 10"),
        (range(10), "image 2"),
        (range(1, 21, 2), "image 5"),
    ],
)
def test_an_image_is_named_of_all_only_where_they_are_counted_from_1(numbers: range, name: str) -> None:
    found = findings(LESION)
    found = found.model_copy(update={"input": found.input.model_copy(update={"image_numbers": tuple(numbers)})})
    assert name_image(found, 2) == name


def test_the_sentence_states_amount_interval_extent_sides_zone_density_and_largest_lesion() -> None:
    found = findings(LESION | SMALL).model_copy(
        update={"lesion_volume_interval_ml": (0.05, 1.4), "lesion_share_interval_percent": (1.1, 2.3)}
    )
    assert report_sentence(found) == (
        f"Automated analysis of the chest CT (groundglass {found.version}, model m; "
        "research use, not a medical device): lesions of 0.09 ml (80 % interval 0.05 to 1.40 ml) or "
        "1.8 % of the lung volume of 5 ml (80 % interval 1.1 to 2.3 %); "
        "extent: minimal (below 10 %); right lung 3.1 %, left lung 0.5 %; "
        "most affected: right lower zone (8.3 % of it); "
        "mean density −500 HU; largest lesion 0.08 ml in the right lower zone, image 3 of 10."
    )


def test_the_sentence_of_a_scan_without_lesion_says_so() -> None:
    assert report_sentence(CASES["none"]).endswith(": no lesion was marked in 10 slices.")


def test_the_sentence_of_pictures_states_an_area_and_no_extent() -> None:
    sentence = report_sentence(CASES["pictures"])
    assert "of the 10 pictures (" in sentence
    assert "lesions of 1.8 % of the lung area; right lung" in sentence
    assert "extent" not in sentence
    assert "ml" not in sentence


@pytest.mark.parametrize("permuted", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_distance_of_slices_is_that_of_axial_slices_along_whichever_axis_of_the_file(
    permuted: tuple[int, int, int],
) -> None:
    upright = np.diag([1.0, 1, 1, 1])
    upright[:3, :3] = [[0, 0, 0.8], [0, 0.7, 0], [5, 0, 0]]  # (z, y, x) of 5, 0.7 and 0.8 mm
    shape = tuple(np.array((10, 20, 30))[list(permuted)].tolist())
    affine = upright[:, [*permuted, 3]]
    found = findings(SMALL, geometry=Geometry(shape, affine)).input
    assert found.spacing_mm is not None
    assert found.spacing_mm[permuted.index(0)] == 5.0
    assert found.slice_distance_mm == 5.0
