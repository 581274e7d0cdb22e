"""CT in several multi-frame files is read as one series; a part without the others is refused."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from groundglass.errors import FormatError
from groundglass.inference.segmenter import Segmenter
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


def test_a_part_that_is_there_twice_counts_once(scan: Scan, tmp_path: Path) -> None:
    paths = write_parts(scan, tmp_path / "a", slice(0, 4), slice(4, 8))
    shutil.copy(paths[1], tmp_path / "a" / "again.dcm")
    found = read_scan(tmp_path / "a")
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("4 images of the same place and pixels left out",)


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
