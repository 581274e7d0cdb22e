import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.components import (
    CONNECTIVITY_6,
    CONNECTIVITY_8_IN_SLICE,
    CONNECTIVITY_26,
    ConnectedComponents,
    find_components,
)
from groundglass.scan.packed_mask import PackedMask

STRUCTURES = {"faces": CONNECTIVITY_6, "corners": CONNECTIVITY_26, "in slice": CONNECTIVITY_8_IN_SLICE}


def whole(regions: ConnectedComponents) -> NDArray[np.int32]:
    numbers = np.zeros(regions.mask.shape, dtype=np.int32)
    for plane, (place, found) in zip(numbers, regions, strict=True):
        plane[place] = found
    return numbers


@pytest.mark.parametrize("connected", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("share", [0.02, 0.15, 0.4, 0.7])
@pytest.mark.parametrize("shape", [(1, 30, 40), (12, 21, 17), (40, 9, 8), (9, 60, 4)])
def test_they_are_those_of_scipy(shape: tuple[int, ...], share: float, connected: NDArray[np.bool_]) -> None:
    mask = np.random.default_rng(int(100 * share)).random(shape) < share
    mask[len(mask) // 2] &= len(mask) > 9  # a slice without any
    expected, count = ndimage.label(mask, connected)
    for given in (mask, PackedMask.from_slices(mask)):
        found = find_components(given, connected)
        assert np.array_equal(whole(found), expected)
        assert np.array_equal(found.sizes[1:], np.bincount(expected.ravel(), minlength=count + 1)[1:])


def test_those_that_are_wanted_are_kept() -> None:
    mask = np.random.default_rng(1).random((8, 20, 30)) < 0.3
    expected, count = ndimage.label(mask, CONNECTIVITY_6)
    wanted = np.arange(count + 1) % 3 == 0  # 0, the outside, is none
    kept = np.asarray(find_components(mask, CONNECTIVITY_6).select(wanted))
    assert np.array_equal(kept, mask & (expected % 3 == 0))


def test_an_empty_mask_has_none() -> None:
    found = find_components(np.zeros((3, 5, 6), dtype=np.bool_), CONNECTIVITY_26)
    assert found.sizes.tolist() == [0]
    assert not whole(found).any()
    assert not np.asarray(found.select(np.ones(1, dtype=np.bool_))).any()
