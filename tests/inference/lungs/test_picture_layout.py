"""Slices that lie on their side, and pictures of several slices, are refused with the way to mend them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.errors import FormatError, LungError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.network import LungMaps, open_lung_network
from groundglass.inference.lungs.parts import parts_of, whole_slices
from groundglass.inference.lungs.picture_layout import check_layout
from groundglass.inference.lungs.search import ShownSlices, look
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
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


@pytest.mark.parametrize("quarter_turns", [1, 3])
def test_a_volume_on_its_side_is_refused_if_it_states_directions_and_read_if_it_states_none(quarter_turns: int) -> None:
    scan = axial(chest_phantom(shape=(12, 160, 200), oblique=False))
    turned = np.ascontiguousarray(np.rot90(scan.values[3:8], quarter_turns, (1, 2)))
    grid = replace(scan.geometry, shape=turned.shape)
    with pytest.raises(LungError, match="the slices lie on their side: the directions that the file states are wrong"):
        find_lungs(Scan(turned, grid))
    found = find_lungs(Scan(turned, replace(grid, has_directions=False)))
    assert any(found.lung_field.boxes)
    assert found.hu.shape[1:] == scan.values.shape[1:]  # upright


def test_a_picture_without_lung_is_told_from_a_sheet_of_slices_in_few_runs_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y, x = np.mgrid[:200, :200]
    disc = pictures(np.where((y - 100) ** 2 + (x - 100) ** 2 < 80**2, 200, 20).astype(np.uint8))
    network = open_lung_network()
    slices = ShownSlices(disc.values, None, None, 0.0)
    located = look(network, slices, [whole_slices(part) for part in parts_of(disc, disc.values, disc.geometry)])
    runs, run = [], network._run

    def counted(plane: NDArray[np.uint8], limits: None) -> LungMaps:
        runs.append(plane.shape)
        return run(plane, limits)

    monkeypatch.setattr(network, "_run", counted)
    check_layout(network, slices, located)
    assert 0 < len(runs) <= 16
