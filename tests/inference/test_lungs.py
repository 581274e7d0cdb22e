from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.data.catalogue import find_cases, select
from groundglass.data.slices import read_case
from groundglass.errors import LungError
from groundglass.inference.lung_sides import assign_to_nearest_core
from groundglass.inference.lungs import find_lungs_in_images, find_lungs_in_volume
from groundglass.io.reader import read_scan
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import recognise_intensity
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import MaskSlices, PackedMask, voxels_per_slice
from groundglass.scan.phantom import Phantom

GRID = Geometry((1, 200, 280), np.diag([5.0, 1.25, 1.25, 1.0])[:, [2, 1, 0, 3]])


def chest_slice() -> NDArray[np.float32]:
    """(1, 200, 280): an upright slice of a body with two lungs; lungs at columns 45..125 and 155..235."""
    y, x = np.mgrid[:200, :280].astype(np.float32)
    hu = np.full((200, 280), -1000, np.float32)
    hu[((x - 140) / 125) ** 2 + ((y - 100) / 85) ** 2 < 1] = 50
    for column in (85, 195):
        hu[((x - column) / 40) ** 2 + ((y - 100) / 60) ** 2 < 1] = -860
    hu[192:196] = 0  # the table
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    return hu[None]


def truth(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    y, x = np.mgrid[:200, :280]
    sides = [((x - column) / 40) ** 2 + ((y - 100) / 60) ** 2 < 1 for column in (85, 195)]
    return np.asarray(sides[0] | sides[1])[None]


def dice(found: MaskSlices, b: NDArray[np.bool_]) -> float:
    a = np.asarray(found)
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_both_lungs_are_found_each_on_its_own_side() -> None:
    hu = chest_slice()
    field = find_lungs_in_volume(hu, GRID)
    assert dice(field.mask, truth(hu)) > 0.98
    assert dice(field.right, truth(hu) & (np.arange(280) < 140)) > 0.98  # at the image's left
    assert not (np.asarray(field.right) & np.asarray(field.left)).any()


def test_the_lung_includes_a_dense_lesion_inside_it() -> None:
    hu = chest_slice()
    hu[0, 90:104, 78:92] = 40
    assert find_lungs_in_volume(hu, GRID).mask[0, 90:104, 78:92].all()


def test_a_dense_lesion_at_the_rim_is_part_of_the_lung_once_it_is_segmented() -> None:
    hu = chest_slice()
    lesion = truth(hu) & (np.mgrid[:200, :280][0] > 125)[None] & (np.arange(280) < 140)
    hu[lesion] = 40
    field = find_lungs_in_volume(hu, GRID)
    assert (field.mask & lesion).sum() < 0.5 * lesion.sum()
    joined = field.including_lesions(lesion)
    assert (joined.right & lesion).sum() == lesion.sum()
    assert dice(joined.mask, truth(hu)) > 0.97


def test_lesions_that_touch_no_lung_are_removed_and_not_included() -> None:
    hu = chest_slice()
    field = find_lungs_in_volume(hu, GRID)
    found = np.zeros(hu.shape, bool)
    found[0, 193:196, 10:30] = True  # on the table
    found[0, 90:100, 80:90] = True  # in the lung
    kept = np.asarray(field.remove_extrapulmonary(found))
    assert kept[0, 90:100, 80:90].all()
    assert not kept[0, 190:].any()
    assert np.array_equal(field.including_lesions(found).mask, field.mask)


def test_gas_in_bowel_and_airway_is_not_lung() -> None:
    hu = chest_slice()
    hu[0, 60:72, 134:146] = -995  # airway
    hu[0, 130:160, 130:150] = -995  # stomach
    field = find_lungs_in_volume(hu, GRID)
    assert not field.mask[0, 62:70, 136:144].any()
    assert not field.mask[0, 134:156, 134:146].any()
    assert dice(field.mask, truth(hu)) > 0.97


def test_padding_around_the_reconstruction_is_outside_the_body() -> None:
    hu = chest_slice()
    y, x = np.mgrid[:200, :280]
    hu[0][((x - 140) / 139) ** 2 + ((y - 100) / 99) ** 2 > 1] = -3024
    assert dice(find_lungs_in_volume(hu, GRID).mask, truth(hu)) > 0.97


def test_an_image_cropped_to_the_lungs_is_searched_whole() -> None:
    hu = chest_slice()[:, 45:155, 50:230].copy()  # through both lungs on all sides
    field = find_lungs_in_images(hu, Geometry.pixels(hu.shape), (hu.shape[1:],))
    assert field.boxes == (Box(0, 110, 0, 180),)
    assert dice(field.mask, truth(hu)[:, 45:155, 50:230]) > 0.95
    assert any("convention by assumption" in warning for warning in field.warnings)


def test_images_of_two_sizes_get_boxes_inside_their_own_size() -> None:
    small = chest_slice()[:, 20:190, 10:270]
    stack = np.full((2, 200, 280), -1000, np.float32)
    stack[0], stack[1, :170, :260] = chest_slice()[0], small[0]
    field = find_lungs_in_images(stack, Geometry.pixels(stack.shape), ((200, 280), (170, 260)))
    box = field.boxes[1]
    assert box is not None
    assert box.bottom <= 170
    assert box.right <= 260
    assert dice(field.mask[1, :170, :260], truth(small)[0, 20:190, 10:270]) > 0.97


def test_touching_lungs_are_split() -> None:
    hu = chest_slice()
    hu[0, 60:75, 110:170] = -860  # an anterior junction
    field = find_lungs_in_volume(hu, GRID)
    assert voxels_per_slice(field.right).sum() == pytest.approx(voxels_per_slice(field.left).sum(), rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_core_does_not_depend_on_how_many_slices_are_searched(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is the distance transform of the whole volume, also where two cores are equally near."""
    rng = np.random.default_rng(seed)
    cores = np.zeros((40, 12, 30), dtype=np.bool_)
    cores[rng.integers(0, 8) :: 9, 3:9, 3:9] = cores[rng.integers(0, 15) :: 16, 3:9, 20:26] = True
    lungs = cores | (rng.random(cores.shape) < 0.2)
    regions = find_components(cores, CONNECTIVITY_6)
    large = np.arange(1, len(regions.sizes))
    is_right = regions.centroids(large)[:, 2] < 15
    sampling = (4.0, 1.0, 1.0)
    nearest = ndimage.distance_transform_edt(~cores, sampling, return_distances=False, return_indices=True)
    for at_once in (1, 4, 100):
        monkeypatch.setattr("groundglass.inference.lung_sides.SLICES_AT_ONCE", at_once)
        found = assign_to_nearest_core(
            PackedMask.from_slices(lungs), regions, large, is_right, (slice(0, 12), slice(0, 30))
        )
        assert np.array_equal(found, lungs & (np.asarray(nearest)[2] < 15))


def test_a_single_lung_is_accepted_with_a_warning() -> None:
    hu = chest_slice()
    hu[..., 140:][hu[..., 140:] < -500] = 30
    hu[0][(np.mgrid[:200, :280][1] > 265)] = -1000
    field = find_lungs_in_volume(hu, GRID)
    assert voxels_per_slice(field.right).any()
    assert any("no left lung" in warning for warning in field.warnings)


def test_a_scan_without_lung_is_refused() -> None:
    hu = np.full((3, 200, 280), -1000, np.float32)
    hu[:, 40:160, 40:240] = 40
    geometry = Geometry((3, 200, 280), GRID.affine_lps)
    with pytest.raises(LungError, match=r"no lung was found: expected .*--intensity"):
        find_lungs_in_volume(hu, geometry)


def test_slices_without_lung_have_no_box_and_the_others_share_one() -> None:
    hu = np.repeat(chest_slice(), 9, axis=0)
    hu[:3][hu[:3] < -500] = 40
    field = find_lungs_in_volume(hu, Geometry((9, 200, 280), GRID.affine_lps))
    assert field.boxes[:2] == (None, None)
    assert len(set(field.boxes[3:])) == 1


def test_a_scan_that_does_not_cover_the_lungs_has_a_warning() -> None:
    hu = np.repeat(chest_slice(), 4, axis=0)
    warnings = find_lungs_in_volume(hu, Geometry((4, 200, 280), GRID.affine_lps)).warnings
    assert any("does not cover them whole" in warning for warning in warnings)


def test_the_lungs_of_the_phantom_are_found_and_boxes_hold_its_lesions(phantom: Phantom) -> None:
    view = AxialView(phantom.scan.geometry)
    field = find_lungs_in_volume(view.to_axial(phantom.scan.values).astype(np.float32), view.geometry)
    lungs, lesions = view.to_axial(phantom.lungs.voxels), view.to_axial(phantom.lesions.voxels)
    assert dice(field.including_lesions(lesions).mask, lungs) > 0.97
    assert field.warnings == ()
    for z, box in enumerate(field.boxes):
        outside = lesions[z].copy()
        if box:
            outside[box.top : box.bottom, box.left : box.right] = False
        assert not outside.any()


def test_without_lungs_every_lesion_is_extrapulmonary() -> None:
    nothing = np.zeros((1, 4, 4), bool)
    field = LungField(nothing, nothing, (None,))
    assert not voxels_per_slice(field.remove_extrapulmonary(~nothing)).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["volumes/1", "volumes/3", "volumes/9"])
def test_the_lungs_of_real_scans_agree_with_the_reference(data: Path, name: str) -> None:
    (case,) = select(find_cases(data), [name])
    scan, labels = read_case(case)
    view = AxialView(scan.geometry)
    lesions = view.to_axial(labels) > 0
    hu = recognise_intensity(scan).to_hu(view.to_axial(scan.values))
    field = find_lungs_in_volume(hu, view.geometry).including_lesions(lesions)
    reference = view.to_axial(read_scan(case.image.parent.parent / "rp_lung_msk" / case.image.name).values) > 0
    assert dice(field.mask, reference) > 0.94
    assert voxels_per_slice(field.mask).sum() == pytest.approx(reference.sum(), rel=0.1)
