import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundglass.report.preview import LESION_COLOUR, LUNG_COLOUR, TILE, draw_preview
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import Box, LungField
from helpers.segmented import segmented_scan


def draw(
    slices: int = 12, side: int = 100, lesion_slices: tuple[int, ...] = (3, 4), spacing: float = 0.7
) -> Image.Image:
    shape = (slices, side, side)
    geometry = Geometry(shape, np.array([[0, 0, 0.7, 0], [0, spacing, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]]))
    lung, lesions = np.zeros(shape, bool), np.zeros(shape, bool)
    lung[:, side // 5 : -side // 5, side // 5 : -side // 5] = True
    for z in lesion_slices:
        lesions[z, side * 2 // 5 : side // 2, side * 2 // 5 : side // 2] = True
    field = LungField(lung, np.zeros_like(lung), (Box(0, side, 0, side),) * slices)
    hu = np.where(lung, -850, 40).astype(np.float32)
    return draw_preview(segmented_scan(geometry, field, lesions, hu), "a title")


def near(image: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(np.asarray(image).astype(int) - colour).sum(-1) < 40)


def test_the_contour_is_at_the_position_of_the_lesion() -> None:
    image = draw(lesion_slices=(3,))
    rows, columns = np.nonzero(near(image, LESION_COLOUR))
    tile_left, tile_top = (image.width - TILE) // 2, 40
    for found, start in ((rows, tile_top), (columns, tile_left)):
        assert found.min() - start == pytest.approx(0.4 * TILE, abs=4)
        assert found.max() - start == pytest.approx(0.5 * TILE, abs=4)


def test_at_most_nine_slices_are_drawn() -> None:
    two, many = draw(lesion_slices=(3, 4)), draw(slices=30, lesion_slices=tuple(range(5, 25)))
    assert two.width == pytest.approx(2 * TILE, abs=40)
    assert many.width == pytest.approx(3 * TILE, abs=60)
    assert many.height == pytest.approx(3 * TILE, abs=120)


def test_lung_slices_are_drawn_where_there_is_no_lesion() -> None:
    image = draw(lesion_slices=())
    assert not near(image, LESION_COLOUR).any()
    assert image.height > 2 * TILE
    assert (np.asarray(image)[..., 2].astype(int) - np.asarray(image)[..., 0] > 30).any()  # the lungs' blue outline


@pytest.mark.parametrize(("slices", "side"), [(1, 16), (1, 100), (2, 1500)])
def test_single_tiny_and_large_slices_are_drawn(slices: int, side: int) -> None:
    image = draw(slices=slices, side=side, lesion_slices=(0,))
    assert near(image, LESION_COLOUR).any()


def test_anisotropic_pixels_are_drawn_in_proportion() -> None:
    image = draw(lesion_slices=(3,), spacing=0.35)
    rows, columns = np.nonzero(near(image, LESION_COLOUR))
    assert np.ptp(columns) == pytest.approx(2 * np.ptp(rows), abs=5)


def test_the_colours_of_lesion_and_lung_differ_clearly() -> None:
    assert sum(abs(a - b) for a, b in zip(LESION_COLOUR, LUNG_COLOUR, strict=True)) > 200
