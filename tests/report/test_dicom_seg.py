"""The DICOM Segmentation and Structured Report: legal instances that hold mask and findings."""

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
from groundglass.report.dicom_seg import make_segmentation, write_dicom
from groundglass.report.dicom_sr import make_structured_report
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
    """Write a dataset, validate it with dciodvfy where that is installed, and read it back."""
    write_dicom(dataset, path)
    validator = shutil.which("dciodvfy")
    if validator:
        output = subprocess.run([validator, path], capture_output=True, text=True, check=False).stderr
        errors = [line for line in output.splitlines() if line.startswith("Error")]
        assert not errors, errors
    return pydicom.dcmread(path)


def test_the_validator_finds_a_missing_attribute(series: DicomSeries, findings: Findings, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools): the other tests run without validation")
    wrong = make_segmentation(series, {"lesion": np.zeros((len(series.headers), 144, 190), dtype=np.bool_)}, findings)
    del wrong.SegmentSequence
    with pytest.raises(AssertionError, match="SegmentSequence"):
        check(wrong, tmp_path / "lesions.dcm")


def read_masks(path: Path, series: DicomSeries) -> NDArray[np.uint8]:
    """(z, y, x, segments) by source instance, because empty frames are not stored."""
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


def test_the_segmentation_holds_the_mask(
    phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path
) -> None:
    truth = phantom.lesions.voxels
    stored = check(make_segmentation(series, {"lesion": truth}, findings), tmp_path / "lesions.dcm")
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", series)[..., 0], truth)
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
    check(make_segmentation(series, {"lesion": empty}, findings), tmp_path / "lesions.dcm")
    assert not read_masks(tmp_path / "lesions.dcm", series).any()
    assert capfd.readouterr() == ("", "")


def test_each_class_has_a_segment_of_its_own(
    phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path
) -> None:
    whole = phantom.lesions.voxels
    upper = whole & (np.arange(len(whole)) > len(whole) / 2)[:, None, None]
    classes = {"ground-glass": whole & ~upper, "consolidation": upper, "effusion": np.zeros_like(whole)}
    stored = check(make_segmentation(series, classes, findings), tmp_path / "lesions.dcm")
    assert [each.SegmentLabel for each in stored.SegmentSequence] == list(classes)
    found = read_masks(tmp_path / "lesions.dcm", series)
    for number, mask in enumerate(classes.values()):
        assert np.array_equal(found[..., number], mask)


def test_invalid_values_of_the_source_become_empty(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    """Scanners and anonymisers write such values; highdicom refuses them, and quotes them in its error."""
    values = {"PatientBirthDate": "00000000", "StudyDate": "no date", "StudyTime": "25:99", "PatientSex": "unknown"}
    damaged = read(write_series(phantom.scan, tmp_path / "study" / "series", **values))
    segments = make_segmentation(damaged, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(segments, tmp_path / "lesions.dcm")
    report = check(make_structured_report(damaged, segments, findings), tmp_path / "findings.dcm")
    for name in values:
        assert not stored[name].value
        assert not report[name].value
    assert stored.PatientID == NUMBER
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", damaged)[..., 0], phantom.lesions.voxels)


def test_an_anonymised_source_gives_legal_instances(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    bare = read(write_series(phantom.scan, tmp_path / "study" / "series", **ANONYMISED))
    segments = make_segmentation(bare, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(segments, tmp_path / "lesions.dcm")
    assert stored.PatientID in ("", None)
    assert stored.FrameOfReferenceUID
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", bare)[..., 0], phantom.lesions.voxels)
    check(make_structured_report(bare, segments, findings), tmp_path / "findings.dcm")
    assert "PatientName" not in bare.headers[0]  # the source's own header is left as it is


@pytest.mark.parametrize("order", [1, -1])
def test_an_enhanced_source_is_referenced_by_frame(
    phantom: Phantom, findings: Findings, tmp_path: Path, order: int
) -> None:
    header = pydicom.dcmread(write_enhanced(phantom.scan, tmp_path / "ct.dcm"), stop_before_pixels=True)
    frames = tuple(range(len(phantom.scan.values)))[::order]
    series = DicomSeries((header,), frames)
    truth = phantom.lesions.voxels[::order]
    segments = make_segmentation(series, {"lesion": truth}, findings)
    check(segments, tmp_path / "lesions.dcm")
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", series)[..., 0], truth)
    check(make_structured_report(series, segments, findings), tmp_path / "findings.dcm")


def test_the_same_input_gives_the_same_uids_and_another_mask_other_ones(
    phantom: Phantom, series: DicomSeries, findings: Findings
) -> None:
    truth = phantom.lesions.voxels
    one, same = (make_segmentation(series, {"lesion": truth}, findings) for _ in range(2))
    other = make_segmentation(series, {"lesion": ~truth}, findings)
    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != one.SOPInstanceUID
    reports = [make_structured_report(series, each, findings).SOPInstanceUID for each in (one, same, other)]
    assert reports[0] == reports[1] != reports[2]


def test_the_structured_report_holds_the_findings(
    series: DicomSeries, findings: Findings, phantom: Phantom, tmp_path: Path
) -> None:
    segments = make_segmentation(series, {"lesion": phantom.lesions.voxels}, findings)
    stored = check(make_structured_report(series, segments, findings), tmp_path / "findings.dcm")
    values = [
        (
            item.ConceptNameCodeSequence[0].CodeMeaning,
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items(stored)
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


def items(item: Dataset) -> list[Dataset]:
    return [item, *(each for child in item.get("ContentSequence", []) for each in items(child))]


def test_unknown_values_are_left_out_of_the_structured_report(
    series: DicomSeries, findings: Findings, phantom: Phantom
) -> None:
    names = ("lesion_volume_ml", "lung_volume_ml", "lesion_share_of_lung_percent")
    nothing = dict.fromkeys(names)
    sides = {side: getattr(findings, side).model_copy(update=nothing) for side in ("right_lung", "left_lung")}
    unknown = findings.model_copy(update=nothing | sides)
    segments = make_segmentation(series, {"lesion": phantom.lesions.voxels}, unknown)
    report = make_structured_report(series, segments, unknown)
    assert not [item for item in items(report) if item.get("ValueType") == "NUM"]
