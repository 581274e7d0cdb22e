from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.morphology import dilate, distance_to, erode, fill_holes, label_parts

Voxels = NDArray[np.bool_]


def masks() -> Iterator[Voxels]:
    """Yield noise, blots and parts of larger arrays, of many sizes; some are empty, some full."""
    rng = np.random.default_rng(0)
    for number in range(60):
        noise = rng.random(rng.integers(1, 50, 2))
        if number % 2:
            noise = ndimage.gaussian_filter(noise, 1.5)
        mask = noise < np.quantile(noise, rng.random())
        yield np.pad(mask, 3)[2:-2, 1:-1] if number % 3 else mask
    yield np.zeros((7, 5), dtype=np.bool_)
    yield np.ones((7, 5), dtype=np.bool_)


@pytest.mark.parametrize("pixels", [1, 2, 3])
def test_masks_grow_and_shrink_as_in_scipy(pixels: int) -> None:
    for mask in masks():
        assert np.array_equal(dilate(mask, pixels), ndimage.binary_dilation(mask, iterations=pixels))
        square = ndimage.binary_dilation(mask, np.ones((3, 3), dtype=np.bool_), iterations=pixels)
        assert np.array_equal(dilate(mask, pixels, square=True), square)
        assert np.array_equal(erode(mask, pixels), ndimage.binary_erosion(mask, iterations=pixels))
        square = ndimage.binary_erosion(mask, np.ones((3, 3), dtype=np.bool_), iterations=pixels)
        assert np.array_equal(erode(mask, pixels, square=True), square)


def test_holes_are_filled_as_in_scipy() -> None:
    for mask in masks():
        assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("diagonal", [False, True])
def test_parts_have_the_numbers_that_scipy_gives_them(diagonal: bool) -> None:
    structure = ndimage.generate_binary_structure(2, 2 if diagonal else 1)
    for mask in masks():
        assert np.array_equal(label_parts(mask, diagonal), ndimage.label(mask, structure)[0])


def test_distances_are_those_of_scipy_to_a_rounding() -> None:
    for mask in masks():
        if mask.any():
            assert np.allclose(distance_to(mask), ndimage.distance_transform_edt(~mask), rtol=1e-6, atol=0)
        else:
            assert np.isinf(distance_to(mask)).all()
