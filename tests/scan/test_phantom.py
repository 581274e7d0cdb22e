import numpy as np
import pytest

from groundglass.scan.geometry import AxialView
from groundglass.scan.phantom import Phantom, chest_phantom


def test_the_same_seed_makes_the_same_chest() -> None:
    shape = (10, 72, 95)
    first, again, other = (chest_phantom(seed, shape) for seed in (1, 1, 2))
    assert (first.scan.values == again.scan.values).all()
    assert (first.lesions.voxels == again.lesions.voxels).all()
    assert (first.lesions.voxels != other.lesions.voxels).any()


def test_the_phantom_has_the_tissues_of_a_chest_in_hu(phantom: Phantom) -> None:
    hu, lungs, lesions = phantom.scan.values, phantom.lungs.voxels, phantom.lesions.voxels
    assert hu.dtype == np.int16
    assert np.median(hu[lungs & ~lesions]) == pytest.approx(-865, abs=40)
    assert -650 < np.median(hu[lesions]) < -350
    for tissue in (-1000, 45):
        assert (np.abs(hu - tissue) < 60).mean() > 0.1
    assert hu.max() > 350


def test_the_lesions_are_in_the_lungs_on_both_sides(phantom: Phantom) -> None:
    view = AxialView(phantom.scan.geometry)
    lesions = view.to_axial(phantom.lesions.voxels)
    assert not (phantom.lesions.voxels & ~phantom.lungs.voxels).any()
    middle = lesions.shape[2] // 2
    assert lesions[..., :middle].any()
    assert lesions[..., middle:].any()


def test_volumes_are_the_same_at_every_resolution() -> None:
    coarse, fine = chest_phantom(shape=(24, 96, 128)), chest_phantom(shape=(48, 144, 190))
    assert coarse.lungs.volume_ml == pytest.approx(fine.lungs.volume_ml, rel=0.05)
    assert 2500 < (fine.lungs.volume_ml or 0) < 4500


def test_the_grid_is_oblique_and_anisotropic(phantom: Phantom) -> None:
    axes = phantom.scan.geometry.affine_lps[:3, :3]
    assert (np.abs(axes) > 1e-3).sum() > 5
    dz, dy, dx = phantom.scan.geometry.spacing
    assert dz > 3 * dy
    assert np.allclose(axes.T @ axes, np.diag([dz**2, dy**2, dx**2]), atol=1e-6)
