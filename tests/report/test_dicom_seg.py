"""The DICOM Segmentation and Structured Report: legal instances that hold mask and findings."""

import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_completion import complete_series
from groundglass.report.analysis import segment
from groundglass.report.density import MeanIntensity
from groundglass.report.dicom_seg import make_segmentation, write_dicom
from groundglass.report.dicom_sr import make_structured_report
from groundglass.report.distribution import Zone
from groundglass.report.findings import Burden, Findings
from groundglass.scan.phantom import Phantom, chest_phantom
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
    wrong = make_segmentation(series, np.zeros((len(series.headers), 144, 190), dtype=np.bool_), ["lesion"], findings)
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
    stored = check(make_segmentation(series, truth, ["lesion"], findings), tmp_path / "lesions.dcm")
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
    check(make_segmentation(series, empty, ["lesion"], findings), tmp_path / "lesions.dcm")
    assert not read_masks(tmp_path / "lesions.dcm", series).any()
    assert capfd.readouterr() == ("", "")


def test_each_class_has_a_segment_of_its_own(
    phantom: Phantom, series: DicomSeries, findings: Findings, tmp_path: Path
) -> None:
    whole = phantom.lesions.voxels
    upper = whole & (np.arange(len(whole)) > len(whole) / 2)[:, None, None]
    classes = {"ground-glass": whole & ~upper, "consolidation": upper, "effusion": np.zeros_like(whole)}
    class_map = classes["ground-glass"] + 2 * classes["consolidation"].astype(np.uint8)
    stored = check(make_segmentation(series, class_map, list(classes), findings), tmp_path / "lesions.dcm")
    assert [each.SegmentLabel for each in stored.SegmentSequence] == list(classes)
    found = read_masks(tmp_path / "lesions.dcm", series)
    for number, mask in enumerate(classes.values()):
        assert np.array_equal(found[..., number], mask)


def test_making_a_segmentation_takes_little_memory_beside_the_class_map(
    phantom: Phantom, series: DicomSeries, findings: Findings
) -> None:
    """highdicom would sum up masks of several classes in numbers of eight bytes."""
    class_map, names = phantom.lesions.voxels.astype(np.uint8), ["ground-glass", "consolidation"]
    make_segmentation(series, class_map, names, findings)  # tables of attributes are read once
    tracemalloc.start()
    try:
        make_segmentation(series, class_map, names, findings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * class_map.nbytes


def test_invalid_values_of_the_source_become_empty(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    """Scanners and anonymisers write such values; highdicom refuses them, and quotes them in its error."""
    values = {"PatientBirthDate": "00000000", "StudyDate": "no date", "StudyTime": "25:99", "PatientSex": "unknown"}
    damaged = read(write_series(phantom.scan, tmp_path / "study" / "series", **values))
    segments = make_segmentation(damaged, phantom.lesions.voxels, ["lesion"], findings)
    stored = check(segments, tmp_path / "lesions.dcm")
    report = check(make_structured_report(damaged, segments, findings), tmp_path / "findings.dcm")
    for name in values:
        assert not stored[name].value
        assert not report[name].value
    assert stored.PatientID == NUMBER
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", damaged)[..., 0], phantom.lesions.voxels)


def test_an_anonymised_source_gives_legal_instances(phantom: Phantom, findings: Findings, tmp_path: Path) -> None:
    bare = read(write_series(phantom.scan, tmp_path / "study" / "series", **ANONYMISED))
    segments = make_segmentation(bare, phantom.lesions.voxels, ["lesion"], findings)
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
    segments = make_segmentation(series, truth, ["lesion"], findings)
    check(segments, tmp_path / "lesions.dcm")
    assert np.array_equal(read_masks(tmp_path / "lesions.dcm", series)[..., 0], truth)
    check(make_structured_report(series, segments, findings), tmp_path / "findings.dcm")


@pytest.mark.parametrize("factor", [0.5, -1])
@pytest.mark.parametrize("write", [write_series, write_enhanced])
def test_the_segmentation_states_the_distance_at_which_its_slices_lie(
    write: Callable[..., Any], factor: float, phantom: Phantom, findings: Findings, tmp_path: Path
) -> None:
    """Programs that place slices by a distance which they state put the mask elsewhere."""
    distance = phantom.scan.geometry.spacing[0]
    paths = write(phantom.scan, tmp_path / "ct", SpacingBetweenSlices=f"{factor * distance:.6g}")
    series = read(paths if isinstance(paths, list) else [paths])
    if not isinstance(paths, list):
        (header,) = series.headers
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = header.SpacingBetweenSlices
        series = DicomSeries((header,), tuple(range(len(phantom.scan.values))))
    stored = check(make_segmentation(series, phantom.lesions.voxels, ["lesion"], findings), tmp_path / "lesions.dcm")
    measures = stored.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(distance, rel=1e-4)
    named = "SpacingBetweenSlices (not the distance of the images)" in " ".join(complete_series(series).notes)
    assert named == (factor != -1)


@pytest.mark.parametrize("shift", [(0, 0, 1.2), (0, 4, 0)], ids=["uneven", "tilted"])
def test_the_segmentation_states_the_distance_of_slices_that_are_uneven_or_askew(
    shift: tuple[float, float, float], findings: Findings, tmp_path: Path
) -> None:
    """It stated none, and their thickness, which overlaps here."""
    scan = chest_phantom(shape=(5, 48, 64), oblique=False).scan
    paths = write_series(scan, tmp_path / "ct", SliceThickness="60")
    for number, path in enumerate(paths):
        data = pydicom.dcmread(path)
        steps = np.array(shift) * (number % 2 if shift[2] else number)
        data.ImagePositionPatient = [float(mm) for mm in np.array(data.ImagePositionPatient, float) + steps]
        data.save_as(path)
    marked = np.zeros(scan.values.shape, np.bool_)
    marked[1:4, 10:20, 10:20] = True
    segmentation = make_segmentation(read(paths), marked, ["lesion"], findings)
    stored = check(segmentation, tmp_path / "lesions.dcm")
    measures = stored.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(scan.geometry.spacing[0], rel=1e-3)


def test_the_same_input_gives_the_same_uids_and_another_mask_other_ones(
    phantom: Phantom, series: DicomSeries, findings: Findings
) -> None:
    truth = phantom.lesions.voxels
    one, same = (make_segmentation(series, truth, ["lesion"], findings) for _ in range(2))
    other = make_segmentation(series, ~truth, ["lesion"], findings)
    assert one.SOPInstanceUID == same.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != one.SOPInstanceUID
    reports = [make_structured_report(series, each, findings).SOPInstanceUID for each in (one, same, other)]
    assert reports[0] == reports[1] != reports[2]


def test_a_mask_that_a_person_left_as_it_was_is_another_instance_and_the_report_names_the_person(
    phantom: Phantom, series: DicomSeries, findings: Findings
) -> None:
    by_hand = findings.model_copy(update={"corrected_by_hand": True})
    truth = phantom.lesions.voxels
    segmentations = [make_segmentation(series, truth, ["lesion"], each) for each in (findings, by_hand)]
    types = [each.SegmentSequence[0].SegmentAlgorithmType for each in segmentations]
    assert types == ["AUTOMATIC", "SEMIAUTOMATIC"]
    assert len({each.SOPInstanceUID for each in segmentations}) == 2
    reports = [
        [element.value for element in make_structured_report(series, segmentation, each).iterall()]
        for segmentation, each in zip(segmentations, (findings, by_hand), strict=True)
    ]
    assert ["lesions corrected by hand" in report for report in reports] == [False, True]


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({"lesion_volume_interval_ml": (1.0, 2.0)}, True),  # the card of the model was changed, not its weights
        ({"lung_volume_ml": 4321.0}, True),
        ({"analysed": datetime(2026, 1, 1, tzinfo=UTC), "seconds": {"measure": 9.0}}, False),
    ],
    ids=["other interval", "other lungs", "another time"],
)
def test_a_report_that_states_something_else_of_the_same_mask_has_another_uid(
    phantom: Phantom, series: DicomSeries, findings: Findings, changes: dict[str, Any], is_another: bool
) -> None:
    mask = make_segmentation(series, phantom.lesions.voxels, ["lesion"], findings)
    one, other = (
        make_structured_report(series, mask, each) for each in (findings, findings.model_copy(update=changes))
    )
    assert (one.SOPInstanceUID != other.SOPInstanceUID) is is_another


Value = tuple[str, float, str, str, str]  # name, number, unit, side, third of the height


def numbers(report: Dataset) -> list[Value]:
    """The measurements of a report, in its order."""
    found = []
    for item in items(report):
        if item.get("ValueType") != "NUM" or "uncertainty" in item.ConceptNameCodeSequence[0].CodeMeaning:
            continue
        codes = [code for site in item.get("ContentSequence", ()) for code in site.get("ContentSequence", ())]
        inner = {code.ConceptNameCodeSequence[0].CodeMeaning: code.ConceptCodeSequence[0].CodeMeaning for code in codes}
        number = item.MeasuredValueSequence[0]
        place = inner.get("Laterality", ""), inner.get("Topographical modifier", "").partition(" ")[0].lower()
        unit = number.MeasurementUnitsCodeSequence[0].CodeValue
        found.append((item.ConceptNameCodeSequence[0].CodeMeaning, float(number.NumericValue), unit, *place))
    return found


def expected_burden(burden: Burden | Zone, side: str = "", third: str = "") -> list[Value]:
    share = "Lesion share of the zone's lung volume" if third else "Lesion share of lung volume"
    values = (
        ("Volume", burden.lesion_volume_ml, "ml"),
        (share, burden.lesion_share_of_lung_percent, "%"),
        ("Lung volume, lesions included", burden.lung_volume_ml, "ml"),
    )
    return [(name, value, unit, side, third) for name, value, unit in values if value is not None]


def test_the_structured_report_holds_burden_zones_densities_and_extent(
    series: DicomSeries, findings: Findings, phantom: Phantom, tmp_path: Path
) -> None:
    segments = make_segmentation(series, phantom.lesions.voxels, ["lesion"], findings)
    stored = check(make_structured_report(series, segments, findings), tmp_path / "findings.dcm")
    expected = expected_burden(findings.both_lungs)
    expected += expected_burden(findings.right_lung, "Right") + expected_burden(findings.left_lung, "Left")
    assert findings.zones is not None
    for zone in findings.zones:
        expected += expected_burden(zone, zone.side.capitalize(), zone.third)
    density, means = "Attenuation Coefficient", findings.mean_intensity
    assert means.lesion_hu is not None
    assert means.lung_hu is not None
    expected += [(density, means.lesion_hu, "[hnsf'U]", "", ""), (density, means.lung_hu, "[hnsf'U]", "", "")]
    assert findings.density_bands is not None
    for band in findings.density_bands:
        name = f"Share of lung from {band.low_hu} to {band.high_hu} HU, {band.name}"
        expected.append((name, band.share_of_lung_percent, "%", "", ""))
    assert numbers(stored) == expected
    assert segments.SOPInstanceUID in str(stored.CurrentRequestedProcedureEvidenceSequence)
    assert findings.extent is not None
    extents = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in items(stored)
        if item.get("ValueType") == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning.startswith("Extent")
    ]
    assert extents == [f"{findings.extent.name} ({findings.extent.range})"]


def test_the_structured_report_holds_the_interval_as_uncertainty(
    series: DicomSeries, findings: Findings, phantom: Phantom, tmp_path: Path
) -> None:
    update = {"lesion_volume_interval_ml": (210.0, 390.5), "lesion_share_interval_percent": (5.1, 9.2)}
    segments = make_segmentation(series, phantom.lesions.voxels, ["lesion"], findings)
    report = make_structured_report(series, segments, findings.model_copy(update=update))
    stored = check(report, tmp_path / "findings.dcm")
    ends = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in items(stored)
        if item.get("ValueType") == "NUM" and "uncertainty" in item.ConceptNameCodeSequence[0].CodeMeaning
    ]
    assert sorted(ends) == [5.1, 9.2, 210.0, 390.5]


@pytest.mark.thorough
def test_the_structured_report_of_classes_measures_each_segment_and_all_of_them_together(
    phantom: Phantom, class_bands: Segmenter, tmp_path: Path
) -> None:
    write_series(phantom.scan, tmp_path / "ct")
    result = segment(tmp_path / "ct", class_bands)
    result.save(tmp_path / "out")
    assert check(pydicom.dcmread(tmp_path / "out" / "findings.dcm"), tmp_path / "again.dcm")
    stored = pydicom.dcmread(tmp_path / "out" / "findings.dcm")
    volumes = [value for name, value, _, side, _ in numbers(stored) if name == "Volume" and not side]
    classes = result.findings.classes
    assert volumes == [result.findings.lesion_volume_ml, *(each.volume_ml for each in classes)]
    assert volumes[0] == pytest.approx(sum(volumes[1:]), abs=0.002)
    segments = [
        item.ReferencedSOPSequence[0].ReferencedSegmentNumber
        for item in items(stored)
        if item.get("ValueType") == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
    ]
    assert segments == [1, 2]


def items(item: Dataset) -> list[Dataset]:
    return [item, *(each for child in item.get("ContentSequence", []) for each in items(child))]


def test_unknown_values_are_left_out_of_the_structured_report(
    series: DicomSeries, findings: Findings, phantom: Phantom
) -> None:
    names = ("lesion_volume_ml", "lung_volume_ml", "lesion_share_of_lung_percent")
    nothing = dict.fromkeys(names)
    sides = {side: getattr(findings, side).model_copy(update=nothing) for side in ("right_lung", "left_lung")}
    means = MeanIntensity(lesion_hu=None, lung_hu=None)
    others = {"zones": None, "density_bands": None, "extent": None, "mean_intensity": means}
    unknown = findings.model_copy(update=nothing | sides | others)
    segments = make_segmentation(series, phantom.lesions.voxels, ["lesion"], unknown)
    report = make_structured_report(series, segments, unknown)
    assert not [item for item in items(report) if item.get("ValueType") == "NUM"]
