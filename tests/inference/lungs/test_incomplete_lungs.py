"""What is said about the lungs of a scan."""

import pytest

from groundglass.inference.lungs.finding import find_lungs
from groundglass.scan.phantom import Phantom
from helpers.chests import axial, part_of


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_a_scan_without_apex_or_base_says_so(upright: Phantom, end: str) -> None:
    half = slice(16, None) if end == "lowest" else slice(0, 16)
    warnings = find_lungs(part_of(axial(upright), half)).lung_field.warnings
    assert any(f"reach the {end} slice" in text for text in warnings)
