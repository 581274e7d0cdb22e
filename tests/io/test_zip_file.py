"""DICOM is read from ZIP archives; archives that are damaged, encrypted or too large are refused."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.io import zip_file
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series


@pytest.fixture(scope="module")
def scan() -> Scan:
    return chest_phantom(shape=(6, 40, 48)).scan


@pytest.fixture(scope="module")
def files(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_series(scan, tmp_path_factory.mktemp("dicom") / "series")


def pack(path: Path, files: list[Path], names: list[str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, name in zip(files, names or [f"a/{file.name}" for file in files], strict=True):
            archive.write(file, name)
    return path


def test_member_names_never_become_paths(scan: Scan, files: list[Path], tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../../up.dcm", "/etc/absolute.dcm", "C:\\drive.dcm", "same", "same ", "a/b/c/d/e/f/deep"]
    found = read_scan(pack(inside / "a.zip", files, names))
    assert np.array_equal(found.values, scan.values)
    assert found.source == inside / "a.zip"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inside"]


def link_to(target: str, archive: zipfile.ZipFile, name: str = "link.dcm") -> None:
    link = zipfile.ZipInfo(name)
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(link, target)


@pytest.mark.parametrize("targets", [["/etc/passwd"], ["a/IM0000.dcm", "nowhere", "link.dcm"]])
def test_links_are_not_followed_and_a_note_counts_them(
    scan: Scan, files: list[Path], tmp_path: Path, targets: list[str]
) -> None:
    path = pack(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        for number, target in enumerate(targets):
            link_to(target, archive, f"a/link{number}.dcm")
        link_to("/etc/passwd", archive, "a/.hidden")
    found = read_scan(path)
    assert np.array_equal(found.values, scan.values)
    expected = f"left out: {len(targets)} symbolic link{'s' if len(targets) > 1 else ''}"
    assert found.notes == (expected,)
    assert expected in describe_input(path).notes


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"])
def test_an_archive_in_an_archive_or_a_folder_is_left_out_with_a_note(
    scan: Scan, files: list[Path], tmp_path: Path, start: bytes
) -> None:
    with zipfile.ZipFile(pack(tmp_path / "a.zip", files), "a") as archive:
        archive.writestr("more", start + bytes(100))
        archive.extractall(tmp_path / "folder")
    for source in (tmp_path / "a.zip", tmp_path / "folder"):
        found = read_scan(source)
        assert np.array_equal(found.values, scan.values)
        assert found.notes == ("left out: 1 packed archive",)


def test_an_archive_of_links_alone_is_refused(files: list[Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in files:
            link_to(str(file), archive, file.name)
    with pytest.raises(
        FormatError, match=r"a\.zip holds no DICOM image but 6 symbolic links: give the folder of the CT"
    ):
        read_scan(tmp_path / "a.zip")


def test_folders_and_hidden_files_are_not_read(scan: Scan, files: list[Path], tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("folder")
        archive.writestr("__MACOSX/._x.dcm", b"\0\x05\x16\x07")
        archive.writestr("a/.hidden.dcm", files[0].read_bytes())
        archive.writestr("a/readme.txt", "other files may be there")
    found = read_scan(path)
    assert np.array_equal(found.values, scan.values)
    assert found.notes == ("left out: 1 hidden DICOM file",)


def test_zip_bombs_are_refused_before_unpacking(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"{number}.dcm", bytes(1 << 20))
    monkeypatch.setattr(zip_file, "MAX_UNPACKED", 5 << 20)
    with pytest.raises(FormatError, match=r"a\.zip claims 10,485,760 bytes unpacked"):
        read_scan(path)
    monkeypatch.setattr(zip_file, "MAX_UNPACKED", 1 << 40)
    monkeypatch.setattr(zip_file, "FREE", 5 << 20)  # it is packed by 1000
    with pytest.raises(FormatError, match="more than a scan can be"):
        read_scan(path)
    monkeypatch.setattr(zip_file, "FREE", 1 << 40)
    with pytest.raises(FormatError, match="holds no DICOM image but 10 other file"):
        read_scan(path)
    monkeypatch.setattr(zip_file, "MAX_MEMBER", 1000)
    with pytest.raises(FormatError, match="more than a scan can be"):
        read_scan(path)


def test_a_bomb_that_states_too_large_packed_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(1 << 20))
    data = bytearray(content.getvalue())
    packed = data.index(b"PK\1\2") + 20  # in the directory
    data[packed : packed + 4] = struct.pack("<I", 1 << 30)
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    monkeypatch.setattr(zip_file, "FREE", 1 << 10)
    with pytest.raises(FormatError, match="more than a scan can be"):
        read_scan(path)


def test_an_archive_that_states_wrong_sizes_is_refused(tmp_path: Path) -> None:
    """The directory states 200 bytes, the member unpacks to a mebibyte."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(128) + b"DICM" + bytes(1 << 20))
    data = bytearray(content.getvalue())
    size = struct.pack("<I", 132 + (1 << 20))
    for _ in range(2):  # in the member's own header, and in the directory
        data[data.index(size) : data.index(size) + 4] = struct.pack("<I", 200)
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.zip (is a damaged ZIP archive|holds)"):
        read_scan(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_all_at_once_are_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.dcm", bytes(128) + b"DICM" + bytes(1 << 20))
    with pytest.raises(FormatError, match=r"a\.zip is not packed by deflate, .* pack it anew"):
        read_scan(tmp_path / "a.zip")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_file, "MAX_MEMBERS", 50)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(51):
            archive.writestr(str(number), b"")
    with pytest.raises(FormatError, match="holds 51 files, expected at most 50"):
        read_scan(tmp_path / "a.zip")


def test_an_encrypted_archive_is_refused(files: list[Path], tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", files)
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + 8] |= 1
    data[6] |= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is encrypted, expected a plain ZIP archive"):
        read_scan(path)


@pytest.mark.parametrize("cut", [0.2, 0.9, 0.999])
def test_a_cut_archive_is_refused(cut: float, files: list[Path], tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", files)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(FormatError, match=r"a\.zip is a damaged ZIP archive"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".z01", ".001"])
def test_a_part_of_a_split_archive_is_refused_with_the_way_to_join_them(
    suffix: str, files: list[Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.write(files[0], "1.dcm")
    content = (tmp_path / "whole.zip").read_bytes()
    part = tmp_path / f"scan.zip{suffix}"
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"is a part of a split ZIP archive: unpack all parts together"):
        read_scan(part)


def test_an_archive_without_dicom_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(FormatError, match=r"a\.zip holds no DICOM image but 1 other file"):
        read_scan(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w"):
        pass
    with pytest.raises(FormatError, match="is an empty ZIP archive"):
        read_scan(tmp_path / "b.zip")


def test_no_temporary_file_is_written(
    scan: Scan, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    read_scan(pack(tmp_path / "a.zip", files))
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ct.nii.gz",), r"holds no DICOM image but 1 NIfTI file: unpack it, and give ct\.nii\.gz$"),
        (("a/b/ct.nii", "__MACOSX/._ct.nii"), r"1 NIfTI file: unpack it, and give ct\.nii$"),
        (("x\\ct.NII.GZ", "readme.txt"), r"1 NIfTI file: unpack it, and give ct\.NII\.GZ$"),
        (
            ("1.nii", "2.nii", "z.png"),
            r"2 NIfTI files, 1 PNG or JPEG picture: unpack it, and give one of them, such as 1",
        ),
        (("ct.mha",), r"1 MHA or NRRD file: unpack it, and give ct\.mha"),
        (("ct.nrrd", "ct.zip"), r"1 MHA or NRRD file, 1 ZIP archive: unpack it, and give ct\.nrrd"),
        (("ct.mhd", "ct.raw"), r"1 header whose voxels lie in another file: unpack it, and give ct\.mhd"),
        (("ct.hdr", "ct.img"), r"1 header whose voxels lie in another file: unpack it, and give ct\.hdr"),
        (("1.png", "2.jpg"), r"2 PNG or JPEG pictures: unpack it, and give their folder"),
        (("inner.zip",), r"1 ZIP archive: unpack it, and give inner\.zip"),
        (("\u202ect\n.nii",), r"1 NIfTI file: unpack it, and give \?ct\?\.nii"),
    ],
)
def test_an_archive_of_another_format_is_named_with_what_to_do(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, bytes(400))
    with pytest.raises(FormatError, match=message) as caught:
        read_scan(tmp_path / "a.zip")
    assert "\n" not in str(caught.value)
    with pytest.raises(FormatError, match=message):
        describe_input(tmp_path / "a.zip")


def test_an_archive_of_empty_folders_is_said_to_hold_no_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("study/", b"")
    with pytest.raises(FormatError, match=r"a\.zip holds no file: give the folder of the CT series"):
        read_scan(tmp_path / "a.zip")
