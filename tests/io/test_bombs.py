"""Small files that unpack to gigabytes: each compressed door is bounded before memory is taken."""

import gzip
import io
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from groundglass.errors import FormatError
from groundglass.io.dicom_files import MAX_INFLATED, _check_inflated_size
from groundglass.io.limits import MAX_VOXEL_BYTES, MAX_VOXELS
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from helpers.dicom_phantom import write_series

MEMORY_MIB = 700  # that a process may take which only refuses a file; it takes about 150 to start


@cache
def deflated_bomb(size: int) -> bytes:
    """An explicit VR data set that unpacks to `size` bytes, most of them in a private attribute."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, size)
    begun = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return begun + part * (size >> 24) + packer.flush()


def meta_group(folder: Path, padding: int = 0, length: int | None = None, is_implicit: bool = False) -> bytes:
    """The beginning of a deflated file up to its data set.

    Args:
        folder: For a file that is needed meanwhile.
        padding: Bytes of private information in the group, before its transfer syntax.
        length: Length that the group states; None: the right one.
        is_implicit: Whether it is written with implicit VR, against the standard.
    """
    data = dcmread(write_series(chest_phantom(shape=(2, 32, 32)).scan, folder)[0])
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    written = DicomBytesIO()
    write_file_meta_info(written, data.file_meta)
    group = written.getvalue()
    if is_implicit:
        elements = [(element.tag, str(element.value).encode()) for element in data.file_meta if element.VR == "UI"]
        group = b"".join(
            struct.pack("<HHI", tag.group, tag.element, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
            for tag, value in elements
        )
    elif padding:
        start = group.index(b"\x02\0\x10\0UI")  # TransferSyntaxUID
        group = group[:start] + struct.pack("<HH2sHI", 2, 0x0001, b"OB", 0, padding) + bytes(padding) + group[start:]
    if length is not None:
        group = group[:8] + struct.pack("<I", length) + group[12:]
    return bytes(128) + b"DICM" + group


@pytest.mark.parametrize(
    "changes",
    [{}, {"padding": 5000}, {"length": 0}, {"length": 10}, {"length": 1 << 31}, {"is_implicit": True}],
    ids=["plain", "padding", "no length", "short length", "long length", "implicit"],
)
@pytest.mark.thorough
def test_a_deflated_data_set_is_bounded_whatever_its_meta_group_states(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(meta_group(tmp_path / "series", **changes) + deflated_bomb(2 * MAX_INFLATED))
    assert path.stat().st_size < 2 << 20
    refused_within_memory(path, "unpacks to more than")


def refused_within_memory(path: Path, message: str) -> None:
    """Check that a process with little memory refuses a file with this message."""
    code = f"""
from pathlib import Path
from groundglass.errors import InputError
from groundglass.io.reader import read_scan
from groundglass.workers import limit_memory
limit_memory({MEMORY_MIB << 20})
try:
    read_scan(Path({str(path)!r}))
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert message in done.stdout, done.stdout + done.stderr


def test_a_large_deflated_data_set_is_counted_piece_by_piece(tmp_path: Path) -> None:
    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 < size <= 1 << 20, "what is left of all would be copied again for each piece"
            return super().read(size)

    packed = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)  # stored as it is
    content = packed.compress(bytes(8 << 20)) + packed.flush()
    _check_inflated_size(tmp_path / "a.dcm", Stream(content))
    with pytest.raises(FormatError, match="unpacks to more than"):
        _check_inflated_size(tmp_path / "a.dcm", Stream(deflated_bomb(MAX_INFLATED + (1 << 24))))


@pytest.mark.slow
def test_many_deflated_files_in_an_archive_are_bounded_too(tmp_path: Path) -> None:
    bomb = meta_group(tmp_path / "series", padding=2000) + deflated_bomb(2 * MAX_INFLATED)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", bomb)
    refused_within_memory(tmp_path / "bomb.zip", "unpacks to more than")


SIDE = 1024
SLICES = MAX_VOXELS // SIDE**2
KINDS = [("f8", "double", "MET_DOUBLE"), ("i8", "int64", "MET_LONG_LONG")]


@pytest.mark.parametrize(("dtype", "nrrd_type", "mha_type"), KINDS, ids=["float64", "int64"])
@pytest.mark.parametrize("form", ["nii.gz", "nrrd", "mha"])
def test_voxels_of_many_bytes_are_refused_by_their_header(
    tmp_path: Path, form: str, dtype: str, nrrd_type: str, mha_type: str
) -> None:
    """As many voxels as are read, but twice as many bytes: 8 MB that unpack to 8 GiB."""
    packed = zlib.compress(bytes(1 << 20)) + bytes(8 << 20)
    if form == "nii.gz":
        header = nibabel.Nifti2Header()
        header.set_data_shape((SIDE, SIDE, SLICES))
        header.set_data_dtype(np.dtype(dtype))
        content = gzip.compress(header.binaryblock) + bytes(8 << 20)
    elif form == "nrrd":
        sizes = f"{SIDE} {SIDE} {SLICES}"
        text = f"NRRD0004\ntype: {nrrd_type}\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: gzip\n\n"
        content = text.encode() + packed
    else:
        text = f"ObjectType = Image\nNDims = 3\nDimSize = {SIDE} {SIDE} {SLICES}\nElementType = {mha_type}\n"
        text += "CompressedData = True\nBinaryData = True\nElementDataFile = LOCAL\n"
        content = text.encode() + packed
    path = tmp_path / f"bomb.{form}"
    path.write_bytes(content)
    refused_within_memory(path, f"more than the {MAX_VOXEL_BYTES:,} that are read")


def test_voxels_up_to_the_limit_are_not_refused_for_their_size(tmp_path: Path) -> None:
    text = f"NRRD0004\ntype: float\ndimension: 3\nsizes: {SIDE} {SIDE} {SLICES}\nendian: little\nencoding: raw\n\n"
    (tmp_path / "cut.nrrd").write_bytes(text.encode())
    with pytest.raises(FormatError, match="cut short"):
        read_scan(tmp_path / "cut.nrrd")


@pytest.mark.parametrize("axes", [17, 1000, 200_000])
@pytest.mark.parametrize("form", ["mha", "nrrd"])
def test_a_header_of_thousands_of_axes_is_refused_at_once(tmp_path: Path, form: str, axes: int) -> None:
    sizes = "9 " * axes if axes != 1000 else "9999999 " * axes  # a product of more digits than Python writes
    if form == "mha":  # a matrix of directions would have axes x axes numbers
        text = f"Comment = ElementDataFile\nNDims = {axes}\nDimSize = {sizes}\nElementType = MET_SHORT\n"
        content = f"{text}ElementDataFile = LOCAL\n".encode()
    else:
        content = (
            f"NRRD0004\ntype: short\nencoding: raw\nendian: little\ndimension: {axes}\nsizes: {sizes}\n\n".encode()
        )
    path = tmp_path / f"a.{form}"
    path.write_bytes(content + b"\x81" * 100)
    with pytest.raises(FormatError, match=f"states {axes:,} axes, expected three"):
        read_scan(path)


@pytest.mark.parametrize("spacing", ["nan inf 1", "1e308 1e308 1e308"])
def test_a_header_of_infinite_numbers_is_refused_in_one_line(tmp_path: Path, spacing: str) -> None:
    text = f"NDims = 3\nDimSize = 32 32 2\nElementSpacing = {spacing}\nTransformMatrix = 9 0 0 0 9 0 0 0 9\n"
    voxels = bytes(32 * 32 * 2 * 2)
    (tmp_path / "a.mha").write_bytes(f"{text}ElementType = MET_SHORT\nElementDataFile = LOCAL\n".encode() + voxels)
    with pytest.raises(FormatError, match="no usable grid") as refused:  # without a warning of NumPy
        read_scan(tmp_path / "a.mha")
    assert "\n" not in str(refused.value)
