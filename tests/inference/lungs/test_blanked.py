"""Scans in which all outside the lungs was set to one number."""

import numpy as np
import pytest

from groundglass.errors import IntensityError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.cases import sample
from helpers.chests import axial, dice, pictures, truth
from helpers.windows import grey_levels


@pytest.mark.parametrize("value", sample([-3024, -2048, -1024, -1000, 0], every=2))
@pytest.mark.thorough
def test_lungs_whose_outside_is_blanked_are_found_and_soft_tissue_takes_its_place(upright: Phantom, value: int) -> None:
    scan, lungs = axial(upright), truth(upright)
    blanked = np.where(lungs, scan.values, value).astype(np.int16)
    found = find_lungs(Scan(blanked, scan.geometry))
    inside = np.asarray(found.lung_field.mask)
    assert dice(inside, lungs) > 0.93
    assert any("was blanked" in text for text in found.lung_field.warnings)
    hu = np.stack(list(found.hu))
    assert (hu[~inside & ~lungs] == 40).all()
    assert (hu[inside & lungs] == blanked[inside & lungs]).all()


def test_a_body_is_not_taken_for_blanked(upright: Phantom) -> None:
    scan = axial(upright)
    found = find_lungs(scan)
    assert (found.hu[14] == scan.values[14]).all()


@pytest.mark.parametrize("level", sample([0, 100, 200], every=2))
@pytest.mark.parametrize("is_picture", [False, True], ids=["volume", "picture"])
def test_grey_levels_whose_outside_is_blanked_are_refused(upright: Phantom, level: int, is_picture: bool) -> None:
    grey = np.where(truth(upright), grey_levels(axial(upright).values), level).astype(np.uint8)
    scan = pictures(grey[14]) if is_picture else Scan(grey, axial(upright).geometry)
    with pytest.raises(IntensityError, match=f"all outside the lungs is of the grey level {level}, so that nothing"):
        find_lungs(scan)
