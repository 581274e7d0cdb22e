"""Pictures that lie on their side, or show several slices, are refused with the way to mend them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.scan.phantom import chest_phantom
from helpers.chests import axial, pictures
from helpers.windows import grey_levels


@pytest.fixture(scope="module")
def slices() -> list[NDArray[np.uint8]]:
    """Four upright slices through the lungs, as pictures."""
    phantom = chest_phantom(shape=(12, 160, 200), oblique=False)
    return [grey_levels(plane) for plane in axial(phantom).values[4:8]]


def side_by_side(slices: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    rows = [np.hstack(slices[start : start + columns]) for start in range(0, len(slices), columns)]
    return np.vstack(rows)


@pytest.mark.parametrize("quarter_turns", [1, 3])
def test_a_picture_on_its_side_is_refused(slices: list[NDArray[np.uint8]], quarter_turns: int) -> None:
    with pytest.raises(FormatError, match="the picture lies on its side: turn it by 90 degrees"):
        find_lungs(pictures(np.rot90(slices[1], quarter_turns)))


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_picture_of_several_slices_is_refused(slices: list[NDArray[np.uint8]], columns: int) -> None:
    with pytest.raises(FormatError, match="the picture shows several slices side by side, expected one: save each"):
        find_lungs(pictures(side_by_side(slices, columns)))


def test_upright_slices_halves_of_them_and_a_folder_of_them_are_read(slices: list[NDArray[np.uint8]]) -> None:
    middle = slices[1].shape[1] // 2
    for shown in (slices, [slices[1]], [slices[1][:, :middle]]):
        assert any(find_lungs(pictures(*shown)).lung_field.boxes)


def test_one_picture_on_its_side_among_others_is_named_by_its_number(slices: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(FormatError, match=r"lies on its side: .* \(picture 3\)"):
        find_lungs(pictures(slices[0], slices[1], np.rot90(slices[2])))
