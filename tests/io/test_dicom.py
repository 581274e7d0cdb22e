"""DICOM series are chosen, sorted, checked and decoded; deviations are noted or refused."""

import itertools
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Mask, Scan
from helpers.cases import sample
from helpers.dicom_phantom import write_enhanced, write_series

LOSSY = {"JPEG2000", "JPEGLSLossy", "JPEGProcess1"}
NOT_READ = {"JPEGProcess10_12", "JPEGProcess6_8", "JPEGProcess2_4"}


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64)).scan


def edit(path: Path, change: Callable[[pydicom.Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def test_slices_are_sorted_along_their_normal_not_by_name_or_number(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    assert sorted(paths) != paths
    for number, path in enumerate(reversed(paths)):
        edit(path, lambda data, number=number: setattr(data, "InstanceNumber", (number * 5) % 8))  # type: ignore[misc]
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.values.dtype == np.int16
    assert found.geometry.matches(scan.geometry)
    assert found.notes == ()
    assert found.source == tmp_path / "a"
    assert found.series is not None
    assert [header.SOPInstanceUID for header in found.series.headers] == [
        pydicom.dcmread(path).SOPInstanceUID for path in paths
    ]
    assert "PixelData" not in found.series.headers[0]


@pytest.mark.parametrize("name", ["BigEndianExplicit", "DeflatedExplicitVRLittleEndian", "ImplicitLittleEndian", "JPEG2000", "JPEG2000LosslessOnly", "JPEGLSLossless", "JPEGLSLossy", "JPEGProcess1", "JPEGProcess10_12", "JPEGProcess14", "JPEGProcess14SV1", "JPEGProcess2_4", "JPEGProcess6_8", "LittleEndianExplicit", "LittleEndianImplicit", "RLELossless"])  # fmt: skip  # noqa: E501
def test_every_transfer_syntax_is_read_or_refused_by_name(name: str, data: Path) -> None:
    (path,) = (data / "dicom").glob(f"{name}_*.dcm")
    if name in NOT_READ:
        with pytest.raises(
            FormatError, match=r"is packed as JPEG .*1\.2\.840\.10008\.1\.2\.4\.\d+.*, which is not read"
        ) as caught:
            read_scan(path)
        assert "these are read: Implicit VR Little Endian" in str(caught.value)
        return
    (reference,) = (data / "dicom").glob("LittleEndianExplicit_*.dcm")
    found, expected = read_scan(path), read_scan(reference)
    assert found.geometry.matches(expected.geometry)
    assert np.array_equal(found.values, expected.values) == (name not in LOSSY)
    assert any("with loss" in note for note in found.notes) == (name in LOSSY)
    if name in LOSSY:
        assert np.abs(found.values.astype(float) - expected.values).mean() < 25


def test_values_are_rescaled_to_hu(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a", RescaleSlope="2", RescaleIntercept="-2000")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, (scan.values.astype(int) + 1024) * 2 - 2000)
    edit(paths[0], lambda data: setattr(data, "RescaleSlope", "0.5"))
    mixed = read_scan(tmp_path / "a")
    assert mixed.values.dtype == np.float32
    assert np.allclose(mixed.values[0], (scan.values[0].astype(int) + 1024) * 0.5 - 2000)


def test_padding_becomes_air(scan: Scan, tmp_path: Path) -> None:
    values = scan.values.copy()
    values[:, :8] = 3000 - 1024
    write_series(Scan(values, scan.geometry), tmp_path / "a", PixelPaddingValue=3000)
    found = read_scan(tmp_path / "a").values
    assert (found[:, :8] == -1024).all()
    assert np.array_equal(found[:, 8:], values[:, 8:])


@pytest.mark.parametrize(("value", "limit"), [(0, 65535), (1000, 2000), (65535, 0)])
def test_a_range_of_padding_that_holds_tissue_is_left_out_of_account(
    scan: Scan, tmp_path: Path, value: int, limit: int
) -> None:
    values = np.where(scan.values < -900, -1024, scan.values)
    write_series(Scan(values, scan.geometry), tmp_path / "a", PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    assert np.array_equal(read_scan(tmp_path / "a").values, values)


def test_a_range_of_padding_becomes_air(scan: Scan, tmp_path: Path) -> None:
    values = np.maximum(scan.values, -900)
    values[:, :8] = np.arange(8)[:, None] + 3000
    write_series(Scan(values, scan.geometry), tmp_path / "a", PixelPaddingValue=4024, PixelPaddingRangeLimit=4031)
    found = read_scan(tmp_path / "a").values
    assert (found[:, :8] == -1024).all()
    assert np.array_equal(found[:, 8:], values[:, 8:])


@pytest.mark.parametrize("wrong", [{"Columns": 63}, {"Columns": 56}, {"Rows": 47}])
def test_an_image_that_is_larger_than_its_header_states_is_refused(
    scan: Scan, tmp_path: Path, wrong: dict[str, int]
) -> None:
    assert scan.values.shape[1:] == (48, 64)
    write_series(scan, tmp_path / "a", **wrong)
    with pytest.raises(FormatError, match=r"an image of 6,144 bytes, its header states .* Rows or Columns are wrong"):
        read_scan(tmp_path / "a")
    assert "Rows or Columns are wrong" in str(describe_input(tmp_path / "a").refused)


def test_a_few_bytes_behind_an_image_do_not_count(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a"):
        edit(path, lambda data: setattr(data, "PixelData", data.PixelData + bytes(80)))
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


@pytest.mark.parametrize("factor", [1e-5, 1000.0])
def test_an_orientation_without_directions_is_none(scan: Scan, tmp_path: Path, factor: float) -> None:
    axes = [f"{factor * axis:g}" for axis in (1, 0, 0, 0, 1, 0)]
    write_series(scan, tmp_path / "a", ImageOrientationPatient=axes)
    with pytest.raises(FormatError, match="8 of 8 images in a state no position or orientation"):
        read_scan(tmp_path / "a")


def test_a_damaged_sequence_is_called_damaged(scan: Scan, tmp_path: Path) -> None:
    def add_sequence(data: pydicom.Dataset) -> None:
        data.RequestAttributesSequence = [pydicom.Dataset()]
        data.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
        data["RequestAttributesSequence"].is_undefined_length = True

    for path in write_series(scan, tmp_path / "a"):
        edit(path, add_sequence)
        path.write_bytes(path.read_bytes().replace(b"\xfe\xff\xdd\xe0\0\0\0\0", b""))
    with pytest.raises(FormatError, match="8 damaged DICOM files"):
        read_scan(tmp_path / "a")


def test_tissue_with_the_padding_value_stays(scan: Scan, tmp_path: Path) -> None:
    values = np.full(scan.values.shape, 10, dtype=np.int16)
    values[:, :8] = values[:, 20:30, 20:30] = 40
    write_series(Scan(values, scan.geometry), tmp_path / "a", PixelPaddingValue=40 + 1024)
    found = read_scan(tmp_path / "a").values
    assert (found[:, :8] == -1024).all()
    assert np.array_equal(found[:, 8:], values[:, 8:])


def test_a_single_slice_is_read_with_notes_on_what_it_does_not_state(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    found = read_scan(paths[3])
    assert np.array_equal(found.values[0], scan.values[3])
    assert found.geometry.spacing == pytest.approx(scan.geometry.spacing)
    assert np.allclose(found.geometry.position((0, 0, 0)), scan.geometry.position((3, 0, 0)), atol=1e-4)
    bare = write_series(scan, tmp_path / "b", SliceThickness=None, ImagePositionPatient=None)
    assert "no thickness: 1 mm is assumed" in read_scan(bare[3]).notes[0]
    assert "no position or orientation" in read_scan(bare[3]).notes[1]


@pytest.mark.parametrize(("keyword", "factor"), [("SliceThickness", 1.0), ("SpacingBetweenSlices", 0.5)])
def test_a_single_frame_has_the_thickness_of_its_groups(
    keyword: str, factor: float, scan: Scan, tmp_path: Path
) -> None:
    """It was taken as 1 mm."""
    one = Scan(scan.values[:1], Geometry((1, *scan.values.shape[1:]), scan.geometry.affine_lps))
    path = write_enhanced(one, tmp_path / "a.dcm")
    thickness = scan.geometry.spacing[0] * factor

    def state(data: pydicom.Dataset) -> None:
        setattr(data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], keyword, f"{thickness:.6g}")

    edit(path, state)
    found = read_scan(path)
    assert found.geometry.spacing[0] == pytest.approx(thickness)
    assert found.notes == ()


def test_frames_of_an_enhanced_series_are_sorted_by_position(scan: Scan, tmp_path: Path) -> None:
    turned = Scan(scan.values[::-1], scan.geometry)
    path = write_enhanced(turned, tmp_path / "a.dcm")
    edit(path, lambda data: data.PerFrameFunctionalGroupsSequence.reverse())  # frames lie from head to feet now
    found = read_scan(path)
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.matches(scan.geometry)
    assert found.series is not None
    assert found.series.frames == (7, 6, 5, 4, 3, 2, 1, 0)


def test_dicom_is_found_in_nested_folders_among_other_files(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a" / "study" / "series")
    (tmp_path / "a" / "study" / "report.txt").write_text("no image")
    (tmp_path / "a" / "DICOMDIR").write_bytes(bytes(200))
    (tmp_path / "a" / ".hidden.dcm").write_bytes(paths[0].read_bytes())
    for path in paths[4:]:
        (tmp_path / "a" / "more").mkdir(exist_ok=True)
        shutil.move(path, tmp_path / "a" / "more" / path.name)
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


def test_nested_dicom_is_preferred_to_pictures(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a" / "DICOM" / "series")
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(tmp_path / "a" / "preview.jpg")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("1 PNG or JPEG picture beside the DICOM ignored",)
    assert found.notes[0] in describe_input(tmp_path / "a").notes


def test_dicom_that_is_named_as_pictures_is_not_called_pictures(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a"):
        path.rename(path.with_suffix(".jpg"))
    assert read_scan(tmp_path / "a").notes == ()


def test_a_file_without_a_preamble_is_read(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    data = pydicom.dcmread(paths[2])
    bare = tmp_path / "old.dcm"
    with bare.open("wb") as stream:
        pydicom.dcmwrite(stream, _without_meta(data), implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_scan(bare).values[0], scan.values[2])


def _without_meta(data: pydicom.Dataset) -> pydicom.Dataset:
    bare = pydicom.Dataset()
    bare.update(data)
    return bare


# Which series


@pytest.mark.thorough
def test_the_axial_ct_with_most_slices_and_a_lung_kernel_is_chosen_and_the_others_are_listed(
    scan: Scan, tmp_path: Path
) -> None:
    root = tmp_path / "study"
    uids = {name: generate_uid() for name in ("soft", "lung", "short", "scout", "mr", "shot", "coronal")}
    coronal = Geometry(scan.geometry.shape, scan.geometry.affine_lps[[0, 2, 1, 3]] * [[1], [1], [-1], [1]])
    write_series(scan, root / "1", SeriesInstanceUID=uids["soft"], ConvolutionKernel="B30f", SeriesNumber=1)
    write_series(scan, root / "2", SeriesInstanceUID=uids["lung"], ConvolutionKernel="B70f", SeriesNumber=9)
    short = Scan(scan.values[:5], Geometry((5, 48, 64), scan.geometry.affine_lps))
    write_series(short, root / "3", SeriesInstanceUID=uids["short"], ConvolutionKernel="B70f")
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(scan, root / "4", SeriesInstanceUID=uids["scout"], ImageType=scout)
    write_series(scan, root / "5", SeriesInstanceUID=uids["mr"], Modality="MR")
    write_series(scan, root / "6", SeriesInstanceUID=uids["shot"], SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    large = np.repeat(scan.values, 2, axis=0)
    many = Scan(large, Geometry(large.shape, coronal.affine_lps))
    write_series(many, root / "7", SeriesInstanceUID=uids["coronal"], ConvolutionKernel="B70f")
    found = read_scan(root)
    assert found.series is not None
    assert found.series.headers[0].SeriesInstanceUID == uids["lung"]
    (note,) = found.notes
    assert note == (
        "series 9 (kernel B70f, 8 slices 30 mm apart) was chosen; others there: 1 (kernel B30f, 8 slices 30 mm apart); "
        "2a (kernel B70f, 5 slices 30 mm apart); 2b (kernel B70f, 16 slices 30 mm apart, not axial) "
        "(--series NUMBER takes another)"
    )
    named = read_scan(root, series=uids["short"][-9:])
    assert named.geometry.shape[0] == 5
    assert named.notes == ()
    with pytest.raises(FormatError, match=r"holds no series of number or UID 7\.7\.7, expected one of: .*B30f"):
        read_scan(root, series="7.7.7")
    for name, why in (("mr", "modality MR"), ("scout", "localizer"), ("shot", "secondary capture")):
        with pytest.raises(FormatError, match=f"the series is no CT .{why}"):
            read_scan(root, series=uids[name])
    forced = read_scan(root, series=uids["mr"], force_modality=True)
    assert "the modality is MR, read as CT on request" in forced.notes


def test_other_modalities_are_refused_unless_forced(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", Modality="PT")
    with pytest.raises(FormatError, match=r"holds no CT series but series 2 .*modality PT\); .*--force-modality"):
        read_scan(tmp_path / "a")
    assert read_scan(tmp_path / "a", force_modality=True).notes == ("the modality is PT, read as CT on request",)
    write_series(scan, tmp_path / "b", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(FormatError, match=r"holds no CT series but .*localizer\); give the CT itself$"):
        read_scan(tmp_path / "b")


def test_localizers_and_other_orientations_inside_a_series_are_left_out(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    extra = tmp_path / "a" / "extra.dcm"
    shutil.copy(paths[0], extra)
    edit(extra, lambda data: setattr(data, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    shutil.copy(paths[0], tmp_path / "a" / "turned.dcm")
    edit(tmp_path / "a" / "turned.dcm", lambda data: setattr(data, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]))
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("left out: 1 localizer, 1 image of another orientation",)


# What is checked


def remove(paths: list[Path], *indices: int) -> None:
    for index in indices:
        paths[index].unlink()


def test_missing_slices_are_refused_and_counted(scan: Scan, tmp_path: Path) -> None:
    remove(write_series(scan, tmp_path / "a"), 3, 4)
    with pytest.raises(FormatError, match=r"a lacks 2 slices \(behind slice 3 of 6, 30 mm apart elsewhere\): send"):
        read_scan(tmp_path / "a")


def test_a_part_of_another_distance_is_not_taken_for_missing_slices(tmp_path: Path) -> None:
    scan = chest_phantom(shape=(14, 48, 64), extent_mm=(280, 288, 380), oblique=False).scan
    remove(write_series(scan, tmp_path / "a"), 8, 10, 12)
    larger = r"a has slices 20 to 40 mm apart, the larger distance from slice 8 to 11 of 11, expected one distance: .*"
    with pytest.raises(FormatError, match=larger + "resample it"):
        read_scan(tmp_path / "a")


def move(path: Path, mm: tuple[float, float, float]) -> None:
    edit(
        path,
        lambda data: setattr(
            data, "ImagePositionPatient", [f"{a + b:.8g}" for a, b in zip(data.ImagePositionPatient, mm, strict=True)]
        ),
    )


@pytest.fixture(scope="module")
def upright() -> Scan:
    return chest_phantom(shape=(8, 48, 64), oblique=False).scan


def test_uneven_slices_are_refused_and_small_jitter_is_noted(upright: Scan, tmp_path: Path) -> None:
    paths = write_series(upright, tmp_path / "a")
    move(paths[3], (0, 0, 1.5))
    assert read_scan(tmp_path / "a").notes == ("slice distances vary by up to 5 %: taken as even",)
    move(paths[3], (0, 0, 10))
    with pytest.raises(FormatError, match=r"slices 18\.5 to 41\.5 mm apart, expected one distance"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("percent", [4, 0.9])
@pytest.mark.thorough
def test_small_differences_that_add_up_are_refused(percent: float, tmp_path: Path) -> None:
    """40 steps are too long, then 40 too short: each is nearly even, but the middle slices are far off the grid."""
    scan = chest_phantom(shape=(81, 24, 24), oblique=False).scan
    paths = write_series(scan, tmp_path / "a")
    for z, path in enumerate(paths):
        move(path, (0, 0, min(z, 80 - z) * percent / 100 * scan.geometry.spacing[0]))
    with pytest.raises(FormatError, match=r"mm apart, which puts some .* mm off an even grid: give a series"):
        read_scan(tmp_path / "a")


def test_sideways_shifts_are_refused(upright: Scan, tmp_path: Path) -> None:
    paths = write_series(upright, tmp_path / "a")
    move(paths[3], (4, 0, 0))
    with pytest.raises(FormatError, match=r"shifted sideways by up to 4\.0 mm"):
        read_scan(tmp_path / "a")


def test_a_tilted_gantry_gives_a_sheared_grid_and_a_note(upright: Scan, tmp_path: Path) -> None:
    paths = write_series(upright, tmp_path / "a")
    for z, path in enumerate(paths):
        move(path, (0, -30 * np.tan(np.radians(12)) * z, 0))
    found = read_scan(tmp_path / "a")
    assert found.notes == ("the gantry was tilted by 12.0 degrees: the grid is sheared, and kept so",)
    assert found.geometry.voxel_ml == pytest.approx(upright.geometry.voxel_ml, rel=1e-4)
    expected = upright.geometry.position((5, -30 * np.tan(np.radians(12)) * 5 / upright.geometry.spacing[1], 0))
    assert np.allclose(found.geometry.position((5, 0, 0)), expected, atol=1e-3)


def test_repeated_images_are_left_out_and_different_ones_at_one_position_refused(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    shutil.copy(paths[2], tmp_path / "a" / "again.dcm")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("1 image of the same place and pixels left out",)
    assert found.series is not None
    assert len(found.series.headers) == 8

    def brighter(data: pydicom.Dataset) -> None:
        data.PixelData = (data.pixel_array + 1).astype("<u2").tobytes()

    edit(tmp_path / "a" / "again.dcm", brighter)
    with pytest.raises(FormatError, match=r"several different images at one place \(slice 3;"):
        read_scan(tmp_path / "a")
    foretold = describe_input(tmp_path / "a").refused
    assert foretold is not None
    assert "several different images at one place (slice 3;" in foretold


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImagePositionPatient": None}, "8 of 8 images in a state no position or orientation"),
        ({"ImageOrientationPatient": None}, "8 of 8 images in a state no position or orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.9, 0]}, "axes are not at right angles"),
        ({"PixelSpacing": None}, "states no pixel spacing"),
        ({"PixelSpacing": [0, 1]}, "two numbers above 0, the distance of rows and of columns in mm"),
        ({"SamplesPerPixel": 3}, "holds no CT series but .*colour pictures"),
        ({"NumberOfFrames": 8}, "frames without positions"),
        ({"PixelData": b"\0\0"}, r"damaged or cut short \(packed as Explicit VR Little Endian\)"),
        ({"Rows": 4000, "Columns": 65000}, "more than the 1,073,741,824 that are read"),
    ],
)
def test_what_makes_no_volume_is_refused(changes: dict[str, object], message: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", **changes)
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "shown inverted (MONOCHROME1)"),
        ({"BurnedInAnnotation": "YES"}, "text is burned into the images"),
        ({"RescaleIntercept": None, "RescaleSlope": None}, "no rescale to HU is stated"),
        ({"LossyImageCompression": "01"}, "compressed with loss"),
    ],
)
def test_doubtful_headers_are_noted(changes: dict[str, object], message: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", **changes)
    (note,) = read_scan(tmp_path / "a").notes
    assert message in note


@pytest.mark.parametrize(
    "keyword", ["PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation"]
)
def test_pixels_are_read_without_attributes_that_follow_from_others(keyword: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", **{keyword: None})
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PhotometricInterpretation", b"GREY"),
        ("PhotometricInterpretation", b"MONOCHROME2\\X "),
        ("NumberOfFrames", b"x "),
    ],
)
def test_pixels_are_read_with_odd_values_of_attributes_that_follow_from_others(
    keyword: str, value: bytes, scan: Scan, tmp_path: Path
) -> None:
    def state(data: pydicom.Dataset) -> None:
        tag = Tag(keyword)
        data.pop(tag, None)
        data[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)

    for path in write_series(scan, tmp_path / "a"):
        edit(path, state)
    assert np.array_equal(read_scan(tmp_path / "a").values, scan.values)


def test_damaged_files_among_good_ones_are_counted(scan: Scan, tmp_path: Path) -> None:
    paths = write_series(scan, tmp_path / "a")
    content = bytearray(paths[7].read_bytes())
    content[132:160] = b"\xff" * 28
    paths[7].write_bytes(content)
    found = read_scan(tmp_path / "a")
    assert len(found.values) == 7
    assert found.notes == ("left out: 1 damaged file",)
    with pytest.raises(FormatError, match="damaged or cut short, expected whole DICOM"):
        read_scan(paths[7])


def test_nothing_of_a_header_reaches_a_message(scan: Scan, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_series(scan, tmp_path / "a", StudyID="PLANTED", Modality="MR", SeriesDescription="PLANTED")
    with pytest.raises(FormatError) as caught:
        read_scan(tmp_path / "a")
    assert "PLANTED" not in str(caught.value)
    assert "PLANTED" not in "".join(capfd.readouterr())


# Positions are the same in every format


def permutations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def rearranged(scan: Scan, order: tuple[int, ...], signs: tuple[int, ...]) -> Scan:
    """The same voxels at the same places, in another order of the array."""
    affine = np.eye(4)
    affine[:3, :3] = scan.geometry.affine_lps[:3, list(order)] * signs
    starts = [scan.geometry.shape[axis] - 1 if sign < 0 else 0 for axis, sign in zip(order, signs, strict=True)]
    index = np.zeros(3)
    index[list(order)] = starts
    affine[:3, 3] = scan.geometry.position(index)
    values = scan.values.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return Scan(np.ascontiguousarray(values), Geometry(values.shape, affine))


@pytest.fixture(scope="module")
def small() -> Phantom:
    return chest_phantom(shape=(20, 40, 52))


def centre_and_ml(mask: Mask) -> tuple[np.ndarray, float]:
    return mask.geometry.position(np.argwhere(mask.voxels).mean(0)), mask.volume_ml or 0.0


@pytest.mark.parametrize(
    ("form", "order", "signs"),
    [*(("nifti", *each) for each in permutations()), *sample([("dicom", *each) for each in permutations()], every=7)],
    ids=str,
)
def test_a_lesion_keeps_its_position_for_every_order_of_axes(
    form: str, order: tuple[int, ...], signs: tuple[int, ...], small: Phantom, tmp_path: Path
) -> None:
    """Lesion voxels are marked by value, and have to be at the same millimetres when they are read."""
    values = np.where(small.lesions.voxels, 2000, -900).astype(np.int16)
    turned = rearranged(Scan(values, small.scan.geometry), order, signs)
    if form == "nifti":
        nifti.write_scan(turned, path := tmp_path / "ct.nii")
    else:
        write_series(turned, path := tmp_path / "ct")
    found = read_scan(path)
    mask = Mask(found.values > 0, found.geometry)
    nifti.write_mask(mask, tmp_path / "lesions.nii.gz", like=path)
    back = read_scan(tmp_path / "lesions.nii.gz")
    expected, expected_ml = centre_and_ml(small.lesions)
    half = 0.5 * min(small.scan.geometry.spacing)
    for read in (mask, Mask(back.values > 0, back.geometry)):
        centre, ml = centre_and_ml(read)
        assert np.linalg.norm(centre - expected) < half
        assert ml == pytest.approx(expected_ml, rel=1e-4)


@pytest.mark.parametrize("shear", [0.0, 0.2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (0.5, 2.0, 0.9)], ids=str)
@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 0, 0), (0, 15, 30), (40, 25, 10)], ids=str)
@pytest.mark.parametrize("form", ["nifti", "dicom", "enhanced"])
def test_oblique_tilted_and_anisotropic_grids_are_read_exactly(
    form: str, angles: tuple[int, ...], spacing: tuple[float, ...], shear: float, tmp_path: Path
) -> None:
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = turn @ rotation
    affine = np.eye(4)
    affine[:3, :3] = rotation[:, ::-1] * spacing  # z, y, x along S, P, L before the turn
    affine[:3, 0] += shear * affine[:3, 1] / spacing[1] * spacing[0]
    affine[:3, 3] = (-40.0, 25.0, 310.0)
    values = np.full((9, 20, 24), -900, dtype=np.int16)
    values[2:5, 4:9, 15:20] = 100
    scan = Scan(values, Geometry(values.shape, affine))
    if form == "nifti":
        nifti.write_scan(scan, path := tmp_path / "ct.nii.gz")
    elif form == "dicom":
        write_series(scan, path := tmp_path / "ct")
    else:
        write_enhanced(scan, path := tmp_path / "ct.dcm")
    found = read_scan(path)
    assert np.array_equal(found.values, values)
    assert np.allclose(found.geometry.affine_lps, affine, atol=1e-4)
    nifti.write_mask(Mask(found.values > 0, found.geometry), tmp_path / "lesions.nii.gz", like=path)
    back = read_scan(tmp_path / "lesions.nii.gz")
    centre, ml = centre_and_ml(Mask(back.values > 0, back.geometry))
    assert np.linalg.norm(centre - scan.geometry.position((3, 6, 17))) < 0.5 * min(spacing)
    assert ml == pytest.approx(75 * abs(np.linalg.det(affine[:3, :3])) / 1000, rel=1e-4)


@pytest.mark.slow
def test_the_same_chest_as_nifti_dicom_enhanced_zip_and_mha_gives_the_same_mask(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    scan = phantom.scan
    nifti.write_scan(scan, tmp_path / "a.nii.gz")
    files = write_series(scan, tmp_path / "b")
    write_enhanced(scan, tmp_path / "c.dcm")
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"study/{file.name}")
    image: Any = SimpleITK.GetImageFromArray(scan.values)
    affine = scan.geometry.affine_lps
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(scan.geometry.spacing[::-1])
    image.SetDirection((affine[:3, 2::-1] / np.linalg.norm(affine[:3, 2::-1], axis=0)).ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "e.mha"))
    expected = segment(scan, grey_band)
    assert expected.lesions.voxels.any()
    for name in ("a.nii.gz", "b", "c.dcm", "d.zip", "e.mha"):
        found = segment(read_scan(tmp_path / name), grey_band)
        assert np.array_equal(found.lesions.voxels, expected.lesions.voxels), name
        assert found.findings.lesion_volume_ml == pytest.approx(expected.findings.lesion_volume_ml, rel=1e-5)
