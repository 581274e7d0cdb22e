from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.catalogue import find_cases
from groundglass.errors import IntensityError
from groundglass.io.reader import read_scan
from groundglass.scan import intensity
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import Window, recognise_numbers
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.windows import grey_levels


def with_values(phantom: Phantom, values: NDArray[np.generic]) -> Scan:
    return Scan(values, phantom.scan.geometry)


def stored_as(phantom: Phantom, kind: IntensityKind) -> NDArray[np.generic]:
    hu = phantom.scan.values
    kinds: dict[IntensityKind, NDArray[np.generic]] = {
        IntensityKind.HU: hu,
        IntensityKind.SHIFTED_HU: (np.maximum(hu, -1024) + 1024).astype(np.uint16),
        IntensityKind.WINDOW_8BIT: grey_levels(hu),
        IntensityKind.WINDOW_UNIT: grey_levels(hu).astype(np.float32) / 255,
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", IntensityKind)
def test_each_kind_is_recognised(phantom: Phantom, kind: IntensityKind) -> None:
    assert recognise_numbers(with_values(phantom, stored_as(phantom, kind))).kind is kind


@pytest.mark.parametrize("kind", [IntensityKind.HU, IntensityKind.SHIFTED_HU])
def test_kinds_are_recognised_by_voxels_of_all_columns(
    phantom: Phantom, kind: IntensityKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.array(stored_as(phantom, kind))
    values[:, :, :3] = -3024 if kind is IntensityKind.HU else 0  # beside the circle of reconstruction
    rows = values.size // values.shape[2]
    monkeypatch.setattr(intensity, "SAMPLES", rows)  # by the real number, 977 slices of 512 x 512 are as unlucky
    assert recognise_numbers(with_values(phantom, values)).kind is kind


@pytest.mark.parametrize("kind", [IntensityKind.HU, IntensityKind.SHIFTED_HU])
def test_stored_hu_stay_as_they_are(phantom: Phantom, kind: IntensityKind) -> None:
    scan = with_values(phantom, stored_as(phantom, kind))
    exact = recognise_numbers(scan).exact
    assert exact.calibrated
    assert np.array_equal(exact.to_hu(scan.values), np.maximum(phantom.scan.values, -1024))


@pytest.mark.parametrize("shift", [1000, 1024])
def test_the_shift_is_recognised_by_the_air(phantom: Phantom, shift: int) -> None:
    scan = with_values(phantom, np.maximum(phantom.scan.values + shift, 0).astype(np.int16))
    numbers = recognise_numbers(scan)
    assert numbers.exact.intercept.tolist() == [-shift]
    assert f"shifted by {shift}" in numbers.reason


@pytest.mark.parametrize("shift", [32768, 8192, -1024])
def test_unusual_shifts_are_recognised_by_the_lungs(phantom: Phantom, shift: int) -> None:
    scan = with_values(phantom, phantom.scan.values.astype(np.int32) + shift)
    numbers = recognise_numbers(scan)
    assert numbers.kind is IntensityKind.SHIFTED_HU
    assert numbers.exact.intercept.tolist() == [-shift]


@pytest.mark.parametrize("padding", [-1500, -1700, -2000, -3024])
def test_padding_is_not_taken_for_the_lungs_of_shifted_hu(phantom: Phantom, padding: int) -> None:
    values = np.where(phantom.lungs.voxels, phantom.scan.values, padding).astype(np.int16)
    assert recognise_numbers(with_values(phantom, values)).kind is IntensityKind.HU


def test_hu_with_padding_below_air_are_recognised(phantom: Phantom) -> None:
    values = phantom.scan.values.copy()
    values[:, :20] = -3024
    assert recognise_numbers(with_values(phantom, values)).kind is IntensityKind.HU


def test_hu_clipped_to_a_window_are_recognised(phantom: Phantom) -> None:
    assert recognise_numbers(with_values(phantom, np.clip(phantom.scan.values, -1000, 400))).kind is IntensityKind.HU


@pytest.mark.parametrize("shift", [0, 1024])
@pytest.mark.parametrize("lowest", [-800, -600, -500])
def test_hu_that_were_cut_off_above_lung_are_refused_unless_they_are_named(
    phantom: Phantom, lowest: int, shift: int
) -> None:
    scan = with_values(phantom, (np.maximum(phantom.scan.values, lowest) + shift).astype(np.int16))
    message = rf"HU were cut off at {lowest}, which \d+ % of all values have.*: give the scan as it was before"
    with pytest.raises(IntensityError, match=message):
        recognise_numbers(scan)
    kind = IntensityKind.SHIFTED_HU if shift else IntensityKind.HU
    assert recognise_numbers(scan, kind).kind is kind


@pytest.mark.parametrize("slope", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("shift", [0, -1024])
def test_hu_that_were_multiplied_are_refused_unless_they_are_named(phantom: Phantom, slope: float, shift: int) -> None:
    scan = with_values(phantom, phantom.scan.values.astype(np.float32) * slope + shift)
    message = r"\d+ % of the values lie below -1200 HU, .*: HU were multiplied, as by a slope .*with the slope 1"
    with pytest.raises(IntensityError, match=message):
        recognise_numbers(scan)
    assert recognise_numbers(scan, IntensityKind.HU).kind is IntensityKind.HU


@pytest.mark.parametrize("noise", [50, 100, 200])
def test_the_noise_of_air_is_not_taken_for_a_slope(phantom: Phantom, noise: float) -> None:
    grain = np.random.default_rng(0).normal(0, noise, phantom.scan.values.shape)
    assert recognise_numbers(with_values(phantom, phantom.scan.values + grain)).kind is IntensityKind.HU


@pytest.mark.parametrize("padding", [-1337, -2000, -3024])
@pytest.mark.parametrize("noise", [0, 10, 50])
def test_padding_is_not_taken_for_a_slope_with_noise_or_lossy_compression(
    phantom: Phantom, padding: float, noise: float
) -> None:
    values = phantom.scan.values.astype(np.float32)
    values[:, :, : values.shape[2] // 4] = padding
    values[:, :2] = -2048
    grain = np.random.default_rng(0).normal(0, noise, values.shape)
    assert recognise_numbers(with_values(phantom, values + grain)).kind is IntensityKind.HU


@pytest.mark.parametrize(("low", "high", "white"), [(-1350, 150, 1000), (-1000, 400, 4095), (-1350, 150, 2000)])
def test_grey_levels_of_more_than_eight_bits_are_not_taken_for_shifted_hu(
    phantom: Phantom, low: int, high: int, white: int
) -> None:
    levels = np.rint(np.clip((phantom.scan.values - low) / (high - low), 0, 1) * white).astype(np.uint16)
    with pytest.raises(IntensityError, match=f"to {white}, .* different ones: not a CT in HU.*--intensity"):
        recognise_numbers(with_values(phantom, levels))


def test_grey_levels_from_minus_1000_to_1000_are_not_taken_for_hu(phantom: Phantom) -> None:
    levels = np.clip((phantom.scan.values + 1000) / 1400, 0, 1) * 2000 - 1000
    with pytest.raises(IntensityError, match=r"from -1000 to 1000, .* different ones: not a CT in HU.*--intensity"):
        recognise_numbers(with_values(phantom, levels.astype(np.int16)))


@pytest.mark.parametrize("blank", [1000, 3071])
def test_hu_whose_outside_is_blanked_brightly_are_recognised(phantom: Phantom, blank: int) -> None:
    values = np.where(phantom.lungs.voxels, phantom.scan.values, blank).astype(np.int16)
    assert recognise_numbers(with_values(phantom, values)).kind is IntensityKind.HU


@pytest.mark.parametrize("by_slice", [True, False])
def test_grey_levels_of_an_equalised_histogram_are_refused_unless_they_are_named(
    phantom: Phantom, by_slice: bool
) -> None:
    levels = grey_levels(phantom.scan.values)
    parts = levels if by_slice else levels.reshape(1, -1, levels.shape[-1])
    equalised = np.stack([cv2.equalizeHist(part) for part in parts]).reshape(levels.shape)
    scan = with_values(phantom, equalised)
    with pytest.raises(IntensityError, match=r"spread evenly over their range, as by an equalised.*8-bit-window reads"):
        recognise_numbers(scan)
    assert recognise_numbers(scan, IntensityKind.WINDOW_8BIT).kind is IntensityKind.WINDOW_8BIT


@pytest.mark.parametrize("highest", [-200, 0, 400])
def test_shifted_hu_that_were_cut_off_above_are_recognised(phantom: Phantom, highest: int) -> None:
    values = np.clip(phantom.scan.values, -1000, highest) + 1000
    assert recognise_numbers(with_values(phantom, values.astype(np.uint16))).exact.intercept.tolist() == [-1000]


def test_hu_whose_outside_is_blanked_are_recognised(phantom: Phantom) -> None:
    for value in (-3024, -1024, 0):
        lungs_alone = np.where(phantom.lungs.voxels, phantom.scan.values, value).astype(np.int16)
        assert recognise_numbers(with_values(phantom, lungs_alone)).kind is IntensityKind.HU


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        rng().gamma(2, 80, (4, 32, 32)).astype(np.int16),  # an MRI
        rng().normal(0, 1, (4, 32, 32)).astype(np.float32),  # z-scored
        np.full((4, 32, 32), 7, np.uint8),
        rng().integers(0, 65536, (4, 32, 32)).astype(np.uint16),  # 16-bit grey levels
        rng().integers(0, 4, (4, 32, 32)).astype(np.uint8),  # a label map
        np.zeros((4, 32, 32), np.float32),
    ],
    ids=["MRI", "z-scored", "constant", "16 bits", "labels", "zero"],
)
def test_other_values_are_refused_with_their_range_and_a_fix(values: NDArray[np.generic]) -> None:
    scan = Scan(values, Geometry.pixels(values.shape))
    with pytest.raises(
        IntensityError, match=r"the values run from .*: not a CT .*--intensity hu\|shifted-hu"
    ) as caught:
        recognise_numbers(scan)
    assert "\n" not in str(caught.value)


def test_hu_that_lost_their_sign_are_refused_with_the_way_to_bring_it_back(phantom: Phantom) -> None:
    with pytest.raises(IntensityError, match=r"none between 5000 and \d+: HU below 0 were stored without their sign"):
        recognise_numbers(with_values(phantom, phantom.scan.values.astype(np.int16).view(np.uint16)))


def test_the_kind_can_be_given(phantom: Phantom) -> None:
    scan = with_values(phantom, (phantom.scan.values // 4).astype(np.int16))
    with pytest.raises(IntensityError):
        recognise_numbers(scan)
    forced = recognise_numbers(scan, IntensityKind.HU)
    assert forced.reason.startswith("taken on request as HU")


def test_a_window_scales_and_clips() -> None:
    scaled = Window(-1000, 0).scale(np.array([-2000, -1000, -250, 0, 500], np.float32))
    assert scaled.tolist() == [0, 0, 0.75, 1, 1]


@pytest.mark.slow
def test_the_kinds_of_the_real_data_are_recognised(data: Path) -> None:
    kinds = {case.name: recognise_numbers(read_scan(case.image)).kind for case in find_cases(data)}
    assert {kind for name, kind in kinds.items() if name.startswith("coronacases")} == {IntensityKind.HU}
    assert {kind for name, kind in kinds.items() if not name.startswith("coronacases")} == {IntensityKind.WINDOW_8BIT}
