"""Bits of DICOM pixels that are not used may hold anything; numbers that need them are refused, not cut off."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from groundglass.errors import FormatError
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import INTERCEPT, write_series
from helpers.fuzz_seeds import pack_lossless

COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1)


@pytest.fixture
def scan() -> Scan:
    return chest_phantom(shape=(2, 48, 64)).scan


@pytest.fixture
def files(scan: Scan, tmp_path: Path) -> list[Path]:
    return write_series(scan, tmp_path / "series")


def store(data: Dataset, stored: NDArray[np.int64], bits_stored: int, high_bit: int) -> None:
    data.PixelData = (stored & 0xFFFF).astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.BitsStored, data.HighBit = bits_stored, high_bit


def change(files: list[Path], above: object, left: int = 0, high_bit: int = 11, is_signed: bool = False) -> None:
    """State 12 bits, with these numbers above them, all of them further left."""
    for path in files:
        data = dcmread(path)
        stored = data.pixel_array.astype(np.int64)
        if is_signed:
            data.PixelRepresentation, data.RescaleIntercept = 1, "0"
            stored = (stored + INTERCEPT) & 0xFFF
        store(data, (stored | np.asarray(above) << 12) << left, 12, high_bit)
        data.save_as(path)


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("above", "high_bit"), [(0, 11), (5, 11), (0, 15)])
def test_what_unused_bits_hold_is_no_part_of_the_number(
    above: int, high_bit: int, is_signed: bool, scan: Scan, files: list[Path]
) -> None:
    change(files, above, high_bit=high_bit, is_signed=is_signed)
    assert np.array_equal(read_scan(files[0].parent).values, scan.values)


def test_padding_of_more_bits_becomes_air(scan: Scan, files: list[Path]) -> None:
    for path in files:
        data = dcmread(path)
        stored = data.pixel_array.astype(np.int64)
        stored[:4] = 63536  # -2000 without its sign, as scanners of GE write it
        store(data, stored, 12, 11)
        data.add_new("PixelPaddingValue", "US", 63536)
        data.save_as(path)
    found = read_scan(files[0].parent).values
    assert (found[:, :4] == -1024).all()
    assert np.array_equal(found[:, 4:], scan.values[:, 4:])


def test_an_overlay_in_unused_bits_is_left_out_if_it_is_stated(scan: Scan, files: list[Path]) -> None:
    drawn = np.zeros(scan.values.shape[1:], np.int64)
    drawn[10:20, 10:20] = 1
    change(files, drawn)
    with pytest.raises(FormatError, match=r"numbers of more bits than its header states \(BitsStored 12\)"):
        read_scan(files[0].parent)
    for path in files:
        data = dcmread(path)
        data.add_new((0x6000, 0x0102), "US", 12)  # OverlayBitPosition
        data.save_as(path)
    assert np.array_equal(read_scan(files[0].parent).values, scan.values)


def test_numbers_that_begin_at_a_higher_bit_are_refused(files: list[Path]) -> None:
    change(files, 0, left=4, high_bit=15)
    with pytest.raises(FormatError, match=r"begin at bit 4 \(HighBit 15, BitsStored 12\).*export the series again"):
        read_scan(files[0].parent)


def test_numbers_of_more_bits_than_stated_are_refused(files: list[Path]) -> None:
    for path in files:
        data = dcmread(path)
        store(data, data.pixel_array.astype(np.int64), 10, 9)
        data.save_as(path)
    with pytest.raises(FormatError, match=r"numbers of more bits than its header states \(BitsStored 10\)"):
        read_scan(files[0].parent)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.name)
def test_compressed_numbers_of_more_bits_than_stated_are_refused(
    syntax: str, scan: Scan, files: list[Path], tmp_path: Path
) -> None:
    for bits in (12, 10):
        for path in files:
            data = dcmread(path)
            if bits == 12 and syntax == JPEGLosslessSV1:
                pack_lossless(data, data.pixel_array[None], tmp_path)
            elif bits == 12:
                data.compress(syntax, generate_instance_uid=False)
            data.BitsStored, data.HighBit = bits, bits - 1
            data.save_as(path)
        if bits == 12:
            assert np.array_equal(read_scan(files[0].parent).values, scan.values)
    with pytest.raises(FormatError, match="numbers of more bits than its header states"):
        read_scan(files[0].parent)
