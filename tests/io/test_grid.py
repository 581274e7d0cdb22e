"""A grid that was never set, or that makes no chest, leaves volumes and sides unknown, in every format."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from groundglass.apps.info import describe_input
from groundglass.inference.segmenter import Segmenter
from groundglass.io.grid import NEVER_SET, NO_DIRECTIONS
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.scan.geometry import AxialView
from groundglass.scan.phantom import Phantom, chest_phantom

nibabel: Any = nib
UNSET = ["identity", "no affine", "mirrored identity", "itk.nii.gz", "itk.mha", "itk.nrrd"]


@pytest.fixture(scope="module")
def upright() -> Phantom:
    """A chest whose array is upright: z to the head, y to the back, x to the left."""
    return chest_phantom(shape=(28, 144, 190), oblique=False)


def save_nifti(path: Path, values_xyz: NDArray[Any], affine: NDArray[np.float64] | None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values_xyz, affine), path)
    return path


def write(folder: Path, values: NDArray[Any], how: str) -> Path:
    if how.startswith("itk"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(folder / how))
        return folder / how
    affines = {"identity": np.eye(4), "mirrored identity": np.diag([-1.0, -1, 1, 1]), "no affine": None}
    return save_nifti(folder / "ct.nii.gz", values.T, affines[how])


def analysis_of(path: Path, segmenter: Segmenter) -> Analysis:
    return segment(read_scan(path), segmenter)


def agreement(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice of two masks."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.fixture(scope="module")
def reference(upright: Phantom, grey_band: Segmenter) -> Analysis:
    """The analysis of the chest on its own grid."""
    return segment(upright.scan, grey_band)


@pytest.mark.parametrize(("distances_mm", "known"), [((1.5, 0.001), False), ((0.02, 2), False), ((1.5, 0.2), True)])
def test_voxels_that_lie_nearer_than_any_scanner_puts_them_have_no_known_volume(
    tmp_path: Path, distances_mm: tuple[float, float], known: bool
) -> None:
    affine = np.diag([-1.5, *distances_mm, 1])
    scan = read_scan(save_nifti(tmp_path / "ct.nii", np.zeros((200, 200, 4), np.int16), affine))
    assert (scan.geometry.voxel_ml is not None) == known
    assert any("make no chest of these slices" in note for note in scan.notes) != known


@pytest.mark.parametrize("how", UNSET)
@pytest.mark.thorough
def test_a_grid_that_was_never_set_leaves_volumes_and_sides_unknown(
    upright: Phantom, reference: Analysis, tmp_path: Path, how: str, grey_band: Segmenter
) -> None:
    path = write(tmp_path, upright.scan.values, how)
    found = analysis_of(path, grey_band)
    findings = found.findings
    assert NEVER_SET in findings.warnings
    assert (findings.lesion_volume_ml, findings.lung_volume_ml, findings.input.spacing_mm) == (None, None, None)
    assert findings.right_lung.lesion_share_of_lung_percent is None
    assert findings.left_lung.lung_volume_ml is None
    assert findings.zones is None
    assert {lesion.centre_lps_mm for lesion in findings.largest_lesions} == {None}
    assert findings.unknown["lung_volume_ml"] == "the file states no usable spacing"
    assert findings.unknown["right_lung.lung_volume_ml"] == "the file does not state how the patient lies in it"
    share = reference.findings.lesion_share_of_lung_percent
    assert findings.lesion_share_of_lung_percent == pytest.approx(share, rel=0.1)
    assert agreement(found.lesions.voxels, reference.lesions.voxels) > 0.9
    assert "% of the lung, in" in findings.summary
    files = found.save(tmp_path / "out")
    assert read_scan(files[0]).geometry.matches(found.scan.geometry)
    assert "unknown" in next(file for file in files if file.suffix == ".html").read_text(encoding="utf-8")
    described = describe_input(path)
    assert (described.spacing_mm, described.axes) == (None, None)
    assert NEVER_SET in described.notes


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.thorough
def test_an_array_that_was_saved_with_its_slices_first_is_read_slice_by_slice(
    upright: Phantom, tmp_path: Path, order: tuple[int, ...], grey_band: Segmenter
) -> None:
    """What NumPy holds as (z, y, x) becomes (x, y, z) of a NIfTI file if nobody turns it."""
    path = save_nifti(tmp_path / "ct.nii.gz", upright.scan.values.transpose(order), np.eye(4))
    assert AxialView(read_scan(path).geometry).geometry.shape[0] == 28
    found = analysis_of(path, grey_band)
    reference = segment(upright.scan, grey_band).lesions.voxels.transpose(order).T
    assert agreement(found.lesions.voxels, reference) > 0.7


@pytest.mark.thorough
def test_the_rows_of_a_picture_may_lie_along_the_first_axis(
    upright: Phantom, tmp_path: Path, grey_band: Segmenter
) -> None:
    """Pixel arrays of DICOM stacked along a third axis: (row, column, slice)."""
    path = save_nifti(tmp_path / "ct.nii.gz", upright.scan.values.transpose(1, 2, 0), np.eye(4))
    findings = analysis_of(path, grey_band).findings
    assert (findings.slices, findings.right_lung.lung_volume_ml, findings.lung_volume_ml) == (28, None, None)
    assert not any("no left lung" in warning or "no right lung" in warning for warning in findings.warnings)


@pytest.mark.thorough
def test_a_spacing_without_directions_gives_volumes_but_no_sides(
    upright: Phantom, tmp_path: Path, grey_band: Segmenter
) -> None:
    image = nibabel.Nifti1Image(upright.scan.values.T, None)
    z, y, x = upright.scan.geometry.spacing
    image.header.set_zooms((x, y, z))
    nibabel.save(image, tmp_path / "ct.nii")
    findings = analysis_of(tmp_path / "ct.nii", grey_band).findings
    lung_ml = upright.lungs.voxels.sum() * upright.scan.geometry.voxel_ml
    assert findings.lung_volume_ml == pytest.approx(lung_ml, rel=0.1)
    assert (findings.right_lung.lung_volume_ml, findings.zones) == (None, None)
    assert {lesion.centre_lps_mm for lesion in findings.largest_lesions} == {None}
    assert findings.largest_lesions[0].volume_ml
    assert NO_DIRECTIONS in findings.warnings
    assert NEVER_SET not in findings.warnings


def test_a_grid_that_was_never_set_is_known_by_rounded_numbers_too(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1, 1.00001, 1])
    affine[:3, 3] = 1e-5, 0, -1e-6
    scan = read_scan(save_nifti(tmp_path / "ct.nii", np.zeros((120, 100, 9), np.int16), affine))
    assert scan.notes == (NEVER_SET,)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_a_grid_that_was_never_set_is_known_after_axes_were_turned_round(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """Such voxels were taken as 1 mm, without a word."""
    image = nibabel.Nifti1Image(np.zeros((120, 100, 9), np.int16), np.eye(4))
    codes = [[axis, -1 if axis in axes else 1] for axis in range(3)]
    nibabel.save(image.as_reoriented(np.array(codes)), tmp_path / "ct.nii")
    assert nibabel.load(tmp_path / "ct.nii").affine[axes[0], 3] != 0
    assert read_scan(tmp_path / "ct.nii").notes == (NEVER_SET,)


@pytest.mark.parametrize("changes", [("space directions", "spacings"), ("space", "left-posterior-superior")])
def test_an_nrrd_with_a_spacing_alone_has_no_known_sides(tmp_path: Path, changes: tuple[str, str]) -> None:
    image: Any = SimpleITK.GetImageFromArray(np.zeros((3, 400, 400), np.int16))
    image.SetSpacing((0.7, 0.7, 5))
    SimpleITK.WriteImage(image, str(tmp_path / "ct.nrrd"))
    content = (tmp_path / "ct.nrrd").read_bytes().replace(b"(0.69999999999999996,0,0) (0,0.69999999999999996,0)", b"!")
    content = content.replace(
        b"! (0,0,5)", b"0.7 0.7 5" if changes[1] == "spacings" else b"(0.7,0,0) (0,0.7,0) (0,0,5)"
    )
    after = "3D-left-handed" if changes[0] == "space" else changes[1]
    old = changes[1] if changes[0] == "space" else changes[0]
    (tmp_path / "ct.nrrd").write_bytes(content.replace(old.encode(), after.encode()))
    scan = read_scan(tmp_path / "ct.nrrd")
    np.testing.assert_allclose(scan.geometry.spacing, (5, 0.7, 0.7))
    assert (scan.geometry.in_mm, scan.geometry.has_directions, scan.notes) == (True, False, (NO_DIRECTIONS,))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1, 1.5, 1]),  # a spacing
        np.array([[-1.0, 0, 0, 120], [0, -1, 0, 80], [0, 0, 1, -300], [0, 0, 0, 1]]),  # 1 mm, somewhere
        np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),  # 1 mm, turned
    ],
)
def test_a_grid_that_was_set_is_believed(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    scan = read_scan(save_nifti(tmp_path / "ct.nii", np.zeros((120, 100, 9), np.int16), affine))
    assert (scan.geometry.in_mm, scan.geometry.has_directions, scan.notes) == (True, True, ())


@pytest.mark.parametrize(("factor", "is_known"), [(0.0007, False), (0.1, False), (0.7, True), (1.5, True), (7, False)])
@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_a_spacing_that_makes_no_chest_is_unknown(tmp_path: Path, factor: float, is_known: bool, suffix: str) -> None:
    image: Any = SimpleITK.GetImageFromArray(np.zeros((3, 400, 400), np.int16))
    image.SetSpacing((factor, factor, 5 * factor))
    SimpleITK.WriteImage(image, str(tmp_path / f"ct.{suffix}"))
    scan = read_scan(tmp_path / f"ct.{suffix}")
    assert scan.geometry.in_mm == is_known
    assert scan.geometry.has_directions
    assert [note.endswith("set the spacing and save it again") for note in scan.notes] == [True] * (not is_known)


def test_a_small_array_with_voxels_of_micrometres_has_no_known_volume(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", np.zeros((80, 64, 12), np.int16), np.diag([1e-3, 1e-3, 1e-3, 1]))
    scan = read_scan(path)
    assert not scan.geometry.in_mm
    assert "make no chest of these slices: spacing and volumes are unknown" in scan.notes[0]
