"""What is lung once lesions are known, and which lesions lie outside."""

import numpy as np

from groundglass.inference.lungs.finding import find_lungs
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.phantom import chest_phantom


def test_lesions_that_touch_no_lung_are_removed_and_not_included() -> None:
    field = find_lungs(chest_phantom(3, shape=(32, 144, 190), oblique=False).scan).lung_field
    found = np.zeros(field.mask.shape, bool)
    found[14, -4:, 10:30] = True  # on the table
    in_lung = np.argwhere(np.asarray(field.right)[14])[400]
    found[14, in_lung[0] : in_lung[0] + 4, in_lung[1] : in_lung[1] + 4] = True
    kept = np.asarray(field.remove_extrapulmonary(found))
    assert kept[14, in_lung[0], in_lung[1]]
    assert not kept[14, -4:].any()
    assert np.array_equal(field.including_lesions(found & ~kept).mask, field.mask)


def test_a_dense_lesion_at_the_rim_is_part_of_the_lung_once_it_is_segmented() -> None:
    lung = np.zeros((1, 60, 60), np.bool_)
    lung[0, 10:40, 10:50] = True
    lesion = np.zeros_like(lung)
    lesion[0, 38:48, 20:40] = True
    joined = LungField(lung, np.zeros_like(lung), (None,)).including_lesions(lesion)
    assert (np.asarray(joined.right) & lesion).sum() == lesion.sum()


def test_a_lesion_beside_the_lung_touches_it_whatever_else_was_found() -> None:
    lung = np.zeros((1, 60, 60), np.bool_)
    lung[0, 10:40, 10:50] = True
    field = LungField(lung, np.zeros_like(lung), (None,))
    beside = np.zeros_like(lung)
    beside[0, 41:48, 20:40] = True  # one row apart, and all that was found
    assert np.array_equal(field.remove_extrapulmonary(beside), beside)
    beyond = np.roll(beside, 3, axis=1)
    assert not np.asarray(field.remove_extrapulmonary(beyond)).any()


def test_without_lungs_every_lesion_is_extrapulmonary() -> None:
    nothing = np.zeros((1, 4, 4), bool)
    field = LungField(nothing, nothing, (None,))
    assert not voxels_per_slice(field.remove_extrapulmonary(~nothing)).any()


def test_regions_of_fewer_voxels_than_the_smallest_are_removed() -> None:
    lung = np.ones((3, 40, 40), np.bool_)
    field = LungField(lung, np.zeros_like(lung), (None,) * 3)
    found = np.zeros_like(lung)
    found[0, 5:8, 5:8] = True  # 9 voxels
    found[:, 20:22, 20:22] = True  # 12 in three slices
    kept = np.asarray(field.remove_extrapulmonary(found, smallest=9.5))
    assert kept.sum() == 12
    assert kept[:, 20, 20].all()
    assert np.array_equal(field.remove_extrapulmonary(found, smallest=9), found)
