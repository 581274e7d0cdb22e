"""Several acquisitions in one DICOM series are named, and one of them can be chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.io.dicom_header import items
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced, write_series

SERIES = {"SeriesInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3.1", "FrameOfReferenceUID": "1.2.3.2"}


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64), oblique=False).scan


def brighter(scan: Scan) -> Scan:
    return Scan(scan.values + np.int16(7), scan.geometry)


def write_two(scan: Scan, other: Scan, folder: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    write_series(scan, folder / "1", **SERIES, **first)
    write_series(other, folder / "2", **SERIES, **second)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (
            {"AcquisitionNumber": "3", "AcquisitionTime": "101500"},
            {"AcquisitionNumber": "5", "AcquisitionTime": "102010.5"},
            r"2 acquisitions, 3 \(8 images, at 10:15:00\), 5 \(8 images, at 10:20:10\): --acquisition NUMBER takes one",
        ),
        (
            {"AcquisitionNumber": "3", "AcquisitionTime": "0930"},
            {"AcquisitionNumber": "5", "AcquisitionTime": "0945"},
            r"3 \(8 images, at 09:30\), 5 \(8 images, at 09:45\)",
        ),
        ({}, {"AcquisitionTime": "102010"}, r"1 \(8 images, at 10:15:00\), 2 \(8 images, at 10:20:10\): --acquisition"),
        (
            {"ConvolutionKernel": "B30f"},
            {"ConvolutionKernel": "B70f"},
            r"1 \(8 images, kernel B30f, at 10:15:00\), 2 \(8 images, kernel B70f, at 10:15:00\): --acquisition",
        ),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, r"1 \(8 images, .*, 2 \(8 images"),
        ({}, {}, r"1 \(8 images, .*, 2 \(8 images"),
    ],
    ids=["number", "time without seconds", "time", "kernel", "time point", "nothing but order"],
)
def test_acquisitions_at_the_same_places_are_named_and_can_be_chosen(
    first: dict[str, Any], second: dict[str, Any], named: str, scan: Scan, tmp_path: Path
) -> None:
    write_two(scan, brighter(scan), tmp_path / "a", first, second)
    with pytest.raises(FormatError, match=r"several different images at one place .*" + named):
        read_scan(tmp_path / "a")
    refused = describe_input(tmp_path / "a").refused
    assert refused is not None
    assert "several different images at one place (slice 1;" in refused
    assert "--acquisition NUMBER takes one of them" in refused
    labels = [str(step.get("AcquisitionNumber", n)) for n, step in enumerate((first, second), start=1)]
    found = [read_scan(tmp_path / "a", dicom=DicomOptions(acquisition=label)) for label in labels]
    assert sorted(int(part.values.max()) for part in found) == [int(scan.values.max()), int(scan.values.max()) + 7]
    assert found[0].notes == (f"acquisition {labels[0]} was read on request, 8 of 16 images",)
    with pytest.raises(FormatError, match=r"a holds no acquisition 9, expected one of: \d \(8 images"):
        read_scan(tmp_path / "a", dicom=DicomOptions(acquisition="9"))


def test_acquisitions_between_each_other_are_named(scan: Scan, tmp_path: Path) -> None:
    affine = scan.geometry.affine_lps.copy()
    affine[2, 3] += 11
    shifted = Scan(scan.values, Geometry(scan.geometry.shape, affine))
    write_two(scan, shifted, tmp_path / "a", {"AcquisitionNumber": "1"}, {"AcquisitionNumber": "2"})
    with pytest.raises(FormatError, match=r"mm apart, expected one distance.* 2 acquisitions, 1 \(8 images"):
        read_scan(tmp_path / "a")
    assert read_scan(tmp_path / "a", dicom=DicomOptions(acquisition="2")).geometry.matches(shifted.geometry)


def test_acquisitions_that_continue_each_other_are_one_scan(scan: Scan, tmp_path: Path) -> None:
    """Scanners that move the table step by step count an acquisition for each step."""
    geometry = scan.geometry
    lower, upper = (Scan(scan.values[z : z + 4], Geometry((4, 48, 64), _moved(geometry.affine_lps, z))) for z in (0, 4))
    write_two(lower, upper, tmp_path / "a", {"AcquisitionNumber": "1"}, {"AcquisitionNumber": "2"})
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ()
    half = read_scan(tmp_path / "a", dicom=DicomOptions(acquisition="1"))
    assert half.notes == ("acquisition 1 was read on request, 4 of 8 images",)


def _moved(affine: np.ndarray, slices: int) -> np.ndarray:
    moved = affine.copy()
    moved[:, 3] = affine @ [slices, 0, 0, 1]
    return moved


def test_images_that_all_state_one_position_are_no_acquisitions(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", ImagePositionPatient=[0, 0, 0])
    with pytest.raises(FormatError, match=r"all 8 images .* \(--by-instance-number\)$"):
        read_scan(tmp_path / "a")


def test_the_frames_of_a_file_are_not_listed_anew_for_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took minutes for a file of 20,000 empty frames."""
    listed: list[str] = []

    def count(header: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
        listed.append(keyword)
        return items(header, keyword)

    monkeypatch.setattr("groundglass.io.dicom_header.items", count)
    data = pydicom.dcmread(write_enhanced(chest_phantom(shape=(6, 40, 48)).scan, tmp_path / "a.dcm"))
    data.PerFrameFunctionalGroupsSequence = [pydicom.Dataset() for _ in range(6)]
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(FormatError, match="no position or orientation"):
        read_scan(tmp_path / "a.dcm")
    assert "FrameContentSequence" in listed
    assert "PerFrameFunctionalGroupsSequence" not in listed
