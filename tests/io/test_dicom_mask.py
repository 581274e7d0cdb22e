"""DICOM Segmentations as masks: those that are of another grid, another scan or no mask are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from groundglass.errors import FormatError
from groundglass.io import dicom_files
from groundglass.io.dicom_completion import complete_series
from groundglass.io.dicom_mask import read_segmentation
from groundglass.io.reader import read_scan
from groundglass.report.dicom_seg import make_segmentation, write_dicom
from groundglass.report.findings import ModelRef
from groundglass.report.measurement import measure
from groundglass.scan.lung_field import LungField
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series
from helpers.segmented import segmented_scan

SQUARE = (6, 64, 64)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    folder = tmp_path_factory.mktemp("series")
    write_series(chest_phantom(shape=SQUARE).scan, folder)
    return read_scan(folder)


@pytest.fixture(scope="module")
def marked() -> NDArray[np.bool_]:
    mask = np.zeros(SQUARE, dtype=np.bool_)
    mask[2:4, 10:20, 30:50] = True
    return mask


@pytest.fixture(scope="module")
def seg_file(scan: Scan, marked: NDArray[np.bool_], tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert scan.series is not None
    lungs = np.ones(SQUARE, dtype=np.bool_)
    field = LungField(lungs, ~lungs, (None,) * len(lungs))
    findings = measure(segmented_scan(scan.geometry, field, marked), ModelRef(name="none", sha256="0" * 64))
    series = complete_series(scan.series).series
    path = tmp_path_factory.mktemp("seg") / "lesions.dcm"
    write_dicom(make_segmentation(series, marked.astype(np.uint8), ["lesion"], findings), path)
    return path


def changed(seg_file: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    dataset = dcmread(seg_file)
    change(dataset)
    dataset.save_as(folder / "changed.dcm")
    return folder / "changed.dcm"


def groups(dataset: Dataset, keyword: str) -> list[Any]:
    every = [*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence]
    return [group[keyword][0] for group in every if keyword in group]


def turn(dataset: Dataset) -> None:
    for item in groups(dataset, "PlaneOrientationSequence"):
        directions = list(item.ImageOrientationPatient)
        item.ImageOrientationPatient = directions[3:] + directions[:3]


def zoom(dataset: Dataset) -> None:
    for item in groups(dataset, "PixelMeasuresSequence"):
        item.PixelSpacing = [1.1 * mm for mm in item.PixelSpacing]


def test_the_segmentation_of_a_series_is_read_as_it_was_drawn(
    scan: Scan, seg_file: Path, marked: NDArray[np.bool_]
) -> None:
    assert np.array_equal(read_segmentation(seg_file, scan).mask.values, marked)


def far_away(dataset: Dataset) -> None:
    for item in groups(dataset, "PlanePositionSequence"):
        item.ImagePositionPatient = ["1.7e308", "1.7e308", "1.7e308"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (turn, "another grid"),
        (far_away, "another grid"),
        (zoom, "another grid"),
        (lambda dataset: setattr(dataset, "FrameOfReferenceUID", generate_uid()), "another scan"),
        (lambda dataset: setattr(dataset, "SegmentationType", "FRACTIONAL"), "probabilities"),
        (lambda dataset: setattr(dataset, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "no DICOM Segmentation"),
    ],
    ids=["turned", "infinitely far", "other pixels", "other scan", "fractional", "CT"],
)
def test_a_segmentation_of_another_grid_scan_or_kind_is_refused(
    scan: Scan, seg_file: Path, tmp_path: Path, change: Callable[[Any], None], reason: str
) -> None:
    with pytest.raises(FormatError, match=reason):
        read_segmentation(changed(seg_file, tmp_path, change), scan)


def test_a_small_segmentation_that_unpacks_to_more_than_a_series_can_be_is_refused(
    scan: Scan, seg_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_files, "MAX_INFLATED", 1 << 20)
    dataset = dcmread(seg_file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = bytes(2 << 20)
    dataset.save_as(tmp_path / "bomb.dcm")
    with pytest.raises(FormatError, match="unpacks to more than"):
        read_segmentation(tmp_path / "bomb.dcm", scan)
