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

CONNECTIVITIES = {"6": CONNECTIVITY_6, "26": CONNECTIVITY_26, "8 in slice": CONNECTIVITY_8_IN_SLICE}


def label_volume(regions: ConnectedComponents) -> NDArray[np.int32]:
    labels = np.zeros(regions.mask.shape, dtype=np.int32)
    for plane, (box, in_box) in zip(labels, regions, strict=True):
        plane[box] = in_box
    return labels


@pytest.mark.parametrize("connectivity", CONNECTIVITIES.values(), ids=CONNECTIVITIES)
@pytest.mark.parametrize("share", [0.02, 0.15, 0.4, 0.7])
@pytest.mark.parametrize("shape", [(1, 30, 40), (12, 21, 17), (40, 9, 8), (9, 60, 4)])
def test_labels_and_sizes_equal_those_of_scipy(
    shape: tuple[int, ...], share: float, connectivity: NDArray[np.bool_]
) -> None:
    mask = np.random.default_rng(int(100 * share)).random(shape) < share
    mask[len(mask) // 2] &= len(mask) > 9  # a slice without any
    expected, count = ndimage.label(mask, connectivity)
    for given in (mask, PackedMask.from_slices(mask)):
        found = find_components(given, connectivity)
        assert np.array_equal(label_volume(found), expected)
        assert np.array_equal(found.sizes[1:], np.bincount(expected.ravel(), minlength=count + 1)[1:])


def test_select_keeps_the_chosen_regions() -> None:
    mask = np.random.default_rng(1).random((8, 20, 30)) < 0.3
    expected, count = ndimage.label(mask, CONNECTIVITY_6)
    keep = np.arange(count + 1) % 3 == 0  # entry 0, the background, has no effect
    selected = np.asarray(find_components(mask, CONNECTIVITY_6).select(keep))
    assert np.array_equal(selected, mask & (expected % 3 == 0))


def test_an_empty_mask_has_no_regions() -> None:
    found = find_components(np.zeros((3, 5, 6), dtype=np.bool_), CONNECTIVITY_26)
    assert found.sizes.tolist() == [0]
    assert not label_volume(found).any()
    assert not np.asarray(found.select(np.ones(1, dtype=np.bool_))).any()
