"""Whatever an anonymiser left of the headers: mask, findings and report are written, and DICOM where it can be."""

import io
import json
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from groundglass.apps.info import describe_input
from groundglass.apps.pacs.processing import SeriesTask, segment_series
from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_completion import complete_series
from groundglass.io.reader import read_scan
from groundglass.report import analysis as analysis_module
from groundglass.report import dicom_seg, dicom_sr
from groundglass.report.analysis import segment
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.cases import all_or_each, sample
from helpers.dicom_phantom import NAME, NUMBER, write_enhanced, write_series

Change = Callable[[Dataset, int], object]
CORE = {"lesions.nii.gz", "findings.json", "preview.png", "report.html"}
DICOM = {"lesions.dcm", "findings.dcm"}
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")


@pytest.fixture(scope="module")
def small() -> Phantom:
    return chest_phantom(shape=(5, 72, 96), extent_mm=(300.0, 288.0, 380.0))


@pytest.fixture(autouse=True)
def plain_preview(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw a preview only where the patient's name, which stands on it, is tested: no other header changes it."""
    if not {"character_set", "written"} & set(request.fixturenames):
        monkeypatch.setattr(analysis_module, "draw_preview", lambda *_, **__: Image.new("RGB", (9, 9)))


def stated(keyword: str, value: bytes) -> Change:
    """State an attribute with these bytes in every file, whatever they mean."""

    def change(data: Dataset, _: int) -> None:
        tag = Tag(tag_for_keyword(keyword) or 0)
        padded = value + b" " * (len(value) % 2)
        data[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)

    return change


def removed(keyword: str) -> Change:
    return lambda data, _: data.pop(keyword, None)


def of_all(changes: Iterable[Change]) -> Change:
    """Make all of these changes: none of them hides what another one leads to."""
    made = tuple(changes)

    def change(data: Dataset, number: int) -> None:
        for each in made:
            each(data, number)

    return change


def emptied(keyword: str) -> Change:
    return stated(keyword, b"")


def numbered(keyword: str, pattern: str) -> Change:
    return lambda data, number: stated(keyword, (pattern % number).encode())(data, number)


def write_changed(phantom: Phantom, folder: Path, change: Change) -> Path:
    for number, path in enumerate(write_series(phantom.scan, folder / "study" / "series")):
        data = pydicom.dcmread(path)
        change(data, number)
        data.save_as(path, enforce_file_format=False)
    return folder / "study" / "series"


def results(source: Path, segmenter: Segmenter, folder: Path) -> tuple[set[str], list[str]]:
    """Segment and save; check what was written; return names of the files and warnings."""
    analysis = segment(read_scan(source), segmenter, with_identity=True)
    names = {path.name for path in analysis.save(folder)}
    for name in names & DICOM:
        assert_legal(folder / name)
    if "lesions.dcm" in names:
        segmentation = pydicom.dcmread(folder / "lesions.dcm")
        assert int(segmentation.pixel_array.sum()) == int(analysis.lesions.voxels.sum()) > 0
    warnings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))["warnings"]
    assert names >= CORE
    return names, warnings


def assert_legal(path: Path) -> None:
    assert errors_of(path) == []


def errors_of(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds; none where it is not installed."""
    validator = shutil.which("dciodvfy")
    if not validator:
        return []
    done = subprocess.run([validator, path], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


OPTIONAL = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "InstanceNumber"),
    *("SeriesNumber", "Manufacturer", "ImageType", "PatientPosition", "KVP", "AcquisitionNumber"),
    "BodyPartExamined",
)
NEEDED = ("SliceThickness", "SOPClassUID", "StudyInstanceUID", "FrameOfReferenceUID")


@pytest.mark.parametrize("keywords", all_or_each(OPTIONAL))
@pytest.mark.parametrize("change", [removed, emptied], ids=["missing", "empty"])
@pytest.mark.thorough
def test_attributes_that_may_be_missing_cost_nothing(
    keywords: tuple[str, ...], change: Callable[[str], Change], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, of_all(map(change, keywords)))
    assert results(source, grey_band, tmp_path / "out") == (CORE | DICOM, [])


@pytest.mark.parametrize("keywords", all_or_each(NEEDED))
@pytest.mark.parametrize("change", [removed, emptied], ids=["missing", "empty"])
@pytest.mark.thorough
def test_attributes_that_are_needed_are_filled_in_with_a_note(
    keywords: tuple[str, ...], change: Callable[[str], Change], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, of_all(map(change, keywords)))
    names, (warning,) = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    _, _, notes = warning.partition("the headers do not state them as DICOM demands: ")
    of_class = "SOPClassUID (missing, or not that of such images)"
    expected = [of_class if keyword == "SOPClassUID" else f"{keyword} (missing)" for keyword in keywords]
    assert all(note in notes for note in expected)
    assert len(notes) == len(", ".join(expected))  # and nothing else
    measures = pydicom.dcmread(tmp_path / "out" / "lesions.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures[0].SliceThickness) == pytest.approx(small.scan.geometry.spacing[0])


@pytest.mark.parametrize(
    "value", sample([b"ANON-17", b"1.2." + b"3" * 76, b"1.2..3", b"1.2.", b"1.2\\1.3", b"1.2.x"], every=4)
)
@pytest.mark.parametrize("keywords", all_or_each(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")))
def test_uids_that_are_none_are_replaced_with_a_note(
    keywords: tuple[str, ...], value: bytes, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, of_all(stated(keyword, value) for keyword in keywords))
    names, (warning,) = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    for keyword in keywords:
        assert f"{keyword} (not a legal UID)" in warning


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_uids_that_differ_in_every_file_are_unified_with_a_note(
    keyword: str, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, numbered(keyword, "1.2.3.%d"))
    names, (warning,) = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    assert f"{keyword} (5 different ones)" in warning
    assert str(pydicom.dcmread(tmp_path / "out" / "lesions.dcm")[keyword].value).startswith("1.2.3.")


def test_an_odd_one_out_takes_the_uid_of_the_others(small: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.FrameOfReferenceUID = "1.2.4" if number == 0 else "1.2.3"

    results(write_changed(small, tmp_path, change), grey_band, tmp_path / "out")
    assert pydicom.dcmread(tmp_path / "out" / "lesions.dcm").FrameOfReferenceUID == "1.2.3"


def test_instances_of_several_series_are_referred_to_in_their_own(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, numbered("SeriesInstanceUID", "1.2.3.%d"))
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    referenced = pydicom.dcmread(tmp_path / "out" / "lesions.dcm").ReferencedSeriesSequence
    assert {str(item.SeriesInstanceUID) for item in referenced} == {f"1.2.3.{number}" for number in range(5)}
    assert all(len(item.ReferencedInstanceSequence) == 1 for item in referenced)


@pytest.mark.parametrize(
    ("keyword", "pattern"),
    sample(
        [
            ("SOPInstanceUID", "1.2.20200301.0%02d"),
            *((keyword, "1.2.20200301.007") for keyword in ("StudyInstanceUID", "SeriesInstanceUID")),
            *(("FrameOfReferenceUID", uid) for uid in ("1.2.00", "0123.4", "1.2.003", "5.6.7")),
            ("SeriesInstanceUID", "1.2.0%02d"),
        ],
        every=3,
    ),
)
def test_uids_that_dicom_does_not_allow_are_kept_with_a_note_if_archives_find_images_by_them(
    small: Phantom, grey_band: Segmenter, tmp_path: Path, keyword: str, pattern: str
) -> None:
    change = numbered(keyword, pattern) if "%" in pattern else stated(keyword, pattern.encode())
    analysis = segment(read_scan(write_changed(small, tmp_path, change)), grey_band)
    (warning,) = analysis.dicom_results.warnings
    assert warning.startswith(f"{keyword} is a UID that DICOM does not allow (a number begins with 0, or the first is")
    uids = {pattern % number for number in range(5)} if "%" in pattern else {pattern}
    for name in DICOM:
        content = analysis.dicom_results.files[name]
        found = pydicom.dcmread(io.BytesIO(content))
        named = {str(element.value) for element in found.iterall() if keyword in element.keyword}
        assert named & uids == uids or (name, keyword) == ("findings.dcm", "FrameOfReferenceUID")
        path = tmp_path / name
        path.write_bytes(content)
        assert [error for error in errors_of(path) if "UID" not in error and "Value Representation" not in error] == []


@pytest.mark.parametrize("uid", sample(["1.2.0.3", "1.2.0", "2.25.10", "1.20.300"], every=3))
def test_uids_with_zeros_that_dicom_allows_cost_nothing(
    small: Phantom, grey_band: Segmenter, tmp_path: Path, uid: str
) -> None:
    source = write_changed(small, tmp_path, stated("StudyInstanceUID", uid.encode()))
    names, warnings = results(source, grey_band, tmp_path / "out")
    assert names >= DICOM
    assert warnings == []
    assert pydicom.dcmread(tmp_path / "out" / "lesions.dcm").StudyInstanceUID == uid


def test_what_refers_to_other_studies_by_uids_that_dicom_does_not_allow_is_left_out(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    def refer(data: Dataset, _: int) -> None:
        reference = Dataset()
        reference.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
        reference.ReferencedSOPInstanceUID = "1.2.003"
        data.ReferencedStudySequence = [reference]

    names, warnings = results(write_changed(small, tmp_path, refer), grey_band, tmp_path / "out")
    assert names >= DICOM
    assert warnings == []
    assert "ReferencedStudySequence" not in pydicom.dcmread(tmp_path / "out" / "lesions.dcm")


def without_instance_uid(data: Dataset, _: int) -> None:
    del data.SOPInstanceUID
    del data.file_meta.MediaStorageSOPInstanceUID


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (without_instance_uid, "5 of 5 instances state no SOPInstanceUID"),
        (stated("SOPInstanceUID", b"1.2.3"), "5 of 5 instances state the SOPInstanceUID of another instance"),
        (stated("SOPInstanceUID", b"ANON"), "5 of 5 instances state a SOPInstanceUID that is no legal UID"),
        (stated("SOPInstanceUID", b"1.2." + b"3" * 76), "5 of 5 instances state a SOPInstanceUID that is no legal"),
    ],
)
def test_without_instances_to_refer_to_only_the_dicom_results_are_left_out(
    change: Change, fault: str, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    names, (warning,) = results(write_changed(small, tmp_path, change), grey_band, tmp_path / "out")
    assert names == CORE
    assert warning.startswith(f"lesions.dcm and findings.dcm were left out: {fault}")


def test_the_file_meta_header_gives_a_missing_instance_uid(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, removed("SOPInstanceUID"))
    assert results(source, grey_band, tmp_path / "out") == (CORE | DICOM, [])


ILLEGAL = {
    "StudyDate": (b"00000000", b"2020-03-01", b"2020.03.01", b"20200230", b"20200301-20200401"),
    "PatientBirthDate": (b"00000000", b"1901", b"19010203120000"),
    "StudyTime": (b"25:99", b"10:15:00", b"101500.1234567", b"24"),
    "PatientAge": (b"70", b"70Y", b"0070Y"),
    "PatientWeight": (b"abc", b"70,5", b"7" * 30),
    "PatientSex": (b"m", b"X", b"male"),
    "StudyDescription": (b"x" * 80, b"a\\b"),
    "SpacingBetweenSlices": (b"0", b"-5", b"abc", b""),
    "LossyImageCompression": (b"1", b"no", b""),
    "InstanceNumber": (b"abc", b"1.5", b"99999999999999"),
    "StudyID": (b"1" * 20,),
    "Manufacturer": (b"x" * 80,),
    "EthnicGroup": (b"x" * 40,),
    "SeriesNumber": (b"x",),
}


@pytest.mark.parametrize("number", range(max(map(len, ILLEGAL.values()))))
def test_values_that_dicom_does_not_allow_are_left_out(
    number: int, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    """The n-th value of each attribute, all of them in one series."""
    changes = (stated(keyword, values[number]) for keyword, values in ILLEGAL.items() if number < len(values))
    assert results(write_changed(small, tmp_path, of_all(changes)), grey_band, tmp_path / "out") == (CORE | DICOM, [])


@pytest.mark.parametrize(
    "elements",
    [
        {
            "StudyTime": ("CS", "CT", ""),
            "PatientID": ("SH", "P-7", "P-7"),
            "StudyDate": ("TM", "2020", ""),
            "PatientWeight": ("LO", "seventy", ""),
            "StudyInstanceUID": ("LO", "1.2.3", "1.2.3"),
        },
        {"StudyTime": ("LO", "101500", "101500")},
    ],
    ids="-".join,
)
def test_values_are_written_in_the_representation_of_the_standard(
    elements: dict[str, tuple[str, str, str]], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    def change(data: Dataset, _: int) -> None:
        for keyword, (representation, value, _written) in elements.items():
            data[keyword] = DataElement(keyword, representation, value)

    source = write_changed(small, tmp_path, change)
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    made = pydicom.dcmread(tmp_path / "out" / "lesions.dcm")
    assert {keyword: str(made.get(keyword) or "") for keyword in elements} == {
        keyword: written for keyword, (_, _, written) in elements.items()
    }


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    sample(
        [
            ("PatientID", b"x" * 80, ""),
            ("PatientID", b"a\\b", ""),
            ("PatientID", b"a\x01b", "a b"),
            ("AccessionNumber", b"1" * 20, ""),
            ("PatientName", b"x" * 80, "x" * 64),
            ("PatientName", b"A^B^C^D^E^F^G", "A^B^C^D^E F G"),
            ("PatientName", b"A=B=C=D", "A=B=C"),
            ("PatientName", b"A\\B", "A B"),
            ("PatientName", b"a\nb", "a b"),
        ],
        every=3,
    ),
)
def test_a_change_of_who_the_patient_is_is_noted(
    keyword: str, value: bytes, written: str, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, stated(keyword, value))
    _, (warning,) = results(source, grey_band, tmp_path / "out")
    assert f"{keyword} (not a legal value)" in warning
    for name in DICOM:
        assert str(pydicom.dcmread(tmp_path / "out" / name)[keyword].value or "") == written


@pytest.mark.parametrize("value", sample([b"0", b"-5", b"abc", b"5,0", b"1\\2", b"5" * 30, b"nan"], every=4))
@pytest.mark.thorough
def test_a_thickness_that_is_none_is_the_distance_of_the_slices(
    value: bytes, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, stated("SliceThickness", value))
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM


@pytest.mark.parametrize(
    ("keyword", "item"),
    sample(
        [
            ("ProcedureCodeSequence", {}),
            ("ProcedureCodeSequence", {"CodeMeaning": "CT"}),
            ("ProcedureCodeSequence", {"CodeValue": "", "CodingSchemeDesignator": "", "CodeMeaning": ""}),
            ("ReferencedStudySequence", {"ReferencedSOPInstanceUID": "1.2.3"}),
            ("OtherPatientIDsSequence", {"PatientID": "1"}),
            ("DeidentificationMethodCodeSequence", {"CodeValue": "113100"}),
        ],
        every=3,
    ),
)
def test_sequences_that_lack_something_are_left_out(
    keyword: str, item: dict[str, str], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    def change(data: Dataset, _: int) -> None:
        part = Dataset()
        for name, value in item.items():
            setattr(part, name, value)
        setattr(data, keyword, [part])

    source = write_changed(small, tmp_path, change)
    assert results(source, grey_band, tmp_path / "out") == (CORE | DICOM, [])
    assert keyword not in pydicom.dcmread(tmp_path / "out" / "lesions.dcm")


def test_the_orientation_of_each_frame_serves_for_all(small: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    path = write_enhanced(small.scan, tmp_path / "ct.dcm")
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    for frame in data.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = (
            shared.PlaneOrientationSequence,
            shared.PixelMeasuresSequence,
        )
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.save_as(path)
    names, (warning,) = results(path, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    assert "SOPClassUID" in warning


def splice(path: Path, character_set: bytes, name: bytes) -> None:
    """State a character set and the bytes of the patient's name in a file, as no library would."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    content = path.read_bytes()
    first, old = element(8, 8, b"CS", b"")[:6], element(0x10, 0x10, b"PN", NAME.encode())
    assert first in content
    assert old in content
    content = content.replace(first, element(8, 5, b"CS", character_set) + first, 1)
    path.write_bytes(content.replace(old, element(0x10, 0x10, b"PN", name), 1))


@pytest.mark.parametrize(
    ("character_set", "codec", "name"),
    sample(
        [
            ("ISO_IR 100", "latin_1", "Müller^Jörg"),
            ("UTF-8", "utf_8", "王^小东"),
            ("ISO_IR_192", "utf_8", "王^小东"),
            ("ISO_IR 144", "iso8859_5", "Люк^А"),
            ("\\ISO 2022 IR 87", "iso2022_jp", "Yamada^Tarou=山田^太郎"),
            ("ISO 2022 IR 87", "iso2022_jp", "Yamada^Tarou=山田^太郎"),
            ("ISO_IR 13\\ISO 2022 IR 87", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
            ("GB18030", "gb18030", "Wang=王^小东"),
            ("ISO_IR 203", "iso8859_15", "Cœur^€"),
            ("FOO", "latin_1", "Müller^Jörg"),
            ("ISO_IR 192\\ISO 2022 IR 87", "utf_8", "王^小东"),
        ],
        every=4,
    ),
)
def test_names_in_any_character_set_are_written_in_unicode(
    character_set: str, codec: str, name: str, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    for path in write_series(small.scan, tmp_path / "series"):
        splice(path, character_set.encode(), name.encode(codec))
    assert results(tmp_path / "series", grey_band, tmp_path / "out") == (CORE | DICOM, [])
    for file in DICOM:
        stored = pydicom.dcmread(tmp_path / "out" / file)
        assert (stored.SpecificCharacterSet, str(stored.PatientName)) == ("ISO_IR 192", name)
    identity = json.loads((tmp_path / "out" / "findings.json").read_text(encoding="utf-8"))["input"]["identity"]
    assert identity["patient_name"] == name


def test_the_headers_of_the_scan_stay_as_they_are(small: Phantom, tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            stated(keyword, f"1.2.3.{number}".encode())(data, number)
        stated("SliceThickness", b"0")(data, number)
        stated("SpecificCharacterSet", b"ISO_IR 100")(data, number)

    series = read_scan(write_changed(small, tmp_path, change)).series
    assert series is not None
    before = [str(header) for header in series.headers]
    notes = complete_series(series).notes
    assert [str(header) for header in series.headers] == before
    assert complete_series(series).notes == notes != ()


def test_plain_headers_state_no_character_set(small: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    results(write_changed(small, tmp_path, lambda *_: None), grey_band, tmp_path / "out")
    stored = pydicom.dcmread(tmp_path / "out" / "lesions.dcm")
    assert "SpecificCharacterSet" not in stored
    assert (str(stored.PatientName), stored.PatientID) == (NAME, NUMBER)


def fail(*_: object, **__: object) -> None:
    raise RuntimeError(f"a library quotes {NAME}")


@pytest.mark.parametrize(
    ("module", "function", "kept", "words"),
    [
        (dicom_seg, "make_segmentation", CORE, "lesions.dcm and findings.dcm were left out: RuntimeError in"),
        (dicom_sr, "make_structured_report", CORE | {"lesions.dcm"}, "findings.dcm was left out: RuntimeError in"),
        (
            analysis_module,
            "draw_preview",
            (CORE | DICOM) - {"preview.png"},
            "the preview was left out: RuntimeError in",
        ),
    ],
)
def test_what_is_optional_never_costs_what_is_not(
    module: object,
    function: str,
    kept: set[str],
    words: str,
    small: Phantom,
    grey_band: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, function, fail)
    source = write_changed(small, tmp_path, lambda *_: None)
    analysis = segment(read_scan(source), grey_band)
    names = {path.name for path in analysis.save(tmp_path / "out")}
    assert names == kept
    (warning,) = json.loads((tmp_path / "out" / "findings.json").read_text())["warnings"]
    assert warning.startswith(words)
    assert NAME not in warning
    assert analysis.saved_findings.warnings == (warning,)
    assert words.split(":")[0] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", sample([b"\xed\xa0\x80", b"thick", b"1,5", b"1e999"], every=3))
def test_a_thickness_that_is_no_number_does_not_cost_the_segmentation_of_frames(
    value: bytes, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    path = write_enhanced(small.scan, tmp_path / "a.dcm", SpecificCharacterSet="ISO_IR 192")
    data = pydicom.dcmread(path)
    stated("SliceThickness", value)(data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], 0)
    data.save_as(path)
    assert results(path, grey_band, tmp_path / "out")[0] == CORE | DICOM


def test_watch_refuses_a_series_that_can_have_no_segmentation(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, stated("SOPInstanceUID", b"1.2.3"))
    header = pydicom.dcmread(next(source.iterdir()), stop_before_pixels=True)
    study, uid = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    with pytest.raises(FormatError, match="left out: 5 of 5 instances state the SOPInstanceUID of another"):
        segment_series(SeriesTask(study, uid, source, tmp_path / "results"), grey_band)
    assert not (tmp_path / "results").exists()


def test_watch_says_what_was_filled_in(small: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    source = write_changed(small, tmp_path, removed("SliceThickness"))
    header = pydicom.dcmread(next(source.iterdir()), stop_before_pixels=True)
    study, uid = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
    result = segment_series(SeriesTask(study, uid, source, tmp_path / "results"), grey_band)
    assert len(result.uids) == 2
    assert "SliceThickness" in result.notes[0]


@pytest.mark.parametrize("value", [None, b"1", b"1\\0\\0\\0\\1"])
def test_a_single_slice_without_an_orientation_gets_no_segmentation(
    value: bytes | None, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    keyword = "ImageOrientationPatient"
    source = write_changed(small, tmp_path, removed(keyword) if value is None else stated(keyword, value))
    found = segment(read_scan(sorted(source.iterdir())[2]), grey_band)
    assert found.dicom_results.left_out == (
        "lesions.dcm and findings.dcm were left out: the images state no orientation, so that they cannot be placed"
    )


def test_the_pixel_spacing_that_one_image_lacks_is_that_of_the_others(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, lambda data, z: data.pop("PixelSpacing", None) if z == 0 else None)
    names, warnings = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    assert "PixelSpacing (missing in the first instance)" in " ".join(warnings)


def test_decimal_commas_in_every_frame_are_written_as_points(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_enhanced(small.scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(source)
    places = [frame.PlanePositionSequence[0] for frame in data.PerFrameFunctionalGroupsSequence]
    for place in places:
        position = "\\".join(f"{float(value):.2f}" for value in place.ImagePositionPatient)
        stated("ImagePositionPatient", position.replace(".", ",").encode())(place, 0)
    data.save_as(source)
    names, warnings = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    assert "decimal commas" in " ".join(warnings)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, whose terminal gets what libraries print too."""
    command = [sys.executable, "-m", "groundglass", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.thorough
def test_the_terminal_says_why_files_are_left_out_and_nothing_else(
    small: Phantom, grey_band_model: Path, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, without_instance_uid)
    done = run("segment", source, "--output", tmp_path / "out", "--model", grey_band_model)
    assert done.returncode == 0
    assert "warning: lesions.dcm and findings.dcm were left out: 5 of 5" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "pydicom" not in done.stderr


@pytest.mark.slow
def test_a_real_anonymised_series_is_read_without_a_stray_line(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent.parent.parent / "shared" / "more" / "odd" / "normal_chest"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    done = run("segment", source, "--output", tmp_path / "out")
    assert done.returncode == 0
    assert done.stderr == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == CORE | DICOM | {"classes.nii.gz"}
    for name in DICOM:
        assert_legal(tmp_path / "out" / name)


@pytest.mark.parametrize("sequence", ["PlaneOrientationSequence", "PixelMeasuresSequence"])
def test_what_frames_share_may_stand_outside_their_groups(
    sequence: str, small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_enhanced(small.scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(source)
    (shared,) = data.SharedFunctionalGroupsSequence
    for element in shared[sequence].value[0]:
        data[element.tag] = element
    del shared[sequence]
    data.save_as(source)
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM


def thickness_per_frame(data: Dataset, shared: Dataset) -> None:
    """Let each frame state its thickness, and all together the pixel spacing."""
    thickness = shared.PixelMeasuresSequence[0].pop("SliceThickness")
    for frame in data.PerFrameFunctionalGroupsSequence:
        frame.PixelMeasuresSequence = [Dataset()]
        frame.PixelMeasuresSequence[0][thickness.tag] = thickness


def spacing_outside(data: Dataset, shared: Dataset) -> None:
    """Leave the thickness alone in its group, and the pixel spacing outside."""
    spacing = shared.PixelMeasuresSequence[0].pop("PixelSpacing")
    data[spacing.tag] = spacing


def slope_outside(data: Dataset, shared: Dataset) -> None:
    """Leave the intercept alone in its group, and the slope outside."""
    slope = shared.PixelValueTransformationSequence[0].pop("RescaleSlope")
    data[slope.tag] = slope


def groups_in_items(data: Dataset, shared: Dataset) -> None:
    """Put each group that all frames share into an item of its own."""
    items = []
    for element in shared:
        item = Dataset()
        item[element.tag] = element
        items.append(item)
    data.SharedFunctionalGroupsSequence = items


@pytest.mark.parametrize("spread", [thickness_per_frame, spacing_outside, slope_outside, groups_in_items])
def test_what_a_group_states_may_be_spread_over_frame_shared_groups_and_header(
    spread: Callable[[Dataset, Dataset], None], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_enhanced(small.scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(source)
    spread(data, data.SharedFunctionalGroupsSequence[0])
    data.save_as(source)
    scan = read_scan(source)
    assert (scan.values == small.scan.values).all()
    assert scan.geometry.matches(small.scan.geometry)
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    for name in DICOM:
        assert_legal(tmp_path / "out" / name)


def test_the_rescale_of_all_frames_may_stand_outside_their_groups(small: Phantom, tmp_path: Path) -> None:
    source = write_enhanced(small.scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(source)
    (shared,) = data.SharedFunctionalGroupsSequence
    del shared.PixelValueTransformationSequence
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    data.save_as(source)
    scan = read_scan(source)
    assert (scan.values == small.scan.values).all()
    assert scan.notes == ()


def test_a_copy_of_an_image_costs_no_segmentation_and_info_says_so(
    small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, lambda *_: None)
    first = sorted(source.iterdir())[0]
    shutil.copy(first, source / "copy.dcm")
    names, _ = results(source, grey_band, tmp_path / "out")
    assert names == CORE | DICOM
    assert describe_input(source).notes == ("1 image of the same place and pixels left out",)


@pytest.mark.parametrize("keywords", all_or_each(("InstanceNumber", "SeriesNumber", "AcquisitionTime")))
def test_a_damaged_value_of_every_header_is_not_printed(
    keywords: tuple[str, ...], small: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    source = write_changed(small, tmp_path, of_all(stated(keyword, b"PLANTED") for keyword in keywords))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of pydicom would stand on the terminal, with the value
        names = {path.name for path in segment(read_scan(source), grey_band).save(tmp_path / "out")}
    assert names == CORE | DICOM
