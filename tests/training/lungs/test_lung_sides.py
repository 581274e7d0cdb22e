"""The labels of right and left lung."""

import numpy as np
import pytest
from scipy import ndimage

from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.packed_mask import PackedMask
from groundglass.training.lungs.lung_sides import assign_to_nearest_core, split_left_right


def test_lungs_that_touch_are_split() -> None:
    y, x = np.mgrid[:200, :280]
    lungs = [((x - column) / 40) ** 2 + ((y - 100) / 60) ** 2 < 1 for column in (85, 195)]
    lungs[0][60:75, 110:140] = lungs[1][60:75, 140:170] = True  # an anterior junction
    right = np.asarray(split_left_right(PackedMask.from_slices([lungs[0] | lungs[1]])))[0]
    assert 2 * (right & lungs[0]).sum() / (right.sum() + lungs[0].sum()) > 0.98


def test_a_single_lung_belongs_to_the_side_it_lies_on() -> None:
    lung = np.zeros((1, 40, 80), dtype=np.bool_)
    lung[0, 10:30, 50:70] = True
    assert not np.asarray(split_left_right(PackedMask.from_slices(lung))).any()
    assert np.array_equal(split_left_right(PackedMask.from_slices(lung[..., ::-1])), lung[..., ::-1])


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
        monkeypatch.setattr("groundglass.training.lungs.lung_sides.SLICES_AT_ONCE", at_once)
        found = assign_to_nearest_core(
            PackedMask.from_slices(lungs), regions, large, is_right, (slice(0, 12), slice(0, 30))
        )
        assert np.array_equal(found, lungs & (np.asarray(nearest)[2] < 15))
