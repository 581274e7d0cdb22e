from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.catalogue import find_cases
from groundglass.errors import IntensityError
from groundglass.inference.lungs import find_lungs_in_volume
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Window, recognise_intensity
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import ImageStack, Scan


def with_values(phantom: Phantom, values: NDArray[np.generic]) -> Scan:
    return Scan(values, phantom.scan.geometry)


def lung_window(hu: NDArray[np.int16], low: float = -1250, high: float = 250) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = (
        (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    )
    return grey


def stored_as(phantom: Phantom, kind: IntensityKind) -> NDArray[np.generic]:
    hu = phantom.scan.values
    kinds: dict[IntensityKind, NDArray[np.generic]] = {
        IntensityKind.HU: hu,
        IntensityKind.SHIFTED_HU: (np.maximum(hu, -1024) + 1024).astype(np.uint16),
        IntensityKind.LUNG_WINDOW_8BIT: lung_window(hu),
        IntensityKind.UNIT: lung_window(hu).astype(np.float32) / 255,
    }
    return kinds[kind]


@pytest.mark.parametrize("kind", IntensityKind)
def test_each_kind_is_recognised_and_gives_the_same_lungs(phantom: Phantom, kind: IntensityKind) -> None:
    scan = with_values(phantom, stored_as(phantom, kind))
    intensity = recognise_intensity(scan)
    assert intensity.kind is kind
    assert intensity.calibrated is (kind in {IntensityKind.HU, IntensityKind.SHIFTED_HU})
    view = AxialView(scan.geometry)
    hu = intensity.to_hu(view.to_axial(scan.values))
    assert hu.dtype == np.float32
    inside = np.abs(view.to_axial(phantom.scan.values)) < 200
    assert np.abs(hu - view.to_axial(phantom.scan.values))[inside].mean() < 40
    found, truth = np.asarray(find_lungs_in_volume(hu, view.geometry).mask), view.to_axial(phantom.lungs.voxels)
    assert found.sum() == pytest.approx(truth.sum(), rel=0.05)


@pytest.mark.parametrize("shift", [1000, 1024])
def test_the_shift_is_recognised_by_the_air(phantom: Phantom, shift: int) -> None:
    scan = with_values(phantom, np.maximum(phantom.scan.values + shift, 0).astype(np.int16))
    assert recognise_intensity(scan).intercept.tolist() == [-shift]
    assert f"shifted by {shift}" in recognise_intensity(scan).reason


@pytest.mark.parametrize(("low", "high"), [(-1250, 250), (-1400, 400), (-1150, 350)])
def test_a_lung_window_of_any_width_is_converted_by_air_and_soft_tissue(phantom: Phantom, low: int, high: int) -> None:
    scan = with_values(phantom, lung_window(phantom.scan.values, low, high))
    intensity = recognise_intensity(scan)
    hu = intensity.to_hu(scan.values)
    lung = phantom.lungs.voxels & ~phantom.lesions.voxels
    assert np.median(hu[lung]) == pytest.approx(np.median(phantom.scan.values[lung]), abs=30)
    assert "by air and soft tissue" in intensity.reason


def test_black_corners_around_the_circle_of_reconstruction_are_not_air(phantom: Phantom) -> None:
    grey = lung_window(phantom.scan.values)
    plain = recognise_intensity(with_values(phantom, grey))
    _, height, width = grey.shape
    rows, columns = np.ogrid[:height, :width]
    beyond = ((rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2) > 0.26
    corners = recognise_intensity(with_values(phantom, np.where(beyond, 0, grey).astype(np.uint8)))
    assert beyond.mean() > 0.15
    assert corners.intercept == pytest.approx(plain.intercept, abs=15)
    assert corners.slope == pytest.approx(plain.slope, abs=0.1)


def test_hu_with_padding_below_air_are_recognised(phantom: Phantom) -> None:
    values = phantom.scan.values.copy()
    values[:, :20] = -3024
    assert recognise_intensity(with_values(phantom, values)).kind is IntensityKind.HU


def test_hu_clipped_to_a_window_are_recognised(phantom: Phantom) -> None:
    assert recognise_intensity(with_values(phantom, np.clip(phantom.scan.values, -1000, 400))).kind is IntensityKind.HU


def test_each_picture_has_its_own_window(phantom: Phantom) -> None:
    hu = phantom.scan.values[14:16]
    pictures = np.stack([lung_window(hu[0], -1250, 250), lung_window(hu[1], -1500, 400)])
    scan = ImageStack(pictures, Geometry.pixels(pictures.shape), sizes=((144, 190),) * 2, names=("a.png", "b.png"))
    intensity = recognise_intensity(scan)
    assert intensity.slope.shape == (2,)
    assert intensity.slope[1] > 1.1 * intensity.slope[0]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        rng().gamma(2, 80, (4, 32, 32)).astype(np.int16),  # an MRI
        rng().normal(0, 1, (4, 32, 32)).astype(np.float32),  # z-scored
        np.full((4, 32, 32), 7, np.uint8),
        rng().integers(0, 4, (4, 32, 32)).astype(np.uint8),  # a label map
        np.zeros((4, 32, 32), np.float32),
    ],
    ids=["MRI", "z-scored", "constant", "labels", "zero"],
)
def test_other_values_are_refused_with_their_range_and_a_fix(values: NDArray[np.generic]) -> None:
    scan = Scan(values, Geometry.pixels(values.shape))
    with pytest.raises(
        IntensityError, match=r"the values run from .*: not a CT .*--intensity hu\|shifted-hu"
    ) as caught:
        recognise_intensity(scan)
    assert "\n" not in str(caught.value)


def test_the_kind_can_be_given(phantom: Phantom) -> None:
    scan = with_values(phantom, (phantom.scan.values // 4).astype(np.int16))
    with pytest.raises(IntensityError):
        recognise_intensity(scan)
    forced = recognise_intensity(scan, IntensityKind.HU)
    assert forced.reason.startswith("taken on request as HU")


def test_a_window_scales_and_clips() -> None:
    scaled = Window(-1000, 0).scale(np.array([-2000, -1000, -250, 0, 500], np.float32))
    assert scaled.tolist() == [0, 0, 0.75, 1, 1]


@pytest.mark.slow
def test_windows_of_the_real_volumes_equal_measured_ones(data: Path) -> None:
    air = (65, 59, 61, 61, 60, 59, 63, 29, 30)  # grey levels of volumes 1 to 9, as the data's description gives them
    soft = (210, 237, 247, 234, 234, 237, 213, 223, 205)
    for number, levels in enumerate(zip(air, soft, strict=True), start=1):
        intensity = recognise_intensity(read_scan(data / "medseg" / "dataset2" / "rp_im" / f"{number}.nii.gz"))
        hu = np.array(levels) * intensity.slope[0] + intensity.intercept[0]
        assert hu == pytest.approx([-1000, 50], abs=30), f"volume {number}"


@pytest.mark.slow
def test_the_kinds_of_the_real_data_are_recognised(data: Path) -> None:
    kinds = {case.name: recognise_intensity(read_scan(case.image)).kind for case in find_cases(data)}
    assert {kind for name, kind in kinds.items() if name.startswith("coronacases")} == {IntensityKind.HU}
    assert {kind for name, kind in kinds.items() if not name.startswith("coronacases")} == {
        IntensityKind.LUNG_WINDOW_8BIT
    }
