"""A series that was given several SeriesInstanceUIDs is joined where its images fit, and refused where they do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series

JOINED = "{} series of one slice each were joined to one, since study, place and kind of their images fit together"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64)).scan


def edit_each(paths: list[Path], change: Callable[[pydicom.Dataset, int], None]) -> None:
    for index, path in enumerate(paths):
        data = pydicom.dcmread(path)
        change(data, index)
        data.save_as(path)


def give_own(*keywords: str) -> Callable[[pydicom.Dataset, int], None]:
    """Return a change that gives each image a UID of its own for each of these attributes."""

    def change(data: pydicom.Dataset, index: int) -> None:
        for keyword in keywords:
            setattr(data, keyword, index + 11 if keyword == "SeriesNumber" else generate_uid())

    return change


@pytest.mark.parametrize(
    "keywords",
    [
        ("SeriesInstanceUID",),
        ("SeriesInstanceUID", "SeriesNumber"),
        ("SeriesInstanceUID", "FrameOfReferenceUID"),
        ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber"),
    ],
    ids=str,
)
def test_slices_with_a_series_each_are_joined(keywords: tuple[str, ...], scan: Scan, tmp_path: Path) -> None:
    edit_each(write_series(scan, tmp_path / "a"), give_own(*keywords))
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.matches(scan.geometry)
    assert found.notes == (JOINED.format(8),)


@pytest.mark.parametrize(
    "changes", [{"SeriesInstanceUID": ""}, {"SeriesInstanceUID": "", "SeriesNumber": None}], ids=str
)
def test_slices_without_a_series_uid_are_joined(changes: dict[str, Any], scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", **changes)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == (JOINED.format(8),)


def test_two_reconstructions_of_single_slices_stay_apart(scan: Scan, tmp_path: Path) -> None:
    for number, kernel in ((3, "B30f"), (4, "B70f")):
        paths = write_series(scan, tmp_path / kernel, ConvolutionKernel=kernel, SeriesNumber=number)
        edit_each(paths, give_own("SeriesInstanceUID"))
    found = read_scan(tmp_path)
    assert np.array_equal(found.values, scan.values)
    assert found.notes == (
        "series 4 (kernel B70f, 8 slices 30 mm apart) was chosen; others there: 3 (kernel B30f, 8 slices 30 mm apart) "
        "(--series NUMBER takes another)",
        JOINED.format(8),
    )


def test_some_slices_with_a_series_each_are_joined_to_the_rest(scan: Scan, tmp_path: Path) -> None:
    edit_each(write_series(scan, tmp_path / "a")[5:], give_own("SeriesInstanceUID"))
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("4 series were joined to one, since study, place and kind of their images fit together",)


@pytest.mark.parametrize(
    "change",
    [
        lambda data, index: setattr(data, "StudyInstanceUID", f"1.2.{index // 2}"),
        lambda data, index: setattr(data, "FrameOfReferenceUID", f"1.2.{index // 2}"),
    ],
    ids=["studies", "frames"],
)
def test_slices_of_several_studies_or_frames_of_reference_are_refused_unless_one_is_named(
    change: Callable[[pydicom.Dataset, int], None], scan: Scan, tmp_path: Path
) -> None:
    paths = write_series(scan, tmp_path / "a")
    edit_each(paths, give_own("SeriesInstanceUID"))
    edit_each(paths, change)
    with pytest.raises(
        FormatError, match=r"a holds 8 images with a series each, which do not fit .*--series: 2a \(2 sl"
    ):
        read_scan(tmp_path / "a")
    assert len(read_scan(tmp_path / "a", series="2b").values) == 2


def test_slices_of_several_patients_stay_apart(scan: Scan, tmp_path: Path) -> None:
    for name in ("first", "second"):
        edit_each(write_series(scan, tmp_path / "a" / name, PatientID=name), give_own("SeriesInstanceUID"))
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    others = "others there, of 2 patients by their IDs: 2b (8 slices 30 mm apart)"
    assert f"2a (8 slices 30 mm apart) was chosen; {others}" in found.notes[0]


def test_slices_that_do_not_fit_are_refused(scan: Scan, tmp_path: Path) -> None:
    def differ(data: pydicom.Dataset, index: int) -> None:
        data.SeriesInstanceUID, data.ConvolutionKernel = generate_uid(), f"B{index}0f"

    edit_each(write_series(scan, tmp_path / "a"), differ)
    with pytest.raises(FormatError, match=r"a holds 8 images with a series each, which do not fit together .*: export"):
        read_scan(tmp_path / "a")
    assert len(read_scan(tmp_path / "a", series="2c").values) == 1


def test_a_gap_in_joined_slices_is_refused_as_in_one_series(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    edit_each(paths, give_own("SeriesInstanceUID"))
    paths[3].unlink()
    with pytest.raises(FormatError, match=r"lacks 1 slice \(behind slice 3 of 7"):
        read_scan(tmp_path / "a")


@pytest.mark.thorough
def test_the_lesions_of_a_joined_series_are_those_of_the_whole(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    edit_each(write_series(phantom.scan, tmp_path / "a"), give_own("SeriesInstanceUID"))
    found, expected = segment(read_scan(tmp_path / "a"), grey_band), segment(phantom.scan, grey_band)
    assert np.array_equal(found.lesions.voxels, expected.lesions.voxels)
    assert found.findings.lesion_volume_ml == pytest.approx(expected.findings.lesion_volume_ml, rel=1e-5)
    assert set(found.dicom_results.files) == {"lesions.dcm", "findings.dcm"}
