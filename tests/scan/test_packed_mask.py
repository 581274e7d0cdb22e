import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.scan.packed_mask import PackedMask, shared_voxels_per_slice, voxels_per_slice

RNG = np.random.default_rng(0)
MASK = RNG.random((5, 13, 21)) < 0.3
MASK[1] = False
MASK[2] = True
MASK[3, :4], MASK[3, :, 15:] = False, False


@pytest.mark.parametrize("volume", [MASK, MASK * RNG.integers(0, 5, MASK.shape, dtype=np.uint8), ~MASK[:1], MASK[1:2]])
def test_packing_is_lossless_for_every_access(volume: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
    packed = PackedMask.from_slices(volume)
    assert packed.shape == volume.shape
    assert len(packed) == len(volume)
    whole = np.asarray(packed)
    assert whole.dtype == volume.dtype
    assert np.array_equal(whole, volume)
    assert np.array_equal(np.asarray(packed, dtype=np.int32), volume)
    assert np.array_equal(np.stack(list(packed)), volume)
    assert np.array_equal(voxels_per_slice(packed), np.count_nonzero(volume, axis=(1, 2)))
    for z in range(len(volume)):
        assert packed.slices[z].foreground.unpacked().dtype == np.bool_
        assert np.array_equal(packed.slices[z].foreground.unpacked(), volume[z] > 0)
        assert packed[z].dtype == volume.dtype
        assert np.array_equal(packed[z], volume[z])
        for box in ((slice(2, 9), slice(5, 20)), packed.slices[z].box or (slice(0, 0), slice(0, 0))):
            assert packed[z, *box].dtype == volume.dtype
            assert np.array_equal(packed[z, *box], volume[z, *box])


def test_shared_voxels_are_counted_slice_by_slice() -> None:
    few = MASK & (RNG.random(MASK.shape) < 0.1)
    few[3] = False
    expected = np.count_nonzero(few & MASK[::-1], axis=(1, 2))
    assert expected.any()
    assert not expected[3]
    for one, other in ((few, MASK[::-1]), (MASK[::-1], few)):
        assert np.array_equal(shared_voxels_per_slice(one, other), expected)
        packed = PackedMask.from_slices(one), PackedMask.from_slices(other)
        assert np.array_equal(shared_voxels_per_slice(*packed), expected)


def test_a_packed_mask_needs_an_eighth_of_the_bytes_and_shares_no_array() -> None:
    packed = PackedMask.from_slices(MASK)
    assert sum(row.nbytes for plane in packed.slices for row in plane.bits) <= MASK.size / 8 + len(MASK)
    packed[2][:] = False
    assert packed[2].all()
    with pytest.raises(ValueError, match="no array to share"):
        np.array(packed, copy=False)
