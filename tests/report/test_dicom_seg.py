"""DICOM out: a Segmentation and a Structured Report that a PACS takes."""

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from groundglass.inference.segmenter import Segmenter
from groundglass.report.analysis import segment
from groundglass.report.dicom_seg import segmentation, write_dicom
from groundglass.report.dicom_sr import structured_report
from groundglass.report.findings import Findings
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import DicomSeries
from helpers.dicom_phantom import NAME, NUMBER, write_enhanced, write_series

ANONYMISED = dict.fromkeys(
    (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    )
)
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")


@pytest.fixture(scope="module")
def findings(phantom: Phantom, grey_band: Segmenter) -> Findings:
    return segment(phantom.scan, grey_band).findings


@pytest.fixture(scope="module")
def series(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> DicomSeries:
    return read(write_series(phantom.scan, tmp_path_factory.mktemp("study") / "series"))


def read(paths: list[Path]) -> DicomSeries:
    return DicomSeries(tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in paths))


def check(dataset: Dataset, path: Path) -> Dataset:
    """Write, have dciodvfy look at it, read back."""
    write_dicom(dataset, path)
    judge = shutil.which("dciodvfy")
    if judge:
        said = subprocess.run([judge, path], capture_output=True, text=True, check=False).stderr
        errors = [line for line in said.splitlines() if line.startswith("Error")]
        assert not errors, errors
    return pydicom.dcmread(path)


def test_the_judge_finds_what_is_wrong(series: DicomSeries, findings: Findings, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools): the other tests here do not ask it")
    wrong = segmentation(series, {"lesion": np.zeros((len(series.headers), 144, 190), dtype=np.bool_)}, findings)
    del wrong.SegmentSequence
    with pytest.raises(AssertionError, match="SegmentSequence"):
        check(wrong, tmp_path / "lesions.dcm")


def masks_of(path: Path, series: DicomSeries) -> NDArray[np.uint8]:
    """(z, y, x, segments), by source instance: stored frames are only the ones that are not empty."""
    stored = hd.seg.segread(path)
    if series.frames:
        numbers = [frame + 1 for frame in series.frames]
        pixels = stored.get_pixels_by_source_frame(
            series.headers[0].SOPInstanceUID, numbers, assert_missing_frames_are_empty=True
        )
    else:
        uids = [header.SOPInstanceUID for header in series.headers]
        pixels = stored.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    return np.asarray(pixels, dtype=np.uint8)


def test_the_mask_comes_back_as_it_was(
    phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path
) -> None:
    truth = phantom.lesions.voxels
    stored = check(segmentation(series, {"lesion": truth}, findings), tmp_path / "lesions.dcm")
    assert np.array_equal(masks_of(tmp_path / "lesions.dcm", series)[..., 0], truth)
    assert stored.NumberOfFrames == truth.any((1, 2)).sum()
    assert stored.SegmentationType == "BINARY"
    assert not stored.file_meta.TransferSyntaxUID.is_compressed
    (segment_,) = stored.SegmentSequence
    assert segment_.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
    algorithm = segment_.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == findings.model.name
    assert findings.version in algorithm.AlgorithmVersion
    referenced = {
        instance.ReferencedSOPInstanceUID for instance in stored.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {header.SOPInstanceUID for header in series.headers}
    first = series.headers[0]
    assert (stored.PatientID, str(stored.PatientName), stored.StudyInstanceUID) == (
        NUMBER,
        NAME,
        first.StudyInstanceUID,
    )
    assert stored.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert stored.SeriesInstanceUID != first.SeriesInstanceUID


def test_an_empty_mask_is_a_legal_segmentation(
    phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = np.zeros_like(phantom.lesions.voxels)
    check(segmentation(series, {"lesion": empty}, findings), tmp_path / "lesions.dcm")
    assert not masks_of(tmp_path / "lesions.dcm", series).any()
    assert capfd.readouterr() == ("", "")


def test_a_segment_for_each_class(phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path) -> None:
    whole = phantom.lesions.voxels
    upper = whole & (np.arange(len(whole)) > len(whole) / 2)[:, None, None]
    classes = {"ground-glass": whole & ~upper, "consolidation": upper, "effusion": np.zeros_like(whole)}
    stored = check(segmentation(series, classes, findings), tmp_path / "lesions.dcm")
    assert [each.SegmentLabel for each in stored.SegmentSequence] == list(classes)
    found = masks_of(tmp_path / "lesions.dcm", series)
    for number, mask in enumerate(classes.values()):
        assert np.array_equal(found[..., number], mask)


def test_spoilt_values_of_a_source_are_left_empty(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    """Scanners and anonymisers write such; the library that makes the instances refuses them, and quotes them."""
    values = {"PatientBirthDate": "00000000", "StudyDate": "no date", "StudyTime": "25:99", "PatientSex": "unknown"}
    spoilt = read(write_series(phantom.scan, tmp_path / "study" / "series", **values))
    segments = segmentation(spoilt, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(segments, tmp_path / "lesions.dcm")
    report = check(structured_report(spoilt, segments, findings), tmp_path / "findings.dcm")
    for name in values:
        assert not stored[name].value
        assert not report[name].value
    assert stored.PatientID == NUMBER
    assert np.array_equal(masks_of(tmp_path / "lesions.dcm", spoilt)[..., 0], phantom.lesions.voxels)


def test_an_anonymised_source_gives_legal_instances(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    bare = read(write_series(phantom.scan, tmp_path / "study" / "series", **ANONYMISED))
    segments = segmentation(bare, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(segments, tmp_path / "lesions.dcm")
    assert stored.PatientID in ("", None)
    assert stored.FrameOfReferenceUID
    assert np.array_equal(masks_of(tmp_path / "lesions.dcm", bare)[..., 0], phantom.lesions.voxels)
    check(structured_report(bare, segments, findings), tmp_path / "findings.dcm")
    assert "PatientName" not in bare.headers[0]  # the source's own header is left as it is


@pytest.mark.parametrize("order", [1, -1])
def test_an_enhanced_source_is_named_by_frame(phantom: Phantom, findings: Findings, tmp_path: Path, order: int) -> None:
    header = pydicom.dcmread(write_enhanced(phantom.scan, tmp_path / "ct.dcm"), stop_before_pixels=True)
    frames = tuple(range(len(phantom.scan.values)))[::order]
    series = DicomSeries((header,), frames)
    truth = phantom.lesions.voxels[::order]
    segments = segmentation(series, {"lesion": truth}, findings)
    check(segments, tmp_path / "lesions.dcm")
    assert np.array_equal(masks_of(tmp_path / "lesions.dcm", series)[..., 0], truth)
    check(structured_report(series, segments, findings), tmp_path / "findings.dcm")


def test_the_same_again_is_the_same_instance_and_another_mask_another(
    phantom: Phantom, series: DicomSeries, findings: Findings
) -> None:
    truth = phantom.lesions.voxels
    one, same = (segmentation(series, {"lesion": truth}, findings) for _ in range(2))
    other = segmentation(series, {"lesion": ~truth}, findings)
    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != one.SOPInstanceUID
    reports = [structured_report(series, each, findings).SOPInstanceUID for each in (one, same, other)]
    assert reports[0] == reports[1] != reports[2]


def test_the_report_holds_the_findings(
    series: DicomSeries, findings: Findings, phantom: Phantom, tmp_path: Path
) -> None:
    segments = segmentation(series, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(structured_report(series, segments, findings), tmp_path / "findings.dcm")
    values = [
        (
            item.ConceptNameCodeSequence[0].CodeMeaning,
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in everything(stored)
        if item.get("ValueType") == "NUM"
    ]
    assert values == [
        value
        for burden in (findings, findings.right_lung, findings.left_lung)
        for value in (
            ("Volume", burden.lesion_volume_ml, "ml"),
            ("Lesion share of lung volume", burden.lesion_share_of_lung_percent, "%"),
            ("Lung volume, lesions included", burden.lung_volume_ml, "ml"),
        )
    ]
    assert segments.SOPInstanceUID in str(stored.CurrentRequestedProcedureEvidenceSequence)


def everything(item: Dataset) -> list[Dataset]:
    return [item, *(each for child in item.get("ContentSequence", []) for each in everything(child))]


def test_what_is_unknown_is_left_out_of_the_report(series: DicomSeries, findings: Findings, phantom: Phantom) -> None:
    names = ("lesion_volume_ml", "lung_volume_ml", "lesion_share_of_lung_percent")
    nothing = dict.fromkeys(names)
    sides = {side: getattr(findings, side).model_copy(update=nothing) for side in ("right_lung", "left_lung")}
    unknown = findings.model_copy(update=nothing | sides)
    segments = segmentation(series, {"lesion": phantom.lesions.voxels}, unknown)
    report = structured_report(series, segments, unknown)
    assert not [item for item in everything(report) if item.get("ValueType") == "NUM"]
