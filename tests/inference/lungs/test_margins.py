"""The page or the frame around a picture is left out, so that lungs and HU are those of the slice alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.margins import without_margins
from groundglass.scan.lung_field import Box
from groundglass.scan.phantom import chest_phantom
from helpers.chests import axial, pictures
from helpers.windows import grey_levels

INSIDE = Box(top=7, bottom=57, left=11, right=71)


@pytest.fixture(scope="module")
def plane() -> NDArray[np.uint8]:
    """A slice through the middle of the lungs, as a picture."""
    return grey_levels(axial(chest_phantom(shape=(12, 160, 200), oblique=False)).values[5])


def framed(level: int, share: float = 0.1) -> NDArray[np.uint8]:
    """Noise with a frame around it, as `INSIDE` says, or as wide as a share of rows and columns at each side."""
    noise = np.random.default_rng(0).integers(0, 255, (50, 60)).astype(np.uint8)
    if share == 0.1:
        return np.pad(noise, ((7, 4), (11, 9)), constant_values=level)
    return np.pad(noise, [(round(n * share), round(n * share)) for n in noise.shape], constant_values=level)


@pytest.mark.parametrize("level", [255, 128, 20])
def test_a_frame_of_any_grey_is_left_out(level: int) -> None:
    assert without_margins(framed(level)) == INSIDE


def test_a_frame_may_differ_as_after_jpeg_compression() -> None:
    picture = framed(250)
    picture[0, ::2] -= 3
    picture[:, -1] += 2
    assert without_margins(picture) == INSIDE


def test_black_may_be_air_and_is_left_out_if_it_is_wide() -> None:
    assert without_margins(framed(0)) == Box(0, 61, 0, 80)
    assert without_margins(framed(0, share=0.5)) == Box(25, 75, 30, 90)


def test_grey_that_fills_much_of_what_is_inside_too_is_no_page_but_blanked_tissue() -> None:
    picture = framed(128)
    picture[20:40, 20:60] = 128
    assert without_margins(picture) == Box(0, 61, 0, 80)


def test_a_picture_of_one_level_is_all_content() -> None:
    assert without_margins(np.full((30, 40), 9, np.uint8)) == Box(0, 30, 0, 40)


@pytest.mark.parametrize(("level", "share"), [(255, 0.06), (255, 0.3), (128, 0.1), (0, 0.5)])
def test_lungs_and_hu_are_those_of_the_slice_without_its_margin(
    plane: NDArray[np.uint8], level: int, share: float
) -> None:
    alone = find_lungs(pictures(plane))
    rows, columns = (round(n * share) for n in plane.shape)
    around = find_lungs(pictures(np.pad(plane, ((rows, rows), (columns, columns)), constant_values=level)))
    inside = slice(rows, rows + plane.shape[0]), slice(columns, columns + plane.shape[1])
    for found, expected in zip(
        (around.lung_field.right, around.lung_field.left), (alone.lung_field.right, alone.lung_field.left), strict=True
    ):
        assert (found[0][inside] == expected[0]).all()
        assert found[0].sum() == expected[0].sum()
    assert around.intensity.slope == pytest.approx(alone.intensity.slope)
    box, expected_box = around.lung_field.boxes[0], alone.lung_field.boxes[0]
    assert box is not None
    assert expected_box is not None
    assert (box.top - rows, box.left - columns, box.mirrored) == (
        expected_box.top,
        expected_box.left,
        expected_box.mirrored,
    )
