import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.case import Case
from groundglass.data.case_files import read_case, read_case_with_notes
from groundglass.data.catalogue import find_cases
from groundglass.data.cutting import cut_case, letterbox_labels
from groundglass.data.mask_remarks import remark_on_place
from groundglass.errors import DatasetError
from groundglass.io import nifti
from groundglass.scan.crop import Letterbox
from groundglass.scan.geometry import Geometry
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan


def test_the_stack_as_published_is_cut_slice_by_slice_and_keeps_its_labels(phantom: Phantom, tmp_path: Path) -> None:
    shown = slice(8, 16)
    grid = Geometry((8, *phantom.scan.geometry.shape[1:]), phantom.scan.geometry.affine_lps)
    nifti.write_scan(Scan(phantom.scan.values[shown], grid), tmp_path / "tr_im.nii.gz")
    labels = phantom.lesions.voxels[shown].astype(np.uint8) * 3
    nifti.write_scan(Scan(labels, grid), tmp_path / "tr_mask.nii.gz")
    slices = cut_case(find_cases(tmp_path)[0], (96, 128))
    assert slices.number.tolist() == list(range(8))
    assert set(np.unique(slices.labels)) == {0, 3}
    assert slices.hu.dtype == np.int16
    assert np.median(slices.hu[slices.labels > 0]) == pytest.approx(-500, abs=150)


def write_case(folder: Path, image: Scan, mask: Scan, source: str = "mine") -> Case:
    for name, scan in (("ct", image), ("mask", mask)):
        nifti.write_scan(scan, folder / f"{name}.nii.gz")
    return Case(f"{source}/1", f"{source}/1", folder / "ct.nii.gz", folder / "mask.nii.gz")


def test_a_mask_half_a_millimetre_off_is_refused_and_a_rounded_affine_is_accepted(
    phantom: Phantom, tmp_path: Path
) -> None:
    labels, grid = phantom.lesions.voxels.astype(np.uint8), phantom.scan.geometry

    def moved(mm: float) -> Scan:
        affine = grid.affine_lps.copy()
        affine[2, 3] += mm
        return Scan(labels, Geometry(grid.shape, affine))

    with pytest.raises(DatasetError, match=r"lies elsewhere than its image \(.* from .*, .*, .* mm in LPS and "):
        read_case(write_case(tmp_path, phantom.scan, moved(0.5)))
    read_case(write_case(tmp_path, phantom.scan, moved(0.01)))


@pytest.mark.parametrize("flipped", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_mask_whose_axes_are_flipped_or_exchanged_at_the_right_place_is_turned(
    phantom: Phantom, tmp_path: Path, flipped: tuple[int, ...], order: tuple[int, ...]
) -> None:
    grid, affine = phantom.scan.geometry, phantom.scan.geometry.affine_lps.copy()
    for axis in flipped:
        affine[:3, 3] += affine[:3, axis] * (grid.shape[axis] - 1)
        affine[:3, axis] *= -1
    labels = np.flip(phantom.lesions.voxels, flipped).transpose(order).astype(np.uint8)
    mask = Scan(labels, Geometry(labels.shape, affine[:, [*order, 3]]))
    _, read = read_case(write_case(tmp_path, phantom.scan, mask))
    assert ((read > 0) == phantom.lesions.voxels).all()


def test_a_mask_that_is_flipped_to_another_place_is_refused_without_advice_that_would_mirror_it(
    phantom: Phantom, tmp_path: Path
) -> None:
    affine = phantom.scan.geometry.affine_lps.copy()
    affine[:3, 2] *= -1
    mask = Scan(phantom.lesions.voxels.astype(np.uint8), Geometry(phantom.lesions.geometry.shape, affine))
    with pytest.raises(DatasetError, match="resample the mask onto the image's grid or, if its voxels"):
        read_case(write_case(tmp_path, phantom.scan, mask))


def test_a_mask_of_another_shape_is_refused(phantom: Phantom, tmp_path: Path) -> None:
    grid = phantom.scan.geometry
    short = Scan(np.zeros((3, *grid.shape[1:]), np.uint8), Geometry((3, *grid.shape[1:]), grid.affine_lps))
    with pytest.raises(DatasetError, match=r"is 3 x 144 x 190 voxels, its image 32 x 144 x 190"):
        read_case(write_case(tmp_path, phantom.scan, short))


@pytest.mark.parametrize(
    ("source", "labels", "expected"),
    [
        ("volumes", (0, 1), {0, 1}),  # a MedSeg mask: all lesion is ground-glass
        ("mine", (0, 1), {0, 4}),  # any other mask of 0 and 1 states no class
        ("mine", (0, 255), {0, 4}),
        ("mine", (0, 2), {0, 2}),
        ("mine", (0, 1.002), {0, 4}),
    ],
)
def test_labels_state_a_class_only_in_medseg_or_beyond_0_and_1(
    phantom: Phantom, tmp_path: Path, source: str, labels: tuple[float, float], expected: set[int]
) -> None:
    mask = np.where(phantom.lesions.voxels, labels[1], labels[0]).astype(np.float32)
    _, read = read_case(write_case(tmp_path, phantom.scan, Scan(mask, phantom.scan.geometry), source))
    assert set(np.unique(read)) == expected
    assert ((read > 0) == phantom.lesions.voxels).all()


@pytest.mark.parametrize(("value", "shown"), [(7, "0, 7"), (1.5, r"0, 1\.5")])
def test_numbers_that_are_no_labels_are_refused(phantom: Phantom, tmp_path: Path, value: float, shown: str) -> None:
    mask = np.where(phantom.lesions.voxels, value, 0).astype(np.float32)
    with pytest.raises(DatasetError, match=f"holds {shown}…: expected 0 and 1"):
        read_case(write_case(tmp_path, phantom.scan, Scan(mask, phantom.scan.geometry)))


@pytest.mark.thorough
def test_a_mask_of_ones_is_refused_and_an_empty_mask_is_noted(phantom: Phantom, tmp_path: Path) -> None:
    grid = phantom.scan.geometry
    with pytest.raises(DatasetError, match="marks 100 % of all pixels"):
        cut_case(write_case(tmp_path, phantom.scan, Scan(np.ones(grid.shape, np.uint8), grid)), (48, 64))
    cut = cut_case(write_case(tmp_path, phantom.scan, Scan(np.zeros(grid.shape, np.uint8), grid)), (48, 64))
    assert cut.notes == ("the mask is empty",)
    assert (cut.lesion_slices, cut.pixels) == (0, {})


def test_a_lesion_out_of_view_is_noted(phantom: Phantom, tmp_path: Path) -> None:
    labels = phantom.lesions.voxels.astype(np.uint8)
    free = int(np.flatnonzero(~labels.any((1, 2)))[0])
    labels[free, 0, 0] = 1  # in a corner, far from any lung
    cut = cut_case(write_case(tmp_path, phantom.scan, Scan(labels, phantom.scan.geometry)), (48, 64))
    assert cut.notes == ("lesion out of view: 1 slice",)
    assert cut.lesion_slices == cut.labels.any((1, 2)).sum() + 1


@pytest.mark.thorough
def test_8_bit_pictures_keep_their_grey_levels_and_hu_their_values(phantom: Phantom, tmp_path: Path) -> None:
    grid, labels = phantom.scan.geometry, Scan(phantom.lesions.voxels.astype(np.uint8), phantom.scan.geometry)
    exact = cut_case(write_case(tmp_path, phantom.scan, labels), (96, 128))
    window = np.clip((phantom.scan.values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    grey = cut_case(write_case(tmp_path, Scan(window, grid), labels), (96, 128))
    assert (str(exact.levels.dtype), str(grey.levels.dtype)) == ("uint16", "uint8")
    assert (exact.hu == exact.levels.astype(int) - 2048).all()
    common, in_exact, in_grey = np.intersect1d(exact.number, grey.number, return_indices=True)
    assert len(common) >= max(len(exact.number), len(grey.number)) - 2  # the lungs' tips may be seen in one alone
    lungs = exact.hu[in_exact] < -500
    difference = np.abs(exact.hu[in_exact] - grey.hu[in_grey])[lungs]
    assert np.median(difference) < 60  # the window is estimated from two tissues


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda mask: np.roll(mask, mask.shape[2] // 5, axis=2), r"lies outside the lungs, \d\d % of it"),
        (lambda mask: mask[:, ::-1], r"is plain lung, -?\d+ HU denser than the lung around it"),
    ],
    ids=["shifted", "back to front"],
)
def test_a_mask_that_is_mirrored_or_shifted_under_the_right_affine_is_noted(
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], note: str, phantom: Phantom, tmp_path: Path
) -> None:
    mask = phantom.lesions.voxels.astype(np.uint8)
    start = "most of what is marked "
    assert not any(
        text.startswith(start)
        for text in cut_case(write_case(tmp_path, phantom.scan, Scan(mask, phantom.scan.geometry)), (48, 64)).notes
    )
    case = write_case(tmp_path, phantom.scan, Scan(np.ascontiguousarray(change(mask)), phantom.scan.geometry))
    (found,) = (text for text in cut_case(case, (48, 64)).notes if text.startswith(start))
    assert re.match(start + note + ": check that the mask is not mirrored or shifted", found)


@pytest.mark.parametrize("flipped", [(), (0, 2)])
def test_a_mask_that_was_cut_to_its_lesions_is_read_where_it_lies(
    phantom: Phantom, tmp_path: Path, flipped: tuple[int, ...]
) -> None:
    voxels, grid = phantom.lesions.voxels, phantom.scan.geometry
    places = np.nonzero(voxels)
    begin, end = [int(p.min()) for p in places], [int(p.max()) + 1 for p in places]
    part = voxels[tuple(map(slice, begin, end))]
    first = [length - 1 if axis in flipped else 0 for axis, length in enumerate(part.shape)]
    affine = grid.affine_lps @ np.diag([*(-1.0 if axis in flipped else 1.0 for axis in range(3)), 1.0])
    affine[:3, 3] = grid.position(np.add(begin, first).astype(float))
    mask = Scan(np.ascontiguousarray(np.flip(part, flipped)).astype(np.uint8), Geometry(part.shape, affine))
    case = write_case(tmp_path, phantom.scan, mask)
    _, labels, notes = read_case_with_notes(case)
    assert ((labels > 0) == voxels).all()
    assert notes == ("the mask covers a part of its image: outside that no lesion is taken",)
    affine[:3, 3] += 0.4 * affine[:3, 2]  # between the voxels of the image
    with pytest.raises(DatasetError, match=r"voxels, its image .*: expected the same grid; resample the mask"):
        read_case(write_case(tmp_path, phantom.scan, Scan(mask.values, Geometry(part.shape, affine))))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_mask_that_mirroring_puts_onto_other_lesions_is_noted(axes: tuple[int, ...]) -> None:
    lung = PackedMask.from_slices(np.ones((20, 40, 60), bool))
    lungs = LungField(lung, PackedMask.from_slices(np.zeros((20, 40, 60), bool)), (None,) * 20)
    dense, pale = np.zeros(lung.shape, bool), np.zeros(lung.shape, bool)
    dense[1:5, 3:12, 2:20] = True
    pale[:] = np.flip(dense, axes)
    hu = np.full(lung.shape, -850, np.float32) + 300 * dense + 100 * pale
    shares = {"lung": 0.1}
    (note,) = remark_on_place(lungs, hu, pale, shares)
    assert note.startswith("most of what is marked is less dense than what its mirror image would mark: check that the")
    assert remark_on_place(lungs, hu, dense, shares) == ()
    assert remark_on_place(lungs, hu, dense | pale, shares) == ()
    assert remark_on_place(lungs, hu, pale, {"lung": 0.001}) == ()  # a small lesion, perhaps opposite a vessel


def test_the_field_of_view_may_be_the_whole_slice(phantom: Phantom, tmp_path: Path) -> None:
    case = write_case(tmp_path, phantom.scan, Scan(phantom.lesions.voxels.astype(np.uint8), phantom.scan.geometry))
    lungs, whole = (cut_case(case, (72, 95), view) for view in FieldOfView)
    assert (lungs.number == whole.number).all()
    assert (whole.labels > 0).mean() < (lungs.labels > 0).mean()
    assert np.abs(whole.hu[5, ::8, ::8] - phantom.scan.values[whole.number[5], ::16, ::16]).mean() < 150


def test_slices_without_lesion_can_be_left_out(phantom: Phantom, tmp_path: Path) -> None:
    case = write_case(tmp_path, phantom.scan, Scan(phantom.lesions.voxels.astype(np.uint8), phantom.scan.geometry))
    cut = cut_case(case, (48, 64), lesion_slices_only=True)
    assert len(cut.number) == cut.lesion_slices == phantom.lesions.voxels.any((1, 2)).sum()


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (33, 57)])
def test_inverting_a_letterbox_restores_the_box(size: tuple[int, int]) -> None:
    plane = np.zeros((120, 150), np.float32)
    plane[50:80, 60:100] = 1
    box = Box(20, 100, 30, 140)
    letterbox = Letterbox(box, size)
    scaled = letterbox.apply(plane, -7.0)
    assert scaled.shape == size
    restored = letterbox.invert(scaled)
    assert restored.shape == (80, 110)
    assert np.abs((restored > 0.5).astype(float) - plane[20:100, 30:140]).mean() < 0.02


def test_the_smallest_lesion_in_the_box_is_kept_and_lesions_outside_it_are_not() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[21, 22] = 2
    letterbox = Letterbox(Box(0, 40, 0, 40), (8, 8))
    scaled = letterbox_labels(letterbox, labels)
    assert 1 <= (scaled == 2).sum() <= 4
    assert scaled[4, 4] == 2
    outside = np.zeros((40, 40), np.uint8)
    outside[0, 0] = 1
    assert not letterbox_labels(Letterbox(Box(10, 40, 10, 40), (8, 8)), outside).any()


def test_a_pixel_takes_the_label_that_covers_most_of_it() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:20], labels[20:30] = 1, 2
    scaled = letterbox_labels(Letterbox(Box(0, 40, 0, 40), (8, 8)), labels)
    assert scaled[:, 4].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]
