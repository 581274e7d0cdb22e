"""The part of the slices that the lesion network sees: of whole chests, of parts of them, of one lung."""

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.lungs.box import lung_boxes
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.parts import Part
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.phantom import Phantom
from helpers.chests import axial, part_of, pictures, truth
from helpers.windows import grey_levels

WHOLE, FROM_BELOW = slice(3, 17), slice(0, 10)  # of 20 slices
RIGHT, LEFT = (slice(40, 100), slice(30, 70)), (slice(40, 100), slice(80, 120))


def lung(rows: slice, columns: slice, slices: slice = WHOLE, size: tuple[int, int] = (150, 150)) -> NDArray[np.bool_]:
    mask = np.zeros((20, *size), np.bool_)
    mask[slices, rows, columns] = True
    return mask


def box_of(
    right: NDArray[np.bool_] | None, left: NDArray[np.bool_] | None, mm: float = 2.0, stated: bool = True
) -> Box | None:
    """The box of slices of this spacing with these lungs; None: it is missing."""
    one = right if right is not None else left
    assert one is not None
    part = Part(range(len(one)), Box(0, one.shape[1], 0, one.shape[2]), (5.0, mm, mm), spacing_stated=stated)
    on_right, on_left = (PackedMask.from_slices(np.zeros_like(one) if side is None else side) for side in (right, left))
    return lung_boxes(on_right, on_left, part, FieldOfView.LUNGS)[8]


def test_around_whole_lungs_the_box_has_a_margin_of_8_mm_also_if_they_are_a_child_s() -> None:
    assert box_of(lung(*RIGHT), lung(*LEFT)) == Box(36, 104, 26, 124)
    assert box_of(lung(*RIGHT), lung(*LEFT), mm=0.5) == Box(24, 116, 14, 136)


def test_around_a_part_of_the_lungs_the_box_is_no_smaller_than_around_whole_ones() -> None:
    part = lung(*RIGHT, FROM_BELOW), lung(*LEFT, FROM_BELOW)
    box = box_of(*part, mm=1.6)
    assert box is not None
    assert (box.bottom - box.top) * 1.6 == pytest.approx(175, abs=1)
    assert (box.right - box.left) * 1.6 == pytest.approx(235, abs=1)
    assert box.top <= 35
    assert box.bottom >= 105
    assert box.mirrored == (0, 0, 0, 0)
    assert box_of(*part, mm=0.5) == Box(0, 150, 0, 150)  # the slice has no more
    assert box_of(*part, mm=1.6, stated=False) == Box(35, 105, 25, 125)


def test_the_margin_beyond_the_slice_is_mirrored() -> None:
    assert box_of(lung(slice(0, 60), slice(1, 70)), lung(slice(0, 60), slice(80, 150))) == Box(
        0, 64, 0, 150, mirrored=(4, 0, 3, 4)
    )


def test_where_a_lung_is_missing_the_box_has_the_width_of_two() -> None:
    assert box_of(lung(*RIGHT), None) == Box(36, 104, 26, 122)
    assert box_of(None, lung(*LEFT)) == Box(36, 104, 28, 124)


def test_what_of_that_width_lies_beyond_the_slice_is_mirrored() -> None:
    assert box_of(lung(*RIGHT, size=(150, 76)), None) == Box(36, 104, 26, 76, mirrored=(0, 0, 0, 46))
    assert box_of(None, lung(*RIGHT, size=(150, 76))) == Box(36, 104, 0, 74, mirrored=(0, 0, 22, 0))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.thorough
def test_one_lung_alone_in_a_real_field_of_view_lies_where_it_lies_in_a_whole_chest(
    upright: Phantom, side: str
) -> None:
    scan = axial(upright)
    middle = scan.values.shape[2] // 2
    columns = slice(0, middle) if side == "right" else slice(middle, None)
    box = next(box for box in find_lungs(part_of(scan, slice(None), slice(None), columns)).lung_field.boxes if box)
    width = box.right - box.left
    *_, before, behind = box.mirrored
    assert (behind if side == "right" else before) == pytest.approx(width, abs=0.2 * width)
    assert (before if side == "right" else behind) == 0


def test_slices_without_lung_have_no_box_and_the_others_share_one(phantom: Phantom) -> None:
    field, shown = find_lungs(phantom.scan).lung_field, np.flatnonzero(truth(phantom).any((1, 2)))
    assert field.boxes[0] is field.boxes[-1] is None
    assert len({field.boxes[z] for z in shown[4:-4]}) == len({box for box in field.boxes if box}) == 1


def test_a_picture_cut_to_the_lungs_is_searched_whole(upright: Phantom) -> None:
    lungs, hu = truth(upright)[14], axial(upright).values[14]
    rows, columns = (np.flatnonzero(lungs.any(axis)) for axis in (1, 0))
    cut = hu[rows[0] : rows[-1], columns[0] : columns[-1]]
    assert find_lungs(pictures(grey_levels(cut))).lung_field.boxes == (Box(0, cut.shape[0], 0, cut.shape[1]),)


def test_the_whole_slice_is_the_box_where_the_model_sees_whole_slices(phantom: Phantom) -> None:
    boxes = find_lungs(phantom.scan, FieldOfView.SLICE).lung_field.boxes
    assert {box for box in boxes if box} == {Box(0, 144, 0, 190)}
