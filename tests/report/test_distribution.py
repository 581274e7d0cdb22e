"""Zones, profile, histogram and density bands against values computed by hand."""

import numpy as np
import pytest

from groundglass.report.density import BANDS_HU, HISTOGRAM_HU, measure_density
from groundglass.report.distribution import measure_profile, measure_zones
from groundglass.report.extent import classify_extent
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import LungField
from groundglass.unknown import Unknown
from helpers.segmented import segmented_scan

MM = np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])  # x left, y back, z up; 2 mm^3 a voxel


def lungs(depth: int = 9) -> LungField:
    """Ten voxels of each lung in every slice; the left one is missing in the lowest three."""
    right = np.zeros((depth, 4, 20), dtype=np.bool_)
    left = right.copy()
    right[:, 1, :10] = True
    left[3:, 1, 10:] = True
    return LungField(right, left, (None,) * depth)


def test_zones_are_thirds_of_each_lungs_own_height() -> None:
    field = lungs()
    lesions = np.zeros_like(field.right)
    lesions[0:3, 1, :10] = True  # the lower right zone, all of it
    lesions[6, 1, :5] = True  # 5 of 30 voxels of the upper right one
    lesions[3, 1, 10:] = True  # 10 of 20 of the lower left one
    lesions[8, 0, 0] = True  # outside the lung
    measured = measure_zones(segmented_scan(Geometry(field.right.shape, MM), field, lesions))
    found = {(zone.side, zone.third): zone for zone in measured}
    assert list(found) == [(side, third) for side in ("right", "left") for third in ("upper", "middle", "lower")]
    shares = [zone.lesion_share_of_lung_percent for zone in found.values()]
    assert shares == pytest.approx([16.67, 0, 100, 0, 0, 50])
    assert [zone.score for zone in found.values()] == [1, 0, 4, 0, 0, 2]
    assert [zone.lung_volume_ml for zone in found.values()] == pytest.approx([0.06] * 3 + [0.04] * 3)
    assert found["right", "upper"].lesion_volume_ml == pytest.approx(0.01)


@pytest.mark.parametrize(("voxels", "score"), [(0, 0), (1, 1), (25, 1), (26, 2), (50, 2), (51, 3), (75, 3), (76, 4)])
def test_the_score_of_a_zone_counts_quarters_of_its_extent(voxels: int, score: int) -> None:
    right = np.zeros((3, 10, 20), dtype=np.bool_)
    right[:, :, :10] = True
    lesions = np.zeros_like(right)
    lesions[1, :, :10] = (np.arange(100) < voxels).reshape(10, 10)
    field = LungField(right, np.zeros_like(right), (None,) * 3)
    found = measure_zones(segmented_scan(Geometry(right.shape, MM), field, lesions))
    assert [(zone.third, zone.score) for zone in found] == [("upper", 0), ("middle", score), ("lower", 0)]


def test_the_profile_is_in_the_order_of_the_file() -> None:
    field = lungs()
    lesions = np.zeros_like(field.right)
    lesions[1, 1, :4] = True
    upside_down = Geometry(field.right.shape, MM * [-1, 1, 1, 1])
    found = measure_profile(segmented_scan(upside_down, field, lesions))
    assert found.unit == "ml"
    assert found.lesion == pytest.approx([0] * 7 + [0.008, 0])
    assert found.lung == pytest.approx([0.04] * 6 + [0.02] * 3)
    pixels = measure_profile(segmented_scan(Geometry.pixels(field.right.shape), field, lesions))
    assert (pixels.unit, pixels.lesion[1]) == ("px", 4)


def test_the_histogram_counts_lung_and_lesion_and_includes_values_beyond_its_ends() -> None:
    field = lungs(3)
    hu = np.full(field.right.shape, 5000, dtype=np.float32)
    hu[field.right] = -850
    lesions = np.zeros_like(field.right)
    lesions[0, 1, :4] = True
    hu[0, 1, :4] = -5000, -1100, -590, 500
    found = measure_density(segmented_scan(Geometry(field.right.shape, MM), field, lesions, hu)).histogram(False)
    start, stop, width = HISTOGRAM_HU
    assert (found.start_hu, found.width_hu, len(found.lung)) == (start, width, (stop - start) // width)
    expected = np.zeros(len(found.lung), dtype=int)
    expected[(-850 - start) // width] = 26
    assert found.lung == tuple(expected)
    lesion = np.zeros(len(found.lung), dtype=int)
    lesion[[0, (-590 - start) // width, -1]] = 2, 1, 1
    assert found.lesion == tuple(lesion)
    assert not found.estimated


def test_density_bands_are_shares_of_both_lungs_with_lesions_and_without_what_lies_outside() -> None:
    field = lungs(4)  # 40 voxels of the right lung, 10 of the left
    hu = np.full(field.right.shape, -50, dtype=np.float32)
    hu[field.right] = -850
    hu[field.left] = np.array([-1000, -901, -900, -501, -500, -101, -100, 99, 100, -1001])
    lesions = np.zeros_like(field.right)
    lesions[3, 1, 10:14] = True  # lesions in the lung count, as it does
    lesions[0, 0, :5] = True  # those beside it do not
    density = measure_density(segmented_scan(Geometry(field.right.shape, MM), field, lesions, hu))
    bands = density.bands(calibrated=True, voxel_ml=0.002, no_volume="")
    assert isinstance(bands, list)
    assert [(band["low_hu"], band["high_hu"], band["name"]) for band in bands] == list(BANDS_HU)
    assert [band["share_of_lung_percent"] for band in bands] == [4.0, 84.0, 4.0, 4.0]  # 2, 42, 2 and 2 of 50
    assert bands[1]["volume_ml"] == pytest.approx(0.084)


@pytest.mark.parametrize("calibrated", [True, False])
def test_without_hu_or_lung_there_are_no_density_bands(calibrated: bool) -> None:
    nothing = np.zeros((3, 4, 5), dtype=np.bool_)
    field = LungField(nothing, nothing, (None,) * 3)
    density = measure_density(segmented_scan(Geometry(nothing.shape, MM), field, nothing))
    reason = "no lung was found in the scan" if calibrated else "the file holds no HU, only a lung window"
    assert density.bands(calibrated, 0.002, "") == Unknown(reason)


@pytest.mark.parametrize(
    ("share", "name"),
    [(0, "none"), (0.01, "none"), (0.05, "minimal"), (9.99, "minimal"), (10, "moderate"), (24.99, "moderate"),
     (25, "extensive"), (50, "severe"), (74.99, "severe"), (75, "critical"), (100, "critical")],
)  # fmt: skip
def test_the_extent_is_a_class_of_the_share_of_the_lung(share: float, name: str) -> None:
    assert classify_extent(share).name == name
