"""Images without usable positions are refused, and ordered by InstanceNumber where that is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced, write_series

BY_NUMBER = DicomOptions(by_instance_number=True)
SAME = [0, 0, 0]


@pytest.fixture(scope="module")
def scan() -> Scan:
    """A chest from head to feet in the order of its slices."""
    scan = chest_phantom(shape=(8, 48, 64), oblique=False).scan
    return Scan(scan.values[::-1], scan.geometry)


def state(paths: list[Path], keyword: str, values: list[Any]) -> None:
    for path, value in zip(paths, values, strict=True):
        data = pydicom.dcmread(path)
        setattr(data, keyword, value)
        data.save_as(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImagePositionPatient": None}, "8 of 8 images in a state no position or orientation"),
        ({"ImagePositionPatient": SAME}, "all 8 images in a state the same position, expected one for each"),
        ({"ImageOrientationPatient": None}, "8 of 8 images in a state no position or orientation"),
        ({"ImageOrientationPatient": [0] * 6}, "8 of 8 images in a state no position or orientation"),
    ],
    ids=["missing", "equal", "no orientation", "orientation of zeros"],
)
def test_images_without_positions_are_refused_or_ordered_by_number(
    changes: dict[str, Any], message: str, scan: Scan, tmp_path: Path
) -> None:
    write_series(scan, tmp_path / "a", **changes)
    with pytest.raises(FormatError, match=message + r".*: export the series again .*--by-instance-number"):
        read_scan(tmp_path / "a")
    found = read_scan(tmp_path / "a", dicom=BY_NUMBER)
    assert np.array_equal(found.values, scan.values[::-1])  # sorted from the feet to the head
    assert found.geometry.spacing == pytest.approx(scan.geometry.spacing, rel=1e-4)
    assert found.notes[:2] == (
        "the images state no usable position: they are ordered by InstanceNumber, 30 mm apart (the SliceThickness)",
        "which end is the head is not stated: the first image is taken as the uppermost",
    )


def test_slice_locations_state_distance_and_direction(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a", ImagePositionPatient=None, SliceThickness="60")
    state(paths, "SliceLocation", [str(100 + 25 * z) for z in range(8)])
    found = read_scan(tmp_path / "a", dicom=BY_NUMBER)
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.spacing[0] == pytest.approx(25)
    assert found.notes == (
        "the images state no usable position: they are ordered by InstanceNumber, 25 mm apart (by SliceLocation)",
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([None] * 8, "8 of 8 images in a state no InstanceNumber"),
        ([1, 2, 3, 4, 5, 6, 7, 7], "1 of 8 images in a state an InstanceNumber that another has too"),
        ([1, 2, 3, 4, 5, 6, 9, 10], r"a lacks 2 images by the InstanceNumbers \(1 to 10, 8 images\)"),
    ],
    ids=["missing", "repeated", "incomplete"],
)
def test_numbers_that_make_no_order_are_refused(
    numbers: list[int | None], message: str, scan: Scan, tmp_path: Path
) -> None:
    paths = write_series(scan, tmp_path / "a", ImagePositionPatient=None)
    state(paths, "InstanceNumber", numbers)
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path / "a", dicom=BY_NUMBER)


def test_frames_without_positions_are_read_in_their_order(scan: Scan, tmp_path: Path) -> None:
    data = pydicom.dcmread(write_enhanced(scan, tmp_path / "a.dcm"))
    for frame in data.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(FormatError, match=r"8 of 8 images in a\.dcm state no position"):
        read_scan(tmp_path / "a.dcm")
    found = read_scan(tmp_path / "a.dcm", dicom=BY_NUMBER)
    assert np.array_equal(found.values, scan.values[::-1])
    assert found.geometry.spacing == pytest.approx(scan.geometry.spacing, rel=1e-4)


def test_a_distance_that_is_not_stated_is_not_guessed(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", ImagePositionPatient=None, SliceThickness=None)
    with pytest.raises(FormatError, match="neither SliceLocation nor SpacingBetweenSlices nor SliceThickness"):
        read_scan(tmp_path / "a", dicom=BY_NUMBER)


def test_positions_that_are_stated_are_used_whatever_is_asked_for(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    state(paths, "InstanceNumber", [4, 2, 8, 6, 1, 3, 5, 7])
    found = read_scan(tmp_path / "a", dicom=BY_NUMBER)
    assert found.geometry.matches(scan.geometry)
    assert found.notes == ()


@pytest.mark.thorough
def test_ordered_images_give_the_volumes_but_no_segmentation(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    head_first = Scan(phantom.scan.values[::-1], phantom.scan.geometry)
    write_series(head_first, tmp_path / "a", ImagePositionPatient=SAME)
    found, expected = segment(read_scan(tmp_path / "a", dicom=BY_NUMBER), grey_band), segment(phantom.scan, grey_band)
    assert found.findings.lesion_volume_ml == pytest.approx(expected.findings.lesion_volume_ml, rel=1e-2)
    assert found.dicom_results.files == {}
    assert "state no position" in (found.dicom_results.left_out or "")


@pytest.mark.parametrize("count", [1, 8])
def test_a_slope_of_zero_is_refused_with_the_reason(count: int, scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    state(paths[:count], "RescaleSlope", ["0"] * count)
    with pytest.raises(FormatError, match=rf"{count} of 8 images in a state the RescaleSlope 0, which makes all"):
        read_scan(tmp_path / "a")


def test_hu_that_are_stated_as_a_table_are_refused(tmp_path: Path, scan: Scan) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [2, 0, 16], bytes(4), "HU"
    write_series(scan, tmp_path / "a", RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table])
    with pytest.raises(FormatError, match=r"8 of 8 images in a state HU as a table \(ModalityLUTSequence\), expected"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept"])
def test_images_without_a_rescale_get_that_of_the_others(keyword: str, scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    state(paths[:3], keyword, [None] * 3)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("3 of 8 images state no full rescale to HU: that of the others is taken",)
    state(paths[7:], "RescaleIntercept", ["-1000"])
    with pytest.raises(FormatError, match="3 of 8 images in a state no rescale to HU, and the others 2 different ones"):
        read_scan(tmp_path / "a")


def test_offsets_to_hu_that_differ_between_images_are_noted(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    assert read_scan(tmp_path / "a").notes == ()
    state(paths[:2], "RescaleIntercept", ["0"] * 2)
    assert read_scan(tmp_path / "a").notes == (
        "the images state several offsets to HU (-1024 in 6 images, 0 in 2 images): each is read as it states, check "
        "those few",
    )


def test_a_slope_that_all_images_lack_is_said_to_be_assumed(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", RescaleSlope=None)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("8 of 8 images state no full rescale to HU: a slope of 1 or an offset of 0 is assumed",)
