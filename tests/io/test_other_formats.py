"""Headers with their voxels in a file beside them: read, or refused with a way to make one file that works."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from groundglass.errors import FormatError
from groundglass.io.reader import read_scan
from groundglass.io.text_header import files_of

nibabel: Any = nib
VALUES = np.random.default_rng(4).integers(-1000, 1000, (5, 24, 20)).astype(np.int16)


def nifti_pair(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VALUES.T, np.diag([-0.7, -0.8, 5, 1])), folder / "ct.img")


def nifti2_pair(folder: Path) -> None:
    nibabel.save(nibabel.Nifti2Pair(VALUES.T, np.diag([-0.7, -0.8, 5, 1])), folder / "ct.img")


def analyze_pair(folder: Path) -> None:
    nibabel.save(nibabel.AnalyzeImage(VALUES.T, np.diag([-0.7, 0.8, 5, 1])), folder / "ct.img")


def itk_pair(folder: Path, name: str, packed: bool = False) -> None:
    image: Any = SimpleITK.GetImageFromArray(VALUES)
    image.SetSpacing((0.7, 0.8, 5))
    image.SetOrigin((10, 20, 30))
    SimpleITK.WriteImage(image, str(folder / name), packed)


PAIRS = {"hdr": nifti_pair, "hdr of NIfTI-2": nifti2_pair, "hdr of Analyze": analyze_pair}


@pytest.mark.parametrize("pair", PAIRS)
def test_both_files_of_a_pair_are_refused_with_a_command_that_makes_one_file(
    tmp_path: Path, pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    PAIRS[pair](tmp_path)
    monkeypatch.chdir(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    for name in names:
        with pytest.raises(FormatError, match="make one file of both, in Python with ") as caught:
            read_scan(Path(name))
        command = str(caught.value).split("in Python with ")[1].split(", and give that")[0]
        exec(command, {"nibabel": nibabel, "SimpleITK": SimpleITK})
        assert sorted(np.unique(read_scan(Path("ct.nii.gz")).values)) == sorted(np.unique(VALUES))
        Path("ct.nii.gz").unlink()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr", "a scan.mhd"])
def test_voxels_in_a_file_beside_the_header_are_read_as_by_itk(tmp_path: Path, name: str, packed: bool) -> None:
    itk_pair(tmp_path, name, packed)
    assert len(list(tmp_path.iterdir())) == 2
    scan = read_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.values, VALUES)
    np.testing.assert_allclose(scan.geometry.position((1, 1, 1)), (10.7, 20.8, 35))


@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_the_voxels_alone_are_refused_with_the_header_to_give(tmp_path: Path, name: str) -> None:
    itk_pair(tmp_path, name)
    with pytest.raises(FormatError, match=rf"^ct\.raw holds the voxels of {name}: give {name}$"):
        read_scan(tmp_path / "ct.raw")
    with pytest.raises(FormatError, match=rf"give one file, such as {name}"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda voxels: voxels[:-2], r"is cut short: its header states 4,800 bytes of voxels, the file holds 4,798"),
        (lambda voxels: voxels + voxels, r"holds 9,600 bytes of voxels, its header states 4,800: they do not belong"),
    ],
)
@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_voxels_of_another_size_than_the_header_states_are_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    itk_pair(tmp_path, name)
    voxels = tmp_path / "ct.raw"
    voxels.write_bytes(change(voxels.read_bytes()))
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("stated", ["100", "-1"])
def test_a_header_in_the_file_of_the_voxels_is_skipped(tmp_path: Path, stated: str) -> None:
    itk_pair(tmp_path, "ct.mhd")
    header, voxels = tmp_path / "ct.mhd", tmp_path / "ct.raw"
    header.write_text(header.read_text().replace("ElementDataFile", f"HeaderSize = {stated}\nElementDataFile"))
    voxels.write_bytes(bytes(100) + voxels.read_bytes())
    np.testing.assert_array_equal(read_scan(header).values, VALUES)


@pytest.mark.parametrize("is_from_end", [False, True])
def test_bytes_between_header_and_voxels_are_skipped_as_by_itk(tmp_path: Path, is_from_end: bool) -> None:
    """They were taken for voxels: up to 4 KiB may follow these, so that the file was not too long."""
    itk_pair(tmp_path, "ct.mha")
    path = tmp_path / "ct.mha"
    content, voxels = path.read_bytes(), VALUES.tobytes()
    at = len(content) - len(voxels)
    stated = f"HeaderSize = {-1 if is_from_end else at + 100 + len('HeaderSize = 0000') + 1:4}\n".encode()
    head = content[:at].replace(b"ElementDataFile", stated + b"ElementDataFile")
    path.write_bytes(head + bytes(100) + content[at:])
    np.testing.assert_array_equal(read_scan(path).values, VALUES)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), VALUES)


@pytest.mark.parametrize("data_file", ["../ct.raw", r"..\ct.raw", "LIST", "s%03d.raw 1 30 1", "a/ct.raw"])
@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_voxels_in_another_folder_or_in_several_files_are_refused(tmp_path: Path, name: str, data_file: str) -> None:
    itk_pair(tmp_path, name)
    (tmp_path / "a").mkdir()
    for folder in (tmp_path / "a", tmp_path.parent):
        (folder / "ct.raw").write_bytes(VALUES.tobytes())
    header = tmp_path / name
    header.write_text(header.read_text().replace("ct.raw", data_file))
    with pytest.raises(FormatError, match=r"voxels in another file .*, expected inside, or in one file in the same"):
        read_scan(header)


@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_a_header_whose_voxels_were_renamed_or_left_elsewhere_is_refused_with_what_to_do(
    tmp_path: Path, name: str
) -> None:
    itk_pair(tmp_path, name)
    (tmp_path / "ct.raw").rename(tmp_path / "other.raw")
    with pytest.raises(
        FormatError, match=r"\(\.raw\), which is not beside it: find that file, and put it there under the name"
    ):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_a_pair_of_which_both_were_renamed_is_refused_with_the_name_to_write(tmp_path: Path, name: str) -> None:
    itk_pair(tmp_path, name)
    header = (tmp_path / name).rename(tmp_path / f"new{Path(name).suffix}")
    (tmp_path / "ct.raw").rename(tmp_path / "new.raw")
    with pytest.raises(FormatError, match=r"not beside it: if new\.raw is that file, write its name into the header$"):
        read_scan(header)


@pytest.mark.parametrize("data_file", ["/home/other/ct.raw", r"C:\data\ct.raw", r"\\server\share\ct.raw", "C:ct.raw"])
@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr"])
def test_voxels_named_by_a_path_of_another_computer_are_those_beside_the_header(
    tmp_path: Path, name: str, data_file: str
) -> None:
    itk_pair(tmp_path, name)
    header = tmp_path / name
    header.write_text(header.read_text().replace("ct.raw", data_file))
    scan = read_scan(header)
    np.testing.assert_array_equal(scan.values, VALUES)
    assert [note for note in scan.notes if "by a path of the computer that wrote it" in note]
    assert files_of(header) == [header, tmp_path / "ct.raw"]
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(FormatError, match=r"\(\.raw\), which is not beside it: find that file"):
        read_scan(header)


@pytest.mark.parametrize(("stated", "found"), [("CT.RAW", "ct.raw"), ("größe.raw", "größe.raw"), ("Z.raw", "z.Raw")])
def test_voxels_are_found_in_whatever_case_and_letters_the_header_names_them(
    tmp_path: Path, stated: str, found: str
) -> None:
    itk_pair(tmp_path, "ct.mhd")
    header = tmp_path / "ct.mhd"
    header.write_text(header.read_text().replace("ct.raw", stated), encoding="utf-8")
    (tmp_path / "ct.raw").rename(tmp_path / found)
    np.testing.assert_array_equal(read_scan(header).values, VALUES)
    assert files_of(header) == [header, tmp_path / found]


def test_of_voxels_that_differ_in_case_alone_those_with_the_very_name_are_read(tmp_path: Path) -> None:
    itk_pair(tmp_path, "ct.mhd")
    (tmp_path / "CT.raw").write_bytes(bytes(VALUES.nbytes))
    np.testing.assert_array_equal(read_scan(tmp_path / "ct.mhd").values, VALUES)
    (tmp_path / "ct.raw").rename(tmp_path / "Ct.raw")
    with pytest.raises(FormatError, match="which is not beside it"):
        read_scan(tmp_path / "ct.mhd")


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_file_that_goes_on_after_its_voxels_is_refused(tmp_path: Path, suffix: str) -> None:
    """Its header states too few slices: the others would be lost without a word."""
    path = tmp_path / f"ct.{suffix}"
    itk_pair(tmp_path, path.name)
    path.write_bytes(path.read_bytes() + bytes(100))
    np.testing.assert_array_equal(read_scan(path).values, VALUES)
    path.write_bytes(path.read_bytes() + bytes(8192))
    with pytest.raises(FormatError, match=r"holds 13,092 bytes of voxels, its header states 4,800"):
        read_scan(path)


@pytest.mark.parametrize("name", ["ct.img", "ct.raw", "ct.zraw"])
def test_voxels_without_a_header_are_refused_with_what_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(VALUES.tobytes())
    with pytest.raises(FormatError, match="holds voxels alone, expected a header that states their number"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 20 24 5\nencoding: raw\nendian: little\ndata file: ct.raw",
        "NRRD0004\r\ntype: short\r\ndimension: 3\r\ndata file: ct.raw\r\n\r\n",
        "NRRD0004\nDatafile: LIST\na.raw\nb.raw\n",
        "NRRD0004\ntype: short\ndata file: slice%03d.raw 1 30 1\n",
    ],
)
def test_a_detached_nrrd_header_is_recognised_however_it_ends(tmp_path: Path, text: str) -> None:
    (tmp_path / "ct.nhdr").write_bytes(text.encode())
    with pytest.raises(FormatError, match=r"ct\.nhdr keeps its voxels in another file \(.+\), "):
        read_scan(tmp_path / "ct.nhdr")


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
@pytest.mark.parametrize("data_file", ["ct.raw", "LIST", "slice%03d.raw 1 30 1"])
def test_a_detached_metaimage_header_is_recognised_however_it_ends(tmp_path: Path, ending: str, data_file: str) -> None:
    fields = f"ObjectType = Image\nNDims = 3\nDimSize = 20 24 5\nElementType = MET_SHORT\nElementDataFile = {data_file}"
    (tmp_path / "ct.mhd").write_bytes((fields + ending).encode())
    with pytest.raises(FormatError, match=r"ct\.mhd keeps its voxels in another file"):
        read_scan(tmp_path / "ct.mhd")


def test_a_folder_of_a_pair_is_refused_with_the_command_that_makes_one_file(tmp_path: Path) -> None:
    nifti_pair(tmp_path)
    message = r"slice but 1 \.\w+, 1 \.\w+: ct\.hdr is the header of a pair .*make one file of both, in Python with"
    with pytest.raises(FormatError, match=message):
        read_scan(tmp_path)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_header_whose_voxels_are_not_beside_it_is_refused_with_that_first(tmp_path: Path, pair: str) -> None:
    PAIRS[pair](tmp_path)
    header, voxels = sorted(tmp_path.iterdir(), key=lambda path: path.suffix != ".hdr")
    voxels.unlink()
    missing = rf"{header.name} .* not beside it: find that first, then make one file of both, in Python with "
    with pytest.raises(FormatError, match=missing):
        read_scan(header)


def test_a_folder_of_volumes_is_refused_with_one_of_them_and_batch(tmp_path: Path) -> None:
    for name in ("b", "a"):
        nibabel.save(nibabel.Nifti1Image(VALUES.T, np.diag([-0.7, -0.8, 5, 1])), tmp_path / f"{name}.nii.gz")
    with pytest.raises(
        FormatError, match=r"but 2 \.nii\.gz: give one file, such as a\.nii\.gz, or the folder to `grou"
    ):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("ct.npy", "is a NumPy archive: give one of its arrays to groundglass.segment"),
        ("[Content_Types].xml", "is an Office document: save each of its pictures as PNG"),
        ("archive/data.pkl", "is a file of PyTorch: give its array to groundglass.segment"),
    ],
)
def test_archives_that_are_files_of_a_program_are_named(tmp_path: Path, member: str, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(FormatError) as refusal:
        read_scan(tmp_path / "a.zip")
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "fetch it first, as by `git annex get`",
        ),
        (b"/annex/objects/MD5E-s1--c8d2.nii.gz\n", "is a pointer to a file that is not here"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "is a web page (of a download that failed"),
        (bytes(2000), "is nothing but zeros (its download or copy was not finished)"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(200), "is a MATLAB file"),
        (b"\0\0\0\x20ftypisom" + bytes(200), "is a film"),
        (b"\0\0\0\x24ftypheic" + bytes(200), "is a HEIC picture (save it as PNG)"),
        (b"\0\0\0\x24ftypmif1" + bytes(200), "is a HEIC picture (save it as PNG)"),
        (b"\0\0\0\x20ftypavif" + bytes(200), "is an AVIF picture (save it as PNG)"),
        (b"II*\0" + bytes(200), "is a TIFF picture (save it as PNG)"),
        (b"\0\0\0\1\0\0\1\0" + bytes(200), "is an MGH file of FreeSurfer (convert it to NIfTI"),
        (b"L\0\0\0\1\x14\2\0\0\0\0\0\xc0\0\0\0\0\0\0F" + bytes(200), "or give the file itself"),
    ],
    ids=[
        *("Git LFS", "git-annex", "web page", "zeros", "MATLAB", "film"),
        *("HEIC", "HEIC of a phone", "AVIF", "TIFF", "MGH", "Windows shortcut"),
    ],
)
def test_what_stands_for_a_scan_is_refused_as_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(content)
    with pytest.raises(FormatError) as refusal:
        read_scan(tmp_path / "ct.nii.gz")
    assert reason in str(refusal.value)


@pytest.mark.parametrize("suffix", [".iso", ".nrg", ".ISO"])
def test_the_image_of_a_disc_is_refused_with_the_way_to_open_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"cd{suffix}").write_bytes(bytes(32769) + b"CD001\1" + bytes(2000))  # its first sectors are empty
    with pytest.raises(FormatError, match=r"is the image of a disc \(open it, and give the folder of the CT in it\)"):
        read_scan(tmp_path / f"cd{suffix}")


def test_a_folder_of_files_named_dicom_that_hold_none_says_what_they_are(tmp_path: Path) -> None:
    for z in range(3):
        (tmp_path / f"{z}.dcm").write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(200)))
    with pytest.raises(FormatError, match=r"those named \.dcm hold none: each is DICOM in a gzip archive"):
        read_scan(tmp_path)
