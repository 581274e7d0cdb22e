import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.report.findings import Findings, ModelRef
from groundglass.report.measurement import measure
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.lung_field import LungField
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


def test_volumes_and_shares_equal_those_computed_by_hand() -> None:
    found = findings(LESION | SMALL)
    assert found.lesion_volume_ml == pytest.approx(46 * 2 / 1000)
    assert found.lung_volume_ml == pytest.approx(2 * 8 * 16 * 10 * 2 / 1000)
    assert found.lesion_share_of_lung_percent == pytest.approx(100 * 46 / 2560, abs=0.005)
    assert found.right_lung.lesion_volume_ml == pytest.approx(0.08)
    assert found.right_lung.lesion_share_of_lung_percent == pytest.approx(100 * 40 / 1280, abs=0.005)
    assert found.left_lung.lesion_volume_ml == pytest.approx(0.012)
    assert (found.lesion_slices, found.lesion_slice_indices, found.slices) == (3, (2, 3, 7), 10)


def test_the_largest_lesions_come_first_with_their_centres() -> None:
    first, second = findings(LESION | SMALL).largest_lesions
    assert first.volume_ml == pytest.approx(0.08)
    # index centre (2.5, 6, 5.5) -> x 5.5 * 0.5 - 7, y 6 * 0.8 - 8, z 2.5 * 5 + 100
    assert first.centre_lps_mm == pytest.approx((-4.2, -3.2, 112.5), abs=0.06)
    assert second.volume_ml == pytest.approx(0.012)
    assert second.slice == 7


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
    assert parsed.pop("schema") == 3
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


def test_lesion_outside_the_lungs_has_a_warning_and_does_not_raise_the_share_above_100_percent() -> None:
    outside = box(slice(1, 9), slice(2, 18), slice(12, 18))
    found = findings(RIGHT | LEFT | outside)
    assert found.lesion_share_of_lung_percent == 100.0
    assert any("1.5 ml of lesion lie outside the lung field" in warning for warning in found.warnings)


def test_the_summary_states_volume_share_and_slices() -> None:
    assert findings(LESION | SMALL).summary == "lesion 0.1 ml, 1.8 % of the lung, in 3 of 10 slices"
    assert CASES["none"].summary == "no lesion found in 10 slices"
    assert CASES["pictures"].summary == "lesion covers 1.8 % of the lung's area, in 3 of 10 slices"
