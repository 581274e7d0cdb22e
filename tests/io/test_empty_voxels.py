"""Voxels without a number: outside the image they are air, whatever stands for none; inside they are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError, IntensityError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.segmenter import Segmenter
from groundglass.io.in_memory import as_scan
from groundglass.io.nifti import write_scan
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.intensity import recognise_numbers
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.chests import axial, dice, truth
from helpers.dicom_phantom import write_series

Region = Callable[[Scan], NDArray[np.bool_]]
FILLS = (np.nan, np.inf, -np.inf, np.finfo(np.float32).max, 1e20, 32767, 3071)


@pytest.fixture(scope="module")
def chest(phantom: Phantom) -> Scan:
    scan = axial(phantom)
    return replace(scan, values=scan.values.astype(np.float32))


def beside_the_circle(scan: Scan) -> NDArray[np.bool_]:
    """Outside the circle that a scanner reconstructs."""
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in scan.values.shape[1:])
    return np.broadcast_to(y[:, None] ** 2 + x**2 > 1, scan.values.shape)


def the_ends(scan: Scan) -> NDArray[np.bool_]:
    """Whole slices at both ends, as resampling leaves them."""
    ends = np.zeros(scan.values.shape, np.bool_)
    ends[:2] = ends[-3:] = True
    return ends


def one_slice(scan: Scan) -> NDArray[np.bool_]:
    middle = np.zeros(scan.values.shape, np.bool_)
    middle[len(middle) // 2] = True
    return middle


def filled(scan: Scan, region: NDArray[np.bool_], number: float) -> Scan:
    return replace(scan, values=np.where(region, np.float32(number), scan.values))


def as_file(scan: Scan, folder: Path) -> Path:
    write_scan(scan, folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


@pytest.mark.parametrize("number", FILLS)
@pytest.mark.parametrize("region", [beside_the_circle, the_ends])
def test_what_stands_for_no_number_beside_the_image_is_air(
    chest: Scan, tmp_path: Path, region: Region, number: float
) -> None:
    empty = region(chest)
    scan = read_scan(as_file(filled(chest, empty, number), tmp_path))
    if number == -np.inf or number == np.inf or np.isnan(number):
        found = "NaN or infinite"
    else:
        found = f"{np.float32(number):g}"
    np.testing.assert_array_equal(scan.values, np.where(empty, -1024, chest.values))
    assert scan.notes == (f"{100 * empty.mean():.2g} % of the voxels, beside the image, are {found}: taken as air",)


@pytest.mark.thorough
def test_lesions_are_those_of_the_scan_without_empty_voxels(chest: Scan, tmp_path: Path, grey_band: Segmenter) -> None:
    path = as_file(filled(chest, beside_the_circle(chest), np.nan), tmp_path)
    found, reference = segment(path, grey_band).findings, segment(chest, grey_band).findings
    assert found.lesion_volume_ml == pytest.approx(reference.lesion_volume_ml, rel=0.01)
    assert found.lung_volume_ml == pytest.approx(reference.lung_volume_ml, rel=0.01)
    assert [warning for warning in found.warnings if "taken as air" in warning] == list(read_scan(path).notes)
    assert set(read_scan(path).notes) <= set(describe_input(path).notes)


@pytest.mark.parametrize("shift", [1024, 32768])
def test_unsigned_padding_of_shifted_hu_is_air(chest: Scan, tmp_path: Path, shift: int) -> None:
    stored = np.where(beside_the_circle(chest), 65535, chest.values + shift).astype(np.uint16)
    scan = read_scan(as_file(replace(chest, values=stored), tmp_path))
    assert recognise_numbers(scan).kind is IntensityKind.SHIFTED_HU
    assert scan.values.max() < 65535


@pytest.mark.parametrize("number", [np.nan, 65504])
@pytest.mark.thorough
def test_lungs_with_nothing_around_them_are_found(phantom: Phantom, chest: Scan, tmp_path: Path, number: float) -> None:
    scan = read_scan(as_file(filled(chest, ~truth(phantom), number), tmp_path))
    assert dice(find_lungs(scan).lung_field.mask, truth(phantom)) > 0.97


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_every_format_and_arrays_are_read_alike(chest: Scan, tmp_path: Path, suffix: str) -> None:
    SimpleITK = pytest.importorskip("SimpleITK")
    values = filled(chest, beside_the_circle(chest), np.nan).values
    image: Any = SimpleITK.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 7.5))
    SimpleITK.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    for scan in (read_scan(tmp_path / f"ct{suffix}"), as_scan(values, spacing=(7.5, 2, 2)), as_scan(image)):
        np.testing.assert_array_equal(scan.values, np.where(np.isnan(values), -1024, chest.values))
    assert np.isnan(values).any()  # the caller's array is left as it is


def test_padding_of_dicom_that_no_header_states_is_air(phantom: Phantom, tmp_path: Path) -> None:
    scan = axial(phantom)
    write_series(replace(scan, values=np.where(beside_the_circle(scan), 3071, scan.values)), tmp_path / "a")
    assert read_scan(tmp_path / "a").values.max() < 3071
    assert any("are 3071: taken as air" in note for note in describe_input(tmp_path / "a").notes)


def test_single_voxels_inside_are_like_those_beside_them(chest: Scan, tmp_path: Path) -> None:
    some = np.zeros(chest.values.shape, np.bool_)
    some[5:25:5, 72, 40:150:50] = True
    scan = read_scan(as_file(filled(chest, some, np.nan), tmp_path))
    assert scan.notes == (f"{some.sum()} voxels inside are NaN or infinite: taken like those beside them",)
    np.testing.assert_array_equal(scan.values[~some], chest.values[~some])
    assert abs(scan.values[some] - chest.values[some]).max() < 400


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_more_inside_is_refused_with_its_number(phantom: Phantom, chest: Scan, tmp_path: Path, number: float) -> None:
    path = as_file(filled(chest, truth(phantom), number), tmp_path)
    inside = f"{np.count_nonzero(truth(phantom)):,} of {chest.values.size:,} voxels inside the image"
    with pytest.raises(FormatError, match=inside):
        read_scan(path)


def test_a_file_without_any_number_is_refused(chest: Scan, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="that are NaN or infinite, or padding: nearly nothing is left"):
        read_scan(as_file(replace(chest, values=np.full_like(chest.values, np.nan)), tmp_path))


@pytest.mark.parametrize("number", [np.nan, -1024, 0, -32768])
def test_a_slice_that_was_lost_between_others_is_refused(chest: Scan, tmp_path: Path, number: float) -> None:
    scan = read_scan(as_file(filled(chest, one_slice(chest), number), tmp_path))
    with pytest.raises(IntensityError, match=r"slice 17 of 32 holds .* alone, between slices with an image"):
        recognise_numbers(scan)
    assert recognise_numbers(scan, IntensityKind.HU).kind is IntensityKind.HU
    assert "slice 17 of 32" in str(describe_input(tmp_path / "ct.nii.gz").refused)


def test_bright_metal_and_bright_pixels_of_a_window_are_no_padding(chest: Scan, tmp_path: Path) -> None:
    metal = chest.values.copy()
    metal[:, 60:64, :6] = 3071
    assert read_scan(as_file(replace(chest, values=metal), tmp_path)).notes == ()
    white = np.clip((chest.values + 1350) / 1500 * 255, 0, 255)
    white[:, :3] = 255
    assert read_scan(as_file(replace(chest, values=white.astype(np.float32)), tmp_path)).notes == ()
