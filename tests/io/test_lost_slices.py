"""Slices that are not read are counted in a note, in `segment` and in `info` alike, or named in a refusal."""

import bz2
import gc
import io
import lzma
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.io import dicom_files, limits
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(8, 48, 64)).scan


def check_note(source: Path, scan: Scan, note: str) -> None:
    """Check that six of eight slices are read, and that this note is all that is said, also by `info`."""
    found = read_scan(source)
    assert np.array_equal(found.values, scan.values[:6])
    assert found.notes == (note,)
    described = describe_input(source)
    assert note in described.notes
    assert described.shape == found.values.shape


# Hidden files


def hide(path: Path) -> None:
    path.rename(path.with_name(f".{path.name}"))


def hide_in_folder(path: Path) -> None:
    (path.parent / ".more").mkdir(exist_ok=True)
    path.rename(path.parent / ".more" / path.name)


@pytest.mark.parametrize("lose", [hide, hide_in_folder])
def test_hidden_slices_are_counted(lose: Callable[[Path], None], scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a")[6:]:
        lose(path)
    check_note(tmp_path / "a", scan, "left out: 2 hidden DICOM files")


def test_hidden_slices_of_a_zip_are_counted(scan: Scan, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for z, path in enumerate(write_series(scan, tmp_path / "a")):
            archive.writestr(f"a/{path.name if z < 6 else f'.{path.name}'}", path.read_bytes())
            archive.writestr(f"__MACOSX/a/._{path.name}", b"\0\x05\x16\x07\0\x02\0\0Mac OS X")
    check_note(tmp_path / "a.zip", scan, "left out: 2 hidden DICOM files")


def test_hidden_files_of_other_kinds_are_not_counted(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a")
    for name, content in ((".DS_Store", b"\0\0\0\1Bud1"), ("._IM1", b"\0\x05\x16\x07"), (".git/HEAD", b"ref: x")):
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(content)
    assert read_scan(tmp_path / "a").notes == ()


def test_a_refusal_of_a_gap_names_the_hidden_slices(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a")[3:5]:
        hide(path)
    message = r"lacks 2 slices \(behind slice 3 of 6.*; left out: 2 hidden DICOM files$"
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path / "a")
    assert str(describe_input(tmp_path / "a").refused).endswith("; left out: 2 hidden DICOM files")


def test_hidden_slices_alone_are_named(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a"):
        hide(path)
    with pytest.raises(FormatError, match="a holds no DICOM image but 8 hidden DICOM files: give"):
        read_scan(tmp_path / "a")


# The directory of a disc


def write_disc(scan: Scan, folder: Path, **changes: str) -> list[Path]:
    """Write a disc with the scan as one series and a second series of one image: the files of the first."""
    paths = [*write_series(scan, folder / "source", **changes), write_series(scan, folder / "other")[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pydicom leaves folders to the garbage collector
        disc = FileSet()
        for path in paths:
            disc.add(path)
        disc.write(folder / "disc")
        del disc
        gc.collect()
    headers = {
        path: pydicom.dcmread(path, stop_before_pixels=True)
        for path in (folder / "disc").rglob("*")
        if path.is_file() and path.name != "DICOMDIR"
    }
    uid = pydicom.dcmread(next((folder / "source").iterdir())).SeriesInstanceUID
    of_scan = [path for path, header in headers.items() if header.SeriesInstanceUID == uid]
    for path in set(headers) - set(of_scan):
        path.unlink()
    return sorted(of_scan, key=lambda path: float(headers[path].ImagePositionPatient[2]))


def test_images_that_a_dicomdir_lists_and_that_are_not_there_are_counted(scan: Scan, tmp_path: Path) -> None:
    for path in write_disc(scan, tmp_path)[6:]:
        path.unlink()
    note = "2 images of the series that the DICOMDIR lists are not here: volumes are of the others; copy the whole disc"
    check_note(tmp_path / "disc", scan, note)


def test_a_whole_disc_has_no_note_also_when_an_anonymiser_changed_its_images(scan: Scan, tmp_path: Path) -> None:
    paths = write_disc(scan, tmp_path)
    assert read_scan(tmp_path / "disc").notes == ()
    for path in paths:
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(path)
    assert read_scan(tmp_path / "disc").notes == ()
    paths[-1].unlink()
    (note,) = read_scan(tmp_path / "disc").notes
    assert note.startswith("1 image of the series that the DICOMDIR lists is not here")


def test_a_disc_without_its_images_is_refused_with_their_number(scan: Scan, tmp_path: Path) -> None:
    for path in write_disc(scan, tmp_path):
        path.unlink()
    with pytest.raises(FormatError, match="disc holds no DICOM image but 1 DICOMDIR that lists 9 images: give"):
        read_scan(tmp_path / "disc")


def test_a_dicomdir_whose_records_go_in_a_circle_is_read(scan: Scan, tmp_path: Path) -> None:
    write_disc(scan, tmp_path)
    directory = pydicom.dcmread(tmp_path / "disc" / "DICOMDIR")
    for record in directory.DirectoryRecordSequence:
        record.OffsetOfTheNextDirectoryRecord = directory.DirectoryRecordSequence[-1].seq_item_tell
    directory.save_as(tmp_path / "disc" / "DICOMDIR")
    assert np.array_equal(read_scan(tmp_path / "disc").values, scan.values)


# Files that cannot be read, and packed ones


def test_files_that_cannot_be_read_are_counted(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = write_series(scan, tmp_path / "a")[6:]
    open_file = limits.open_bounded

    def refuse(path: Path) -> object:
        if path in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path)

    monkeypatch.setattr(dicom_files, "open_bounded", refuse)
    check_note(tmp_path / "a", scan, "left out: 2 files that cannot be read")


def test_folders_that_cannot_be_read_are_counted(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "a" / "locked"
    paths = write_series(scan, tmp_path / "a")
    locked.mkdir()
    for path in paths[6:]:
        path.rename(locked / path.name)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    check_note(tmp_path / "a", scan, "left out: 1 folder that cannot be read")


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("IM1")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".bz2", bz2.compress), (".xz", lzma.compress), (".tar", tarred)], ids=["bz2", "xz", "tar"]
)
def test_packed_slices_of_any_name_are_counted(
    suffix: str, pack: Callable[[bytes], bytes], scan: Scan, tmp_path: Path
) -> None:
    for number, path in enumerate(write_series(scan, tmp_path / "a")[6:]):
        path.with_name(f"rest{number}{suffix}").write_bytes(pack(path.read_bytes()))
        path.unlink()
    check_note(tmp_path / "a", scan, "left out: 2 packed archives")


# Repeated slices


def test_repeated_slices_are_foretold_with_the_grid_of_the_others(scan: Scan, tmp_path: Path) -> None:
    shutil.copytree(write_series(scan, tmp_path / "a")[0].parent, tmp_path / "a" / "copy")
    found, described = read_scan(tmp_path / "a"), describe_input(tmp_path / "a")
    assert found.notes == ("8 images of the same place and pixels left out",)
    assert found.notes[0] in described.notes
    assert described.shape == found.values.shape == scan.values.shape


# Pictures


def test_pictures_that_are_hidden_or_in_folders_below_are_counted(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", ".3.png", "more/4.png", "more/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / name)
    found = read_scan(tmp_path)
    assert len(found.values) == 2
    assert found.notes == ("left out: 1 hidden PNG or JPEG, 2 PNG or JPEG in folders below",)


def test_damaged_dicom_beside_pictures_is_counted(scan: Scan, tmp_path: Path) -> None:
    path = write_series(scan, tmp_path / "a")[0]
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / "1.png")
    (tmp_path / "a.dcm").write_bytes(path.read_bytes()[:700])
    shutil.rmtree(tmp_path / "a")
    assert read_scan(tmp_path).notes == ("left out: 1 damaged file",)


def test_a_folder_with_an_archive_alone_is_refused_with_the_way_to_fix_it(scan: Scan, tmp_path: Path) -> None:
    content = write_series(scan, tmp_path / "a")[0].read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "scan.tar").write_bytes(tarred(content))
    with pytest.raises(FormatError, match=r"but 1 \.tar: unpack the archive, and give what is inside"):
        read_scan(tmp_path / "b")


def test_images_of_another_size_in_a_series_are_counted(scan: Scan, tmp_path: Path) -> None:
    for path in write_series(scan, tmp_path / "a")[6:]:
        data = pydicom.dcmread(path)
        data.Rows, data.PixelData = 47, data.PixelData[: 47 * 64 * 2]
        data.save_as(path)
    check_note(tmp_path / "a", scan, "left out: 2 images of another size")
