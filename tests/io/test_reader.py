import gzip
import os
import shutil
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from groundglass.errors import FormatError
from groundglass.io.reader import FINDINGS_FILE, RESULT_FILES, read_scan
from groundglass.report.dicom_results import SEG_FILE, SR_FILE
from groundglass.report.results_folder import RESULT_NAMES

sitk: Any = SimpleITK
VALUES = np.random.default_rng(3).integers(-1000, 1000, (5, 24, 20)).astype(np.int16)
# Columns (x, y, z) in LPS: turned about the patient's long axis, the slices from head to feet.
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
SPACING, ORIGIN = (0.7, 0.8, 5.0), (-100.0, -80.0, 30.0)


def write(path: Path, values: Any = VALUES, packed: bool = False) -> Path:
    image = sitk.GetImageFromArray(values, isVector=False)
    if values.ndim == 3:
        image.SetDirection(DIRECTION)
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
    sitk.WriteImage(image, str(path), packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["-a scan ü.mha", "A.NRRD", "b.nii", "c.nii.gz"])
def test_every_format_puts_a_voxel_at_the_same_position(tmp_path: Path, name: str, packed: bool) -> None:
    path = write(tmp_path / name.lower(), packed=packed).rename(tmp_path / name)
    scan = read_scan(path)
    assert scan.values.dtype == np.int16
    np.testing.assert_array_equal(scan.values, VALUES)
    # By hand: origin + direction @ (spacing * (x, y, z)) with (x, y, z) = (4, 3, 2), so steps of (2.8, 2.4, 10).
    expected = (-100 + 0.8 * 2.8 - 0.6 * 2.4, -80 + 0.6 * 2.8 + 0.8 * 2.4, 30 - 10)
    np.testing.assert_allclose(scan.geometry.position((2, 3, 4)), expected, atol=1e-4)
    assert scan.geometry.voxel_ml == pytest.approx(0.7 * 0.8 * 5 / 1000, rel=1e-5)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz", ".png"])
def test_a_file_without_an_extension_is_read(tmp_path: Path, suffix: str) -> None:
    values = VALUES if suffix != ".png" else np.zeros((24, 20), np.uint8)
    shutil.move(write(tmp_path / f"x{suffix}", values), tmp_path / "IM0001")
    assert read_scan(str(tmp_path / "IM0001")).values.shape[1:] == (24, 20)


def test_an_unpacked_nifti_named_gz_is_read(tmp_path: Path) -> None:
    write(tmp_path / "x.nii").rename(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "x.nii.gz").values, VALUES)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_2d_slice_of_doubles_is_read_as_float32(tmp_path: Path, suffix: str) -> None:
    scan = read_scan(write(tmp_path / f"x{suffix}", VALUES[0].astype(np.float64)))
    assert scan.values.dtype == np.float32
    np.testing.assert_array_equal(scan.values, VALUES[:1])


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.999])
def test_a_cut_file_is_refused(
    tmp_path: Path, suffix: str, packed: bool, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / f"x{suffix}", packed=packed)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part) if part > 0.1 else 60])
    with pytest.raises(FormatError, match=r"cut short|of an unknown kind|is text") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_flipped_bit_in_packed_voxels_is_refused(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / f"x{suffix}", packed=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        read_scan(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("slices", "found"), [(3, r"2,880 were found"), (500, "more were found")])
def test_an_mha_with_more_or_fewer_voxels_than_stated_is_refused(tmp_path: Path, slices: int, found: str) -> None:
    path = write(tmp_path / "x.mha", packed=True)
    header, _, body = path.read_bytes().partition(b"LOCAL\n")
    other = zlib.compress(bytes(slices * 24 * 20 * 2))
    header = header.replace(f"DataSize = {len(body)}".encode(), f"DataSize = {len(other)}".encode())
    path.write_bytes(header + b"LOCAL\n" + other)
    with pytest.raises(FormatError, match=found):
        read_scan(path)


@pytest.mark.parametrize(
    ("suffix", "old", "new", "message"),
    [
        (".mha", b"DimSize = 20 24 5", b"DimSize = 20000 24000 5000", "voxels, more than"),
        (".nrrd", b"sizes: 20 24 5", b"sizes: 20000 24000 5000", "voxels, more than"),
        (".mha", b"DimSize = 20 24 5", b"DimSize = 20 -24 5", "x.mha"),
        (".nrrd", b"sizes: 20 24 5", b"sizes: 20 0 5", "x.nrrd"),
        (".mha", b"DimSize = 20 24 5", b"DimSize = 20 24 50", "cut short: its header states 48,000 bytes"),
        (".nrrd", b"sizes: 20 24 5", b"sizes: 20 24 50", "cut short: its header states 48,000 bytes"),
        (".mha", b"ElementSpacing = ", b"ElementSpacing = 0 1 1\nWas = ", "no usable grid"),
        (".mha", b"MET_SHORT", b"MET_OTHER", "damaged header"),
        (".mha", b"ElementSpacing = 0.", b"ElementSpacing = 0 0.", "damaged header"),
        (".mha", b"MET_SHORT", b"PLANTED^NAME", "damaged header: DimSize, ElementType or numbers"),
        (".mha", b"LOCAL", b"/etc/hostname", r"keeps its voxels in another file \(without an extension\)"),
        (
            ".nrrd",
            b"\n\n",
            b"\ndata file: /etc/hostname\n\n",
            r"keeps its voxels in another file \(without an extension\)",
        ),
        (".mha", b"BinaryData = True", b"BinaryData = False", "holds its voxels as text"),
    ],
)
def test_damaged_headers_are_refused(
    tmp_path: Path, suffix: str, old: bytes, new: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / f"x{suffix}")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(FormatError, match=message):
        read_scan(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colours_4d_nan_and_tiny_slices_are_refused(tmp_path: Path, suffix: str) -> None:
    colour = sitk.GetImageFromArray(np.zeros((4, 20, 20, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / f"c{suffix}"))
    with pytest.raises(FormatError, match="3 numbers per voxel, expected one grey value"):
        read_scan(tmp_path / f"c{suffix}")
    with pytest.raises(FormatError, match="20 x 20 x 4 x 2, expected one volume: take one"):
        read_scan(write(tmp_path / f"t{suffix}", np.zeros((2, 4, 20, 20), np.float32)))
    values = VALUES.astype(np.float32)
    values[1, 5, 5] = np.nan
    with pytest.raises(FormatError, match="1 of 2,400 voxels inside the image that are NaN"):
        read_scan(write(tmp_path / f"n{suffix}", values))
    with pytest.raises(FormatError, match="8 x 20 pixels, expected at least 16 x 16"):
        read_scan(write(tmp_path / f"s{suffix}", VALUES[:, :8]))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".png", ""])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"patient,volume\n1,2\n", "is text"),
        (b"PK\x03\x04....", "is a damaged ZIP archive|is ZIP by its content, expected PNG"),
        (gzip.compress(b"hello", mtime=0), r"is a gzip file with no NIfTI inside \(text\)"),
        (b"\x1f\x8b garbage", "is a damaged gzip file"),
        (
            bytes(128) + b"DICM" + bytes(200),
            "no DICOM image but 1 damaged|is DICOM by its content, expected PNG",
        ),
        (bytes(range(256)), "is of an unknown kind"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), r"is a 7z archive \(unpack it, and give what is inside\)"),
        (b"BZh91AY" + bytes(99), r"is a bzip2 archive \(unpack it"),
        (bytes(257) + b"ustar\x0000" + bytes(248), r"is a tar archive \(unpack it"),
        (gzip.compress(bytes(257) + b"ustar\x0000" + bytes(248), mtime=0), r"is a packed tar archive \(unpack"),
        (gzip.compress(bytes(128) + b"DICM" + bytes(99), mtime=0), r"is DICOM in a gzip archive \(unpack it"),
        (
            gzip.compress(gzip.compress(bytes(344) + b"n+1\0", mtime=0), mtime=0),
            r"no NIfTI inside \(but another gzip file\)",
        ),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(99), "is a WebP picture"),
        (b"\x93NUMPY\x01\0" + bytes(99), r"is a NumPy array, which groundglass\.segment takes"),
    ],
)
def test_the_message_names_what_a_file_is_instead(tmp_path: Path, suffix: str, content: bytes, found: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=found):
        read_scan(path)


def test_a_picture_named_as_a_volume_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    write(tmp_path / "x.png", np.zeros((20, 20), np.uint8)).rename(tmp_path / "x.nii.gz")
    write(tmp_path / "y.nii.gz").rename(tmp_path / "y.png")
    with pytest.raises(FormatError, match=r"x\.nii\.gz is PNG by its content, expected NIfTI as its name says"):
        read_scan(tmp_path / "x.nii.gz")
    with pytest.raises(FormatError, match=r"y\.png is NIfTI by its content, expected PNG as its name says"):
        read_scan(tmp_path / "y.png")


def test_paths_to_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.nii").symlink_to(tmp_path / "gone.nii")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(FormatError, match=r"no\.nii cannot be read: there is no such file or folder; check the path"):
        read_scan(tmp_path / "no.nii")
    with pytest.raises(FormatError, match=r"broken\.nii cannot be read: its link leads nowhere"):
        read_scan(tmp_path / "broken.nii")
    with pytest.raises(FormatError, match="circle cannot be read: its links go in a circle"):
        read_scan(tmp_path / "circle")
    with pytest.raises(FormatError, match="cannot be read: its name is no path"):
        read_scan("a\0b")
    with pytest.raises(FormatError, match="cannot be read: File name too long"):
        read_scan("x" * 5000)


@pytest.mark.timeout(10)
def test_a_pipe_or_socket_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(FormatError, match=r"pipe\.nii is no regular file"):
        read_scan(tmp_path / "pipe.nii")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.nii"))
        with pytest.raises(FormatError, match=r"s\.nii is no regular file"):
            read_scan(tmp_path / "s.nii")
    with pytest.raises(FormatError, match=r"holds no DICOM, PNG or JPEG slice but 2 \.nii"):
        read_scan(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nii")
    path.chmod(0)
    with pytest.raises(FormatError, match=r"x\.nii cannot be read: Permission denied; check its permissions"):
        read_scan(path)


def test_a_permission_error_is_reported_for_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "x.nii")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(FormatError, match=r"x\.nii cannot be read: Permission denied; check its permissions"):
        read_scan(path)
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(FormatError, match="cannot be read: Permission denied"):
        read_scan(tmp_path)


def test_folders_without_dicom_and_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no DICOM, PNG or JPEG slice but nothing: expected"):
        read_scan(tmp_path)
    for name in ("a.nii.gz", "b.nii.gz", "c.txt", "bare"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    with pytest.raises(FormatError, match=r"but 2 \.nii\.gz, (1 \.txt|1 without extension|1 folder)"):
        read_scan(tmp_path)
    with pytest.raises(FormatError, match="but 1 folder"):
        read_scan(tmp_path / "sub")
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(
        FormatError, match="holds no DICOM image but 1 link to a folder, 1 damaged DICOM file, 4 empty files"
    ):
        read_scan(tmp_path)


def test_results_in_a_folder_are_no_part_of_its_scan(tmp_path: Path) -> None:
    """As after `segment ct -o ct`, or where the folder of the results is given in place of that of the scan."""
    assert {*RESULT_FILES, FINDINGS_FILE, "lesions", SEG_FILE, SR_FILE} == {*RESULT_NAMES}
    rng = np.random.default_rng(0)
    for name in (*RESULT_FILES, FINDINGS_FILE):
        (tmp_path / name).write_text("of a result")
    Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "preview.png")
    with pytest.raises(FormatError, match="holds results of groundglass and no scan: give the scan they were made of"):
        read_scan(tmp_path)
    plane = rng.integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(plane).save(tmp_path / "slice.png")
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.values, plane[None])
    assert scan.notes == (f"left out: {len(RESULT_FILES)} files of an earlier result",)
    (tmp_path / FINDINGS_FILE).unlink()  # without it, a picture of such a name is one like all
    (tmp_path / "lesions.png").unlink()
    for name in ("lungs.png", "probability.png"):
        (tmp_path / name).unlink()
    assert read_scan(tmp_path).values.shape == (2, 64, 64)


def test_a_folder_with_a_text_file_named_png_is_refused(tmp_path: Path) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("oh")
    with pytest.raises(FormatError, match=r"b\.png is text, expected PNG as its name says"):
        read_scan(tmp_path)


def test_a_name_with_a_line_break_is_printed_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "two\nlines.nii").touch()
    with pytest.raises(FormatError, match=r"two\?lines\.nii is empty"):
        read_scan(tmp_path / "two\nlines.nii")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not UTF-8")
def test_a_file_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    undecodable = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    for suffix in (".nrrd", ".mha", ".nii"):
        write(tmp_path / f"x{suffix}").rename(undecodable.with_suffix(suffix))
        np.testing.assert_array_equal(read_scan(undecodable.with_suffix(suffix)).values, VALUES)


def test_importing_the_reader_imports_neither_torch_nor_pynrrd() -> None:
    code = "import sys, groundglass.io.reader; sys.exit(any(name in sys.modules for name in ('nrrd', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
