"""From a box in a slice to the network's input and back."""

import numpy as np
import pytest

from groundglass.scan.crop import Letterbox
from groundglass.scan.lung_field import Box

PLANE = np.arange(30.0 * 20, dtype=np.float32).reshape(30, 20)


def test_beside_a_box_at_the_side_of_the_slice_the_network_sees_its_mirror_image() -> None:
    box = Box(5, 25, 0, 20, mirrored=(0, 0, 20, 0))
    seen = Letterbox(box, (20, 40)).apply(PLANE, -1.0)
    assert (seen[:, 20:] == PLANE[5:25]).all()
    assert (seen[:, :20] == PLANE[5:25, ::-1]).all()


def test_pixels_that_are_no_squares_are_seen_in_the_proportions_of_the_body() -> None:
    square = Letterbox(Box(4, 28, 2, 18), (24, 16)).apply(PLANE, -1.0)
    pairs = PLANE.reshape(15, 2, 20).mean(1)  # pixels twice as high as wide
    assert Letterbox(Box(2, 14, 2, 18), (24, 16), 2.0).apply(pairs, -1.0) == pytest.approx(square, abs=11)
    wide = Letterbox(Box(0, 15, 0, 20), (60, 40), 2.0)
    assert (wide.apply(pairs, -1.0) >= 0).all()  # 30 by 20 widths of a pixel fill it
    assert wide.invert(wide.apply(pairs, -1.0))[1:-1] == pytest.approx(pairs[1:-1], abs=1)


@pytest.mark.parametrize("mirrored", [(0, 0, 0, 0), (3, 0, 0, 0), (0, 3, 0, 5), (2, 1, 20, 4)])
def test_what_comes_back_from_the_network_is_the_box_without_what_was_mirrored(
    mirrored: tuple[int, int, int, int],
) -> None:
    letterbox = Letterbox(Box(0, 30, 0, 20, mirrored), (96, 128))
    back = letterbox.invert(letterbox.apply(PLANE, -1.0))
    assert back.shape == PLANE.shape
    assert back[3:-3, 3:-3] == pytest.approx(PLANE[3:-3, 3:-3], abs=1)
