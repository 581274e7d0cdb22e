"""Which files are DICOM, which series is chosen, and what the series are called."""

import copy
import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError, LungError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import NAME, write_enhanced, write_series

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64)).scan


@pytest.fixture(scope="module")
def larger(scan: Scan) -> Scan:
    """Another scan, of more slices."""
    values = np.full((12, 48, 64), 40, dtype=np.int16)
    return Scan(values, Geometry(values.shape, scan.geometry.affine_lps))


# What is chosen and offered


NEVER_OFFERED: dict[str, dict[str, Any]] = {
    "projection by type": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]},
    "projection of GE": {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MIP"]},
    "projection of an enhanced CT": {"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]},
    "projection by technique": {"VolumeBasedCalculationTechnique": "MAX_IP"},
    "projection by description": {"SeriesDescription": "Thorax MIP 8/3"},
    "minimum by description": {"SeriesDescription": "MinIP lung", "ImageType": ["DERIVED", "SECONDARY"]},
    "iodine by unit": {"RescaleType": "MGML", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "iodine by description": {"SeriesDescription": "Iodine no water", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]},
    "effective atomic number": {"RescaleType": "Z_EFF"},
    "effective atomic number by type": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"]},
    "electron density": {"RescaleType": "ED"},
    "colour map": {"PhotometricInterpretation": "PALETTE COLOR"},
    "fused colours": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "localizer by description": {"SeriesDescription": "Topogram 0.6", "ImageType": None},
    "segmentation": {"SOPClassUID": SEGMENTATION, "Modality": "SEG"},
    "report": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.34", "Modality": "SR"},
    "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "PET": {"Modality": "PT"},
}


def chosen_beside(other: Scan, changes: dict[str, Any], chest: Scan, folder: Path) -> Scan:
    """Read a folder with a chest as series 3 and, as series 1, another scan with changed attributes."""
    write_series(chest, folder / "chest", SeriesNumber=3)
    write_series(other, folder / "other", SeriesNumber=1, **changes)
    return read_scan(folder)


@pytest.mark.parametrize("changes", NEVER_OFFERED.values(), ids=NEVER_OFFERED.keys())
def test_what_is_no_plain_ct_is_neither_chosen_nor_offered(
    changes: dict[str, Any], scan: Scan, larger: Scan, tmp_path: Path
) -> None:
    found = chosen_beside(larger, changes, scan, tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ()
    assert found.choice is None


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        {"BodyPartExamined": "ABDOMEN"},
        {"BodyPartExamined": "HEAD"},
        {"BodyPartExamined": "", "SeriesDescription": "Abdomen/Pelvis 5.0"},
    ],
    ids=["derived", "abdomen", "head", "abdomen by description"],
)
def test_derived_series_and_other_parts_of_the_body_come_last_and_are_offered(
    changes: dict[str, Any], scan: Scan, larger: Scan, tmp_path: Path
) -> None:
    found = chosen_beside(larger, changes, scan, tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes[0].startswith(
        "series 3 (8 slices 30 mm apart) was chosen; others there: 1 (12 slices 30 mm apart,"
    )
    assert np.array_equal(read_scan(tmp_path / "a", series="1").values, larger.values)


def test_images_of_one_place_do_not_outnumber_a_chest(scan: Scan, tmp_path: Path) -> None:
    """Contrast is monitored by many images of one slice."""
    write_series(scan, tmp_path / "a" / "chest")
    place = scan.geometry.affine_lps[:3, 3].tolist()
    many = Scan(np.repeat(scan.values, 3, axis=0), Geometry((24, 48, 64), scan.geometry.affine_lps))
    write_series(many, tmp_path / "a" / "monitoring", ImagePositionPatient=place, SeriesNumber=1)
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


@pytest.mark.parametrize("description", ["Thorax MIP 8/3", "Iodine map", "lung colour"])
def test_a_word_in_a_description_alone_does_not_refuse_a_ct(description: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", SeriesDescription=description)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    (note,) = found.notes
    assert note.startswith("its description names a ")
    assert description not in note


def test_a_map_alone_is_refused_and_can_be_forced(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", RescaleType="MGML")
    with pytest.raises(FormatError, match=r"no CT series but series 2 .*another unit than HU\); .*--force-modality"):
        read_scan(tmp_path / "a")
    (note,) = read_scan(tmp_path / "a", force_modality=True).notes
    assert note == "the series is a map in another unit than HU by its header, read as CT on request"


@pytest.mark.parametrize(
    ("types", "reason"),
    [(["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"], "localizer"), (["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"], "MIP")],
)
def test_the_type_of_all_frames_tells_what_a_multi_frame_image_shows(
    types: list[str], reason: str, scan: Scan, tmp_path: Path
) -> None:
    path = write_enhanced(scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    group = pydicom.Dataset()
    group.FrameType = types
    data.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [group]
    data.save_as(path)
    with pytest.raises(FormatError, match=f"no CT .*{reason}"):
        read_scan(path)


@pytest.mark.parametrize(
    ("group", "keyword", "value", "reason"),
    [
        ("CTImageFrameTypeSequence", "FrameType", ["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"], "a projection"),
        ("CTImageFrameTypeSequence", "FrameType", ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"], "localizer"),
        ("CTImageFrameTypeSequence", "VolumeBasedCalculationTechnique", "MAX_IP", "a projection"),
        ("PixelValueTransformationSequence", "RescaleType", "MGML", "a map in another unit than HU"),
    ],
)
def test_what_each_frame_states_of_itself_tells_what_a_multi_frame_image_shows(
    group: str, keyword: str, value: Any, reason: str, scan: Scan, tmp_path: Path
) -> None:
    """Such images were taken for plain CT."""
    path = write_enhanced(scan, tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    item = copy.deepcopy(shared[group].value[0]) if group in shared else pydicom.Dataset()
    setattr(item, keyword, value)
    if group in shared:
        del shared[group]
    for frame in data.PerFrameFunctionalGroupsSequence:
        setattr(frame, group, [copy.deepcopy(item)])
    data.save_as(path)
    with pytest.raises(FormatError, match=f"no CT .*{reason}"):
        read_scan(path)


@pytest.mark.parametrize(
    ("keyword", "values"), [("RescaleIntercept", ["-1024", "-1024"]), ("RescaleSlope", ["1", "1"])]
)
def test_a_rescale_that_is_stated_twice_counts_once(
    keyword: str, values: list[str], scan: Scan, tmp_path: Path
) -> None:
    """It counted as none, and values were taken as they are stored."""
    write_series(scan, tmp_path / "a", **{keyword: values})
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ()


def test_ct_images_that_state_no_modality_are_read(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", Modality=None)
    assert read_scan(tmp_path / "a").notes == ("no modality is stated: CT is assumed, as the class of the images says",)


@pytest.mark.parametrize(
    "changes",
    [
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    ],
    ids=["secondary capture", "screen save"],
)
def test_a_picture_of_the_screen_among_the_slices_is_left_out_and_counted(
    changes: dict[str, Any], scan: Scan, tmp_path: Path
) -> None:
    write_series(scan, tmp_path / "a", SeriesInstanceUID="1.2.3")
    shape = (1, *scan.geometry.shape[1:])
    picture = Scan(np.zeros(shape, np.int16), Geometry(shape, scan.geometry.affine_lps))
    unplaced = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    (path,) = write_series(picture, tmp_path / "b", SeriesInstanceUID="1.2.3", **unplaced, **changes)
    path.rename(tmp_path / "a" / "screen.dcm")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("left out: 1 secondary capture",)


# What series are called


def test_series_of_several_patients_are_said_to_be_so(scan: Scan, tmp_path: Path) -> None:
    for number, patient in enumerate(("A1", "B2"), start=1):
        write_series(scan, tmp_path / "a" / patient, PatientID=patient, SeriesNumber=number)
    (note,) = read_scan(tmp_path / "a").notes
    assert "series 1 (8 slices 30 mm apart) was chosen; others there, of 2 patients by their IDs: 2 (8 sl" in note
    assert "A1" not in note
    assert "B2" not in note


def test_a_kernel_of_several_values_is_known_and_named_by_them(scan: Scan, tmp_path: Path) -> None:
    """Of iterative reconstructions scanners state the strength too: the soft series was chosen."""
    for number, kernel in ((1, ["I31f", "3"]), (2, ["I70f", "3"])):
        write_series(scan, tmp_path / "a" / str(number), SeriesNumber=number, ConvolutionKernel=kernel)
    (note,) = read_scan(tmp_path / "a").notes
    assert note.startswith(
        "series 2 (kernel I70f 3, 8 slices 30 mm apart) was chosen; others there: 1 (kernel I31f 3, "
    )


def with_group(path: Path, sequence: str, **stated: Any) -> None:
    """Give all frames of an enhanced CT a functional group."""
    data, group = pydicom.dcmread(path), pydicom.Dataset()
    for keyword, value in stated.items():
        setattr(group, keyword, value)
    setattr(data.SharedFunctionalGroupsSequence[0], sequence, [group])
    data.save_as(path)


def test_kernel_and_thickness_of_an_enhanced_ct_are_those_of_its_groups(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    for number, kernel in ((1, "B30f"), (2, ["Bl57d", "3"])):
        path = write_enhanced(phantom.scan, tmp_path / f"{number}.dcm", SeriesNumber=number)
        with_group(path, "CTReconstructionSequence", ConvolutionKernel=kernel)
    scan = read_scan(tmp_path)
    assert scan.series is not None
    assert scan.series.name.startswith("2 (kernel Bl57d 3, ")
    found = segment(scan, grey_band).findings.input
    assert found.kernel == "Bl57d 3"
    assert found.slice_thickness_mm == pytest.approx(phantom.scan.geometry.spacing[0])


def test_an_enhanced_ct_of_another_part_of_the_body_is_chosen_last(scan: Scan, larger: Scan, tmp_path: Path) -> None:
    for number, part, region in ((1, larger, "Abdomen"), (2, scan, "Chest")):
        changes = {"SeriesNumber": number, "BodyPartExamined": None}
        path = write_enhanced(part, tmp_path / f"{number}.dcm", **changes)
        meaning = pydicom.Dataset()
        meaning.CodeValue, meaning.CodingSchemeDesignator, meaning.CodeMeaning = "1", "SCT", region
        with_group(path, "FrameAnatomySequence", AnatomicRegionSequence=[meaning])
    found = read_scan(tmp_path)
    assert np.array_equal(found.values, scan.values)
    assert "1 (12 slices 30 mm apart, of another part of the body by its header)" in found.notes[0]


def test_a_series_is_named_by_its_number_and_letters_tell_equal_numbers_apart(
    scan: Scan, larger: Scan, tmp_path: Path
) -> None:
    write_series(larger, tmp_path / "a" / "1", SeriesNumber=7, ConvolutionKernel="B30f")
    write_series(scan, tmp_path / "a" / "2", SeriesNumber=7, ConvolutionKernel="B70f")
    write_series(scan, tmp_path / "a" / "3", SeriesNumber=None, ConvolutionKernel="B20f")
    assert [series.name for series in describe_input(tmp_path / "a").series] == ["7a", "7b", "unnumbered"]
    assert len(read_scan(tmp_path / "a", series="7a").values) == 12
    assert len(read_scan(tmp_path / "a", series="7B").values) == 8
    assert len(read_scan(tmp_path / "a", series="unnumbered").values) == 8
    with pytest.raises(FormatError, match=r"holds 2 series of number or UID 7, expected one of: 7a .*; 7b "):
        read_scan(tmp_path / "a", series="7")


def test_a_number_that_only_one_ct_has_names_it(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a" / "1", SeriesNumber=7)
    write_series(scan, tmp_path / "a" / "2", SeriesNumber=7, SOPClassUID=SEGMENTATION, Modality="SEG")
    assert np.array_equal(read_scan(tmp_path / "a", series="7").values, scan.values)


def test_no_uid_is_in_what_people_read_and_the_description_only_with_identity(
    scan: Scan, larger: Scan, tmp_path: Path
) -> None:
    for number, part in ((1, scan), (2, larger)):
        write_series(part, tmp_path / "a" / str(number), SeriesNumber=number, SeriesDescription=f"{NAME} {number}")
    found, info = read_scan(tmp_path / "a"), describe_input(tmp_path / "a")
    text = "\n".join([*found.notes, *info.lines])
    assert "1.2.826" not in text
    assert NAME not in text
    assert info.series[0].uid.startswith("1.2.826")
    (named,) = read_scan(tmp_path / "a", dicom=DicomOptions(with_identity=True)).notes
    assert f'series 2 ("{NAME} 2", 12 slices 30 mm apart) was chosen; others there: 1 ("{NAME} 1", 8 sl' in named


def test_a_refusal_names_the_series_that_was_chosen_and_the_others(scan: Scan, larger: Scan, tmp_path: Path) -> None:
    write_series(larger, tmp_path / "a" / "1", SeriesNumber=1)[4].unlink()
    write_series(scan, tmp_path / "a" / "2", SeriesNumber=2)
    end = r"series 1 \(11 slices 30 mm apart\) was chosen; others there: 2 \(8 slices 30 mm apart\) \(--series NUMBER"
    with pytest.raises(FormatError, match=r"lacks 1 slice .*; " + end):
        read_scan(tmp_path / "a")


@pytest.mark.thorough
def test_a_series_without_lung_is_named_beside_the_chest(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    scan = phantom.scan
    values = np.where(scan.values < -300, 30, scan.values)
    values[:, :, :4] = values[:, :, -4:] = values[:, :4] = values[:, -4:] = -1000
    many = np.concatenate([values, values[:4]])
    write_series(Scan(many, Geometry(many.shape, scan.geometry.affine_lps)), tmp_path / "a" / "1", SeriesNumber=1)
    write_series(scan, tmp_path / "a" / "2", SeriesNumber=2)
    named = r"series 1 \(36 slices .* was chosen; others there: 2 \(32 slices"
    with pytest.raises(LungError, match=named):
        segment(read_scan(tmp_path / "a"), grey_band)
    refused = describe_input(tmp_path / "a").refused or ""
    assert "series 1 (36 slices" in refused
    assert "lung" in refused


# Which files are DICOM


def without_preamble(path: Path, implicit: bool, first: int, big_endian: bool = False) -> bytes:
    """Return a data set that begins at the element (0008, `first`), without preamble and file meta header."""
    data = pydicom.dcmread(path)
    bare = pydicom.Dataset()
    bare.update({tag: element for tag, element in data.items() if tag.group > 8 or tag.element >= first})
    if big_endian:
        bare.PixelData = data.pixel_array.astype(">u2").tobytes()
    if first not in (0x16, 0x18, 0x60):
        bare.add_new((8, first), "CS", "ISO_IR 100" if first == 5 else ["ORIGINAL", "PRIMARY", "AXIAL"])
    content = io.BytesIO()
    pydicom.dcmwrite(content, bare, implicit_vr=implicit, little_endian=not big_endian)
    return content.getvalue()


@pytest.mark.parametrize("first", [0x05, 0x08, 0x16, 0x18, 0x60])
@pytest.mark.parametrize("encoding", ["implicit", "explicit", "big endian"])
def test_a_file_without_a_preamble_may_begin_at_any_element(
    encoding: str, first: int, scan: Scan, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    for number, path in enumerate(write_series(scan, tmp_path / "whole")):
        content = without_preamble(path, encoding == "implicit", first, encoding == "big endian")
        (tmp_path / "a" / f"IM{number}").write_bytes(content)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert np.array_equal(read_scan(tmp_path / "a" / "IM3").values[0], scan.values[3])


def test_a_file_without_a_preamble_may_begin_with_its_file_meta_header(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    for path in paths:
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)
    paths[2].write_bytes(paths[2].read_bytes()[12:])  # without the length of the file meta header
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


@pytest.mark.parametrize("content", [b"\x08\0\x16\0", b"\x02\0\x01\0junk" + bytes(200), b"\x08\0" * 300, bytes(400)])
def test_files_that_only_look_like_bare_dicom_are_no_dicom(content: bytes, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a")
    (tmp_path / "a" / "other").write_bytes(content)
    assert read_scan(tmp_path / "a").notes == ()


# Files whose content is not there


@pytest.mark.parametrize("target", ["../.git/annex/objects/x", "self"], ids=["nowhere", "circle"])
def test_links_that_lead_nowhere_are_counted(target: str, scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    for path in paths[6:]:
        path.unlink()
        path.symlink_to(path if target == "self" else target)
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values[:6])
    assert found.notes == ("left out: 2 links that lead nowhere",)
    assert "left out: 2 links that lead nowhere" in describe_input(tmp_path / "a").notes
    for path in paths[:6]:
        path.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(FormatError, match=r"a holds no DICOM image but 8 links that lead nowhere: give"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"/annex/objects/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.dcm\n", "2 pointers to files that are not here"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "2 pointers to files that are not here",
        ),
        (rb"..\.git\annex\objects\x9\25\MD5E-s1--c8d2.dcm", "2 pointers to files that are not here"),
        (b"outs:\n- md5: d41d8cd9\n  path: 1.dcm\n", "2 pointers to files that are not here"),
        (b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0" + bytes(60), "2 pointers to files that are not here"),
        (b"", "2 empty files"),
        (bytes(5000), "2 files named like the images that hold none"),
        (b"<!DOCTYPE html><title>Log in</title>", "2 files named like the images that hold none"),
        (b'{"error": "403 Forbidden"}', "2 files named like the images that hold none"),
        (b"../store/1.dcm", "2 files named like the images that hold none"),
        (bytes(range(256)) * 20, "2 files named like the images that hold none"),
    ],
    ids=[
        *("git-annex", "Git LFS", "annex on Windows", "DVC", "shortcut", "empty"),
        *("zeros", "web page", "error", "link as text", "encrypted"),
    ],
)
def test_files_without_their_content_are_counted(content: bytes, named: str, scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a")[6:]:
        path.write_bytes(content)
    (tmp_path / "a" / "README").write_text("other files are not counted")
    (tmp_path / "a" / "report.pdf").write_bytes(b"%PDF")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values[:6])
    assert found.notes == (f"left out: {named}",)
    assert found.notes[0] in describe_input(tmp_path / "a").notes


def write_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def write_cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])
    path.rename(path.with_name(f"{path.name}.crdownload"))


def move_to_icloud(path: Path) -> None:
    path.rename(path.with_name(f".{path.name}.icloud"))


def move_to_dvc(path: Path) -> None:
    path.unlink()
    path.with_name(f"{path.name}.dvc").write_text("outs:\n- md5: d41d8cd9\n")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(os.devnull)


@pytest.mark.parametrize(
    ("lose", "named"),
    [
        (write_packed, "2 packed archives"),
        (write_cut_header, "2 damaged files"),
        (move_to_icloud, "2 pointers to files that are not here"),
        (move_to_dvc, "2 pointers to files that are not here"),
        (make_pipe, "2 pipes, sockets or devices"),
        (link_to_nothing, "2 pipes, sockets or devices"),
    ],
)
def test_slices_that_are_no_whole_files_are_counted(
    lose: Callable[[Path], None], named: str, scan: Scan, tmp_path: Path
) -> None:
    for path in write_series(scan, tmp_path / "a")[6:]:
        lose(path)
    assert read_scan(tmp_path / "a").notes == (f"left out: {named}",)


def test_a_folder_that_holds_a_link_to_the_scan_alone_is_refused_with_that_reason(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "elsewhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "series").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="but 1 folder: links to folders are not followed, give the folder to which"):
        read_scan(tmp_path / "a")
    assert len(read_scan(tmp_path / "a" / "series").values) == len(scan.values)


def test_a_folder_that_is_only_linked_to_is_counted_and_not_followed(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    (tmp_path / "rest").mkdir()
    for path in paths[6:]:
        path.rename(tmp_path / "rest" / path.name)
    (tmp_path / "a" / "more").symlink_to(tmp_path / "rest")
    found = read_scan(tmp_path / "a")
    assert (len(found.values), found.notes) == (6, ("left out: 1 link to a folder",))


def test_files_of_a_zip_that_are_named_like_images_and_hold_none_are_counted(scan: Scan, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for z, path in enumerate(write_series(scan, tmp_path / "a")):
            archive.writestr(f"a/{path.name}", path.read_bytes() if z < 6 else b"<html>")
    assert read_scan(tmp_path / "a.zip").notes == ("left out: 2 files named like the images that hold none",)


def test_dead_links_beside_pictures_are_counted(tmp_path: Path) -> None:
    from PIL import Image

    grey = np.clip((chest_phantom(shape=(3, 96, 128)).scan.values + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    (tmp_path / "a").mkdir()
    for z in range(2):
        Image.fromarray(grey[z]).save(tmp_path / "a" / f"{z}.png")
    (tmp_path / "a" / "2.png").symlink_to("nowhere")
    assert "left out: 1 link that leads nowhere" in read_scan(tmp_path / "a").notes


def test_a_zip_with_several_series_is_chosen_from_as_a_folder_is(scan: Scan, larger: Scan, tmp_path: Path) -> None:
    files = [*write_series(scan, tmp_path / "a" / "1", SeriesNumber=3)]
    files += write_series(larger, tmp_path / "a" / "2", SeriesNumber=4, RescaleType="MGML")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files:
            archive.write(file, f"{file.parent.name}/{file.name}")
    assert np.array_equal(read_scan(tmp_path / "a.zip").values, scan.values)
    with pytest.raises(FormatError, match="the series is no CT"):
        read_scan(tmp_path / "a.zip", series="4")


def test_a_uid_or_its_end_still_names_a_series(scan: Scan, larger: Scan, tmp_path: Path) -> None:
    uid = generate_uid()
    write_series(scan, tmp_path / "a" / "1", SeriesInstanceUID=uid, SeriesNumber=1)
    write_series(larger, tmp_path / "a" / "2", SeriesNumber=2)
    assert len(read_scan(tmp_path / "a", series=uid).values) == 8
    assert len(read_scan(tmp_path / "a", series=uid[-9:]).values) == 8
