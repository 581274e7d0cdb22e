"""CT in several multi-frame files is read as one series; a part without the others is refused."""

import copy
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced

SERIES, WHOLE = "1.2.3.4", "1.2.3.5"


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64)).scan


def part(scan: Scan, planes: slice) -> Scan:
    values, affine = scan.values[planes], scan.geometry.affine_lps.copy()
    start, _, step = planes.indices(len(scan.values))
    affine[:, 3] = scan.geometry.affine_lps @ [start, 0, 0, 1]
    affine[:, 0] *= step
    return Scan(values, Geometry(values.shape, affine))


def write_parts(scan: Scan, folder: Path, *planes: slice, **changes: Any) -> list[Path]:
    """Write parts of a scan as a concatenation in one series."""
    folder.mkdir()
    paths = []
    for number, plane in enumerate(planes, start=1):
        stated = {"ConcatenationUID": WHOLE, "InConcatenationNumber": number, "InConcatenationTotalNumber": len(planes)}
        stated |= {"ConcatenationFrameOffsetNumber": plane.start or 0} | changes
        shared = {"SeriesInstanceUID": SERIES, "StudyInstanceUID": "1.2.3.1", "FrameOfReferenceUID": "1.2.3.2"}
        paths.append(write_enhanced(part(scan, plane), folder / f"{number}.dcm", **shared, **stated))
    return paths


@pytest.mark.parametrize("planes", [(slice(0, 4), slice(4, 8)), (slice(0, 8, 2), slice(1, 8, 2))], ids=str)
@pytest.mark.parametrize("stated", [True, False])
def test_frames_of_several_files_are_joined_by_position(
    stated: bool, planes: tuple[slice, ...], scan: Scan, tmp_path: Path
) -> None:
    names = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
    write_parts(scan, tmp_path / "a", *planes, **({} if stated else dict.fromkeys(names)))
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.geometry.matches(scan.geometry)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("removed", "changes", "message"),
    [
        ((1,), {}, r"holds part 1 of 2 of a series .* and lacks part 2: give the folder with all of its parts"),
        ((0,), {}, r"holds part 2 of 2 of a series .* and lacks part 1"),
        ((0,), {"InConcatenationTotalNumber": None}, r"holds part 2 of several .* and lacks part 1"),
        ((0,), {"InConcatenationTotalNumber": None, "InConcatenationNumber": 1}, "lacks part that lie before them"),
        ((1,), {"ConcatenationUID": None}, "holds part 1 of 2"),
    ],
)
def test_a_part_without_the_others_is_refused(
    removed: tuple[int, ...], changes: dict[str, Any], message: str, scan: Scan, tmp_path: Path
) -> None:
    paths = write_parts(scan, tmp_path / "a", slice(0, 4), slice(4, 8), **changes)
    for index in removed:
        paths[index].unlink()
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path / "a")
    with pytest.raises(FormatError, match=message):
        read_scan(next((tmp_path / "a").iterdir()))


def number_frames(path: Path, numbers: Sequence[int]) -> Path:
    """State the number that each frame has in its stack."""
    data = pydicom.dcmread(path)
    for frame, number in zip(data.PerFrameFunctionalGroupsSequence, numbers, strict=True):
        content = Dataset()
        content.StackID, content.InStackPositionNumber = "1", number
        frame.FrameContentSequence = [content]
    data.save_as(path)
    return path


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        (range(9, 17), "8 of 16 frames"),
        (range(2, 10), "1 of 9 frames"),
        (range(1, 17, 2), "7 of 15 frames"),
        ((1, 2, 3, 4, 6, 7, 8, 9), "1 of 9 frames"),
        (range(1, 9), None),
        (range(8, 0, -1), None),
        (range(8), None),  # counted from 0
        ([1] * 8, None),
        (range(70_000, 70_008), None),
    ],
)
def test_a_part_without_attributes_of_a_concatenation_is_told_by_the_numbers_of_its_frames(
    numbers: Sequence[int], missing: str | None, scan: Scan, tmp_path: Path
) -> None:
    path = number_frames(write_enhanced(scan, tmp_path / "a.dcm"), numbers)
    found = read_scan(path)
    assert np.array_equal(found.values, scan.values)
    if missing is None:
        assert found.notes == ()
    else:
        (note,) = found.notes
        assert f"{missing} are not here (in another file?): volumes are of those that are here" in note
        assert note in describe_input(path).notes


def test_parts_without_attributes_of_a_concatenation_are_whole_together(scan: Scan, tmp_path: Path) -> None:
    names = (
        "ConcatenationUID",
        "InConcatenationNumber",
        "InConcatenationTotalNumber",
        "ConcatenationFrameOffsetNumber",
    )
    paths = write_parts(scan, tmp_path / "a", slice(0, 4), slice(4, 8), **dict.fromkeys(names))
    for path, numbers in zip(paths, (range(1, 5), range(5, 9)), strict=True):
        number_frames(path, numbers)
    assert read_scan(tmp_path / "a").notes == ()
    assert read_scan(paths[0]).notes == ()  # nothing says that there is more
    assert "4 of 8 frames are not here" in read_scan(paths[1]).notes[0]


def test_a_file_of_more_frames_than_a_scan_has_is_refused(scan: Scan, tmp_path: Path) -> None:
    data = pydicom.dcmread(write_enhanced(scan, tmp_path / "a.dcm"))
    data.PerFrameFunctionalGroupsSequence = [Dataset()] * 20_001
    data.NumberOfFrames = 20_001
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(FormatError, match="holds 20,001 frames, expected at most 20,000: give one scan alone"):
        read_scan(tmp_path / "a.dcm")


@pytest.mark.parametrize("placed", [4, 7])
def test_frames_without_a_position_are_refused(placed: int, scan: Scan, tmp_path: Path) -> None:
    data = pydicom.dcmread(write_enhanced(scan, tmp_path / "a.dcm"))
    data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:placed]
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(FormatError, match=f"states 8 frames, and the position of only {placed} of them"):
        read_scan(tmp_path / "a.dcm")


def test_a_part_that_is_there_twice_counts_once(scan: Scan, tmp_path: Path) -> None:
    paths = write_parts(scan, tmp_path / "a", slice(0, 4), slice(4, 8))
    shutil.copy(paths[1], tmp_path / "a" / "again.dcm")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("4 images of the same place and pixels left out",)


@pytest.mark.thorough
def test_the_segmentation_refers_to_the_part_that_holds_each_slice(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    half = len(phantom.scan.values) // 2
    paths = write_parts(phantom.scan, tmp_path / "a", slice(half, None), slice(0, half), ConcatenationUID=None,
                        InConcatenationNumber=None, InConcatenationTotalNumber=None)  # fmt: skip
    analysis = segment(read_scan(tmp_path / "a"), grey_band)
    assert np.array_equal(analysis.lesions.voxels, segment(phantom.scan, grey_band).lesions.voxels)
    segmentation = pydicom.dcmread(io.BytesIO(analysis.dicom_results.files["lesions.dcm"]))
    upper, lower = (pydicom.dcmread(path) for path in paths)
    found = set()
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        origin = upper if source.ReferencedSOPInstanceUID == upper.SOPInstanceUID else lower
        assert source.ReferencedSOPInstanceUID == origin.SOPInstanceUID
        place = origin.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        stated = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(place.ImagePositionPatient, float), np.array(stated, float), atol=1e-3)
        found.add(origin.SOPInstanceUID)
    assert len(found) == 2
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == found


@pytest.mark.thorough
def test_a_segmentation_of_some_of_the_frames_refers_to_them(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    """One acquisition of a file that holds two, and files whose frames overlap."""
    later = Scan(phantom.scan.values + np.int16(3), phantom.scan.geometry)
    both = Scan(np.concatenate([phantom.scan.values, later.values]), Geometry((64, 144, 190), np.eye(4)))
    data = pydicom.dcmread(write_enhanced(phantom.scan, tmp_path / "one.dcm"))
    frames = list(data.PerFrameFunctionalGroupsSequence)
    whole = pydicom.dcmread(write_enhanced(both, tmp_path / "both.dcm"))
    whole.SharedFunctionalGroupsSequence = data.SharedFunctionalGroupsSequence
    whole.PerFrameFunctionalGroupsSequence = [copy.deepcopy(frame) for frame in frames * 2]
    for number, frame in enumerate(whole.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + number // 32
        frame.FrameContentSequence = [content]
    whole.save_as(tmp_path / "both.dcm")
    options = DicomOptions(acquisition="2")
    assert not any("left out" in note for note in describe_input(tmp_path / "both.dcm", options).notes)
    analysis = segment(read_scan(tmp_path / "both.dcm", dicom=options), grey_band)
    segmentation = pydicom.dcmread(io.BytesIO(analysis.dicom_results.files["lesions.dcm"]))
    numbers = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    ]
    assert 33 <= min(numbers) < max(numbers) <= 64
    write_parts(phantom.scan, tmp_path / "a", slice(0, 20), slice(14, 32), ConcatenationUID=None,
                InConcatenationNumber=None, InConcatenationTotalNumber=None)  # fmt: skip
    assert "lesions.dcm" in segment(read_scan(tmp_path / "a"), grey_band).dicom_results.files
