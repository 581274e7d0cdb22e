"""What is said about the lungs of a scan."""

from dataclasses import replace

import numpy as np
import pytest

from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.incomplete import lung_warnings
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import LungField
from groundglass.scan.phantom import Phantom
from helpers.chests import axial, part_of


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_a_scan_without_apex_or_base_says_so(upright: Phantom, end: str) -> None:
    half = slice(16, None) if end == "lowest" else slice(0, 16)
    warnings = find_lungs(part_of(axial(upright), half)).lung_field.warnings
    assert any(f"reach the {end} slice" in text for text in warnings)


def test_ends_and_sides_have_no_names_where_the_file_states_no_directions() -> None:
    right, left = np.zeros((2, 4, 20, 20), np.bool_)
    right[2:, 5:15, :9] = left[2:, 5:15, 11:15] = True
    lungs, grid = LungField(right, left, (None,) * 4), Geometry.pixels(right.shape)
    named = lung_warnings(lungs, grid, is_volume=True)
    assert [text.partition(":")[0] for text in named] == [
        "the lungs reach the highest slice",
        "the lungs reach the right side of the slices",
    ]
    unnamed = lung_warnings(lungs, replace(grid, has_directions=False), is_volume=True)
    assert [text.partition(":")[0] for text in unnamed] == [
        "the lungs reach the first or last slice",
        "the lungs reach a side of the slices",
    ]
