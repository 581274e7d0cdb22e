import itertools
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import orientations
from numpy.typing import NDArray

from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.packed_mask import PackedMask

AXES = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]
SHAPE, SPACING = (4, 5, 6), (5.0, 0.8, 0.7)
NIBABEL = tuple(int(number) for number in version("nibabel").split(".")[:2])


def reordered(order: tuple[int, ...], signs: tuple[float, ...], tilt_degrees: float = 0.0) -> Geometry:
    """Array axis i runs along LPS axis order[i], forwards or backwards, on a grid tilted about L."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * SPACING[axis]
    c, s = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    affine[:3, 3] = (-120.0, -90.0, 33.0)
    return Geometry(SHAPE, affine)


def centroid_mm(marked: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    centre: NDArray[np.float64] = geometry.position(np.argwhere(marked).astype(np.float64)).mean(axis=0)
    return centre


def test_spacing_volume_and_positions_equal_hand_computed_ones() -> None:
    affine = np.array([[0, 0, -0.5, 100], [0, 0.5, 0, -80], [4.0, 0, 0, 20], [0, 0, 0, 1]])
    geometry = Geometry((10, 20, 30), affine)
    assert repr(geometry) == "Geometry(10 x 20 x 30 voxels (z, y, x) of 4 x 0.5 x 0.5 mm)"
    assert geometry.spacing == (4.0, 0.5, 0.5)
    assert geometry.voxel_ml == pytest.approx(0.001)  # 4 x 0.5 x 0.5 = 1 cubic millimetre
    np.testing.assert_array_equal(geometry.position((2, 3, 4)), [98.0, -78.5, 28.0])
    np.testing.assert_array_equal(
        geometry.affine_ras, [[0.5, 0, 0, -100], [0, -0.5, 0, 80], [0, 0, 4, 20], [0, 0, 0, 1]]
    )


def test_a_sheared_voxel_has_the_volume_of_its_parallelepiped() -> None:
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[0, 1] = 3.0  # the second edge leans by 3 mm: longer, but no more volume
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.voxel_ml == pytest.approx(1.0)
    assert geometry.spacing[1] == pytest.approx(np.sqrt(109))
    assert geometry.is_sheared
    assert not reordered((1, 2, 0), (1.0, -1.0, 1.0), 20.0).is_sheared


def test_pictures_have_no_volume() -> None:
    geometry = Geometry.pixels((1, 300, 400))
    assert geometry.voxel_ml is None
    assert repr(geometry) == "Geometry(1 x 300 x 400 voxels (z, y, x) of 1 x 1 x 1 px)"


def test_matches_compares_shape_and_every_corner() -> None:
    geometry = reordered((2, 1, 0), (1.0, 1.0, 1.0))
    near, far, rotated = (geometry.affine_lps.copy() for _ in range(3))
    near[0, 3] += 0.0009
    far[0, 3] += 0.0011
    rotated[0, 2] += 0.001  # the far corner, 5 steps on, is 0.005 mm away though the origin is the same
    assert geometry.matches(Geometry(SHAPE, near))
    assert not geometry.matches(Geometry(SHAPE, far))
    assert not geometry.matches(Geometry(SHAPE, rotated))
    assert not geometry.matches(Geometry((4, 5, 7), geometry.affine_lps))


def test_the_affine_cannot_be_changed() -> None:
    affine = np.eye(4)
    geometry = Geometry((1, 2, 3), affine)
    affine[0, 3] = 7
    assert geometry.affine_lps[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine_lps[0, 3] = 7


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "finite 4x4 matrix"),
        (np.full((4, 4), np.nan), "finite 4x4 matrix"),
        (np.diag([1.0, 0, 1, 1]), "onto a plane"),
        (np.diag([1.0, 1e-200, 1, 1]), "onto a plane"),
    ],
)
def test_degenerate_affines_are_refused(affine: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry((1, 2, 3), affine)


@pytest.mark.parametrize("tilt", [0.0, 20.0], ids=["upright", "tilted"])
@pytest.mark.parametrize(("order", "signs"), AXES)
def test_the_axial_view_is_upright_and_invertible_for_every_permutation_and_flip(
    order: tuple[int, ...], signs: tuple[float, ...], tilt: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.scan.geometry.SLICES_AT_ONCE", 2)
    geometry = reordered(order, signs, tilt)
    array = np.random.default_rng(0).integers(0, 1000, SHAPE)
    bright = array > 500
    for view in (AxialView(geometry, transposed=True), AxialView(geometry)):
        upright = view.to_axial(array)
        assert upright.shape == view.geometry.shape
        np.testing.assert_array_equal(view.from_axial(upright), array)
        for slices in (view.to_axial(bright), PackedMask.from_slices(view.to_axial(bright))):
            np.testing.assert_array_equal(np.stack(list(view.source_slices(slices))), bright)
        # Every voxel keeps its position in the patient.
        for index in [(0, 0, 0), (1, 2, 3), (3, 4, 5)]:
            marked = np.zeros(SHAPE)
            marked[index] = 1
            np.testing.assert_allclose(
                centroid_mm(view.to_axial(marked), view.geometry), geometry.position(index), rtol=0, atol=1e-9
            )
    # Axis 0 runs towards the head, axis 1 to the back, axis 2 to the left.
    axes = view.geometry.affine_lps[:3, :3]
    assert axes[2, 0] > 0
    assert axes[1, 1] > 0
    assert axes[0, 2] > 0


@given(
    st.sampled_from(AXES),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.floats(-44, 44),
)
def test_reordering_and_ras_round_trip_for_any_size(
    axes: tuple[tuple[int, ...], tuple[float, ...]], shape: tuple[int, int, int], tilt: float
) -> None:
    geometry = Geometry(shape, reordered(*axes, tilt).affine_lps)
    array = np.arange(np.prod(shape)).reshape(shape)
    view = AxialView(geometry)
    np.testing.assert_array_equal(view.from_axial(view.to_axial(array)), array)
    assert Geometry.from_ras(shape[::-1], geometry.affine_ras).matches(geometry, 1e-9)


def test_the_axes_of_a_view_are_those_that_nibabel_finds() -> None:
    rng = np.random.default_rng(5)
    shape, array = (3, 4, 5), np.arange(60).reshape(3, 4, 5)
    for _ in range(300):
        affine = np.eye(4)
        affine[:3, :3] = (
            np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.3, 6, 3) + rng.normal(size=(3, 3)) / 20
        )
        left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
        if len(set(np.abs(left @ right).argmax(axis=0))) < 3 and NIBABEL < (5, 4):
            continue  # two axes lie nearest to one direction of the body: it took the first one, and now the nearer
        view = AxialView(Geometry(shape, affine))
        theirs = orientations.ornt_transform(
            orientations.io_orientation(affine), orientations.axcodes2ornt(("S", "A", "R"))
        )
        np.testing.assert_array_equal(view.to_axial(array), orientations.apply_orientation(array, theirs))
        np.testing.assert_array_equal(view.from_axial(view.to_axial(array)), array)
        np.testing.assert_allclose(view.geometry.affine_lps, affine @ orientations.inv_ornt_aff(theirs, shape))
