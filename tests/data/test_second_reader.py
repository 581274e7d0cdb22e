"""Masks of a second reader, as `prepare --second-reader` stores them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.data.case import Case
from groundglass.data.cutting import cut_case
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.data.prepared import read_prepared
from groundglass.data.second_reader import with_second_reader
from groundglass.data.slices import NOT_READ
from groundglass.errors import DatasetError
from groundglass.io import nifti
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan

SIZE = (72, 96)


def coarse(labels: NDArray[np.uint8], grid: Geometry, step: int = 2) -> Scan:
    """Return a mask on pixels `step` times as large, with its slices in reversed order and an affine that says so."""
    planes = labels[::-1, step // 2 :: step, step // 2 :: step]
    affine = grid.affine_lps @ np.diag([-1.0, step, step, 1.0])
    affine[:3, 3] += grid.affine_lps[:3, 0] * (len(labels) - 1)
    return Scan(np.ascontiguousarray(planes), Geometry(planes.shape, affine))


@pytest.fixture
def folder(phantom: Phantom, tmp_path: Path) -> Path:
    grid, lesions = phantom.scan.geometry, phantom.lesions.voxels.astype(np.uint8)
    for name in ("1", "2"):
        nifti.write_scan(phantom.scan, tmp_path / "rp_im" / f"{name}.nii.gz")
        nifti.write_scan(Scan(lesions, grid), tmp_path / "rp_msk" / f"{name}.nii.gz")
    nifti.write_scan(coarse(lesions, grid), tmp_path / "second" / "1.nii.gz")
    return tmp_path


def case_of(folder: Path, second: Path | None = None) -> Case:
    image, mask = folder / "rp_im" / "1.nii.gz", folder / "rp_msk" / "1.nii.gz"
    return Case("volumes/1", "volumes/1", image, mask, second_mask=second)


@pytest.mark.thorough
def test_a_coarser_mask_with_its_slices_the_other_way_round_lies_where_the_first_one_does(folder: Path) -> None:
    cut = cut_case(case_of(folder, folder / "second" / "1.nii.gz"), SIZE)
    assert cut.second_reader is not None
    first, second = cut.labels > 0, cut.second_reader
    assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.9
    assert (cut.lungs & first).sum() == first.sum()


@pytest.mark.thorough
def test_cases_without_a_second_reader_are_marked_as_not_read(folder: Path) -> None:
    prepare([folder], folder / "out", PreparationSettings(SIZE), second_reader=folder / "second")
    manifest, slices = read_prepared(folder / "out")
    assert slices.second_reader is not None
    assert slices.lungs is not None
    assert set(np.unique(slices.second_reader[slices.case == "volumes/1"])) == {0, 1}
    assert set(np.unique(slices.second_reader[slices.case == "volumes/2"])) == {NOT_READ}
    assert prepare([folder], folder / "out", PreparationSettings(SIZE), second_reader=folder / "second").newly_cut == 0
    assert [case.second_mask for case in manifest.cases] == [(folder / "second" / "1.nii.gz").resolve(), None]


@pytest.mark.thorough
def test_a_case_is_cut_again_after_its_second_mask_was_changed(folder: Path, phantom: Phantom) -> None:
    settings, second = PreparationSettings(SIZE), folder / "second"
    prepare([folder], folder / "out", settings, second_reader=second)
    grid = phantom.scan.geometry
    nifti.write_scan(Scan(np.zeros(grid.shape, np.uint8), grid), second / "1.nii.gz")
    assert prepare([folder], folder / "out", settings, second_reader=second).newly_cut == 1
    _, slices = read_prepared(folder / "out")
    assert slices.second_reader is not None
    assert not slices.second_reader[slices.case == "volumes/1"].any()


def test_a_mask_with_other_slices_is_refused(folder: Path, phantom: Phantom) -> None:
    mask = coarse(phantom.lesions.voxels[1:].astype(np.uint8), phantom.scan.geometry)
    nifti.write_scan(mask, folder / "second" / "1.nii.gz")
    count = len(phantom.lesions.voxels)
    with pytest.raises(DatasetError, match=rf"has {count - 1} slices, its image {count}: expected the same slices"):
        cut_case(case_of(folder, folder / "second" / "1.nii.gz"), SIZE)


def test_a_folder_that_names_no_case_or_those_of_two_sources_is_refused(folder: Path) -> None:
    case = case_of(folder)
    with pytest.raises(DatasetError, match="holds no mask with the name of a case, such as 1"):
        with_second_reader([case], folder / "rp")
    with pytest.raises(DatasetError, match="names cases of pairs and volumes"):
        with_second_reader([case, replace(case, name="pairs/1")], folder / "second")
