"""Decode the pixels of DICOM slices into HU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGExtended12Bit

from groundglass.errors import FormatError
from groundglass.io.decoding import CODEC_BY_SYNTAX, MOST_AT_ONCE, take_failure
from groundglass.io.dicom_header import DICOM_ERRORS, DicomSlice, number_value, text_value, transfer_syntax
from groundglass.io.empty_voxels import PADDING_HU
from groundglass.io.frame_decoder import COMPRESSED, PLUGIN
from groundglass.io.pixel_codecs import DecodeError
from groundglass.parallel import map_in_threads, one_ahead

# {transfer syntax: pydicom's name of the decoder}
DECODERS = {
    **dict.fromkeys(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"), ""),
    **dict.fromkeys(COMPRESSED, PLUGIN),
}
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
TISSUE_HU = (-900.0, 300.0)  # no range of padding holds such numbers


def check_transfer_syntaxes(name: str, slices: Sequence[DicomSlice]) -> None:
    """Check that there is a decoder for every slice.

    Raises:
        FormatError: A transfer syntax is not read; the message lists those that are.
    """
    for dicom_slice in slices:
        uid = transfer_syntax(dicom_slice.header)
        is_12_bit = uid == JPEGExtended12Bit and (number_value(dicom_slice.header, "BitsStored") or 0) > 8
        if is_12_bit or uid not in DECODERS:
            supported = ", ".join(UID(syntax).name for syntax in DECODERS)
            raise FormatError(
                f"{name} is packed as {uid.name} ({uid}{', 12 bits' if is_12_bit else ''}), which is not read: "
                f"send it uncompressed; these are read: {supported}"
            )


def decode_slices(
    name: str, slices: Sequence[DicomSlice], size: tuple[int, int]
) -> Iterator[tuple[DicomSlice, NDArray[Any]]]:
    """Decode slices in their order, two at once; a multi-frame file is read once for all its frames.

    Args:
        name: Name of the input, for messages.
        slices: The slices.
        size: Rows and columns that each slice has to have.

    Yields:
        Each slice and (y, x) its HU: int16 if slopes and intercepts of all are whole numbers and the values fit,
        else float32. Padding is air.

    Raises:
        FormatError: An image is damaged or cut short.
    """
    is_whole = all(float(n).is_integer() for dicom_slice in slices for n in (dicom_slice.slope, dicom_slice.intercept))
    decode = partial(_stored_pixels, name, size)
    for dicom_slice, stored in one_ahead(map_in_threads(decode, _instances(name, slices), MOST_AT_ONCE)):
        hu = stored.astype(np.float32) * np.float32(dicom_slice.slope) + np.float32(dicom_slice.intercept)
        _fill_padding(dicom_slice.header, stored, hu)
        fits = is_whole and float(np.abs(hu).max()) < 1 << 15
        yield dicom_slice, hu.astype(np.int16) if fits else hu


def _instances(name: str, slices: Sequence[DicomSlice]) -> Iterator[tuple[DicomSlice, Dataset]]:
    """Yield each slice and the instance that holds its pixels; see `decode_slices`."""
    left = Counter(id(dicom_slice.instance) for dicom_slice in slices)  # slices to decode of each instance
    opened: dict[int, Dataset] = {}
    for dicom_slice in slices:
        key, syntax = id(dicom_slice.instance), transfer_syntax(dicom_slice.header)
        with _refusing_damage(name, syntax):
            if key not in opened:
                opened[key] = dcmread(dicom_slice.instance.read_bytes(), force=True)
                opened[key].file_meta.TransferSyntaxUID = syntax
                _complete_description(opened[key])
        left[key] -= 1
        yield dicom_slice, opened[key] if left[key] else opened.pop(key)


def _stored_pixels(
    name: str, size: tuple[int, int], item: tuple[DicomSlice, Dataset]
) -> tuple[DicomSlice, NDArray[Any]]:
    """Return a slice and (y, x) its pixels as they are stored; see `decode_slices`."""
    dicom_slice, data = item
    syntax = transfer_syntax(dicom_slice.header)
    with _refusing_damage(name, syntax):
        if not syntax.is_encapsulated and dicom_slice.frame is None:
            _check_not_longer(name, data)
        stored = pixel_array(data, index=dicom_slice.frame, decoding_plugin=DECODERS[syntax], correct_unused_bits=False)
        if stored.shape != size:
            raise ValueError("a frame of another size")
        stored = _without_unused_bits(name, data, stored, is_aligned=syntax in CODEC_BY_SYNTAX)
    return dicom_slice, stored


def _check_not_longer(name: str, data: Dataset) -> None:
    """Check that an uncompressed image is no larger than its header states, but for a few bytes at its end.

    Raises:
        FormatError: It is, as where Rows or Columns are wrong, which would shift every row.
    """
    rows, columns, pixel_bytes = data.Rows, data.Columns, data.BitsAllocated // 8
    found, stated = len(data.get("PixelData") or b""), rows * columns * pixel_bytes
    if found - stated >= max(1, min(rows, columns) * pixel_bytes):
        raise FormatError(
            f"{name} has an image of {found:,} bytes, its header states {rows} x {columns} pixels, which are "
            f"{stated:,}: Rows or Columns are wrong; export the series again"
        )


def _without_unused_bits(name: str, data: Dataset, stored: NDArray[Any], is_aligned: bool) -> NDArray[Any]:
    """Return pixels with their lowest `BitsStored` bits: those above may hold anything (PS3.5, 8.1.1).

    Args:
        name: Name of the input, for messages.
        data: The instance.
        stored: (y, x) its pixels with all bits.
        is_aligned: Whether the numbers begin at the lowest bit, whatever HighBit says, as those of decoders do.

    Raises:
        FormatError: They begin at a higher bit, or some need more bits, and no overlay is said to lie there.
    """
    unused = 8 * stored.dtype.itemsize - data.BitsStored
    if stored.dtype.kind not in "iu" or unused <= 0:
        return stored
    below = data.HighBit + 1 - data.BitsStored
    if not is_aligned and 0 < below <= unused and stored.any() and not (stored & ((1 << below) - 1)).any():
        raise FormatError(
            f"{name} has an image whose numbers begin at bit {below} (HighBit {data.HighBit}, BitsStored "
            f"{data.BitsStored}), expected bit 0: export the series again"
        )
    kept = (stored << unused) >> unused
    if np.array_equal(kept, stored):
        return stored
    padding = _padding(data, stored)  # which some programs write with all bits
    is_number = np.ones(stored.shape, dtype=np.bool_) if padding is None else ~padding
    kept = np.where(is_number, kept, stored)
    above = ((stored >> data.BitsStored) & ((1 << unused) - 1))[is_number]
    if (kept != stored).any() and np.ptp(above) and not _has_overlay_above(data):
        raise FormatError(
            f"{name} has an image with numbers of more bits than its header states (BitsStored {data.BitsStored}), "
            "so that either may be wrong: export the series again"
        )
    return kept


def _has_overlay_above(data: Dataset) -> bool:
    """Return whether an instance keeps an overlay in bits of its pixels that they do not use, as older ones do."""
    positions = (data.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(position is not None and int(position.value) >= data.BitsStored for position in positions)


@contextmanager
def _refusing_damage(name: str, syntax: UID) -> Iterator[None]:
    """Turn what a damaged instance raises into a `FormatError`."""
    try:
        yield
    except FormatError:
        raise
    except (*DICOM_ERRORS, MemoryError) as error:
        failure = take_failure()
        if isinstance(error, OSError) and error.errno is not None:  # of the machine, not of a decoder
            raise
        if failure is not None and not isinstance(failure, DecodeError):
            raise failure from None  # the image is not to blame
        raise FormatError(
            f"{name} has an image that is damaged or cut short (packed as {syntax.name}"
            f"{f': {failure}' if failure else ''}): send the series again"
        ) from None


def _complete_description(data: Dataset) -> None:
    """State what a decoder needs, and what grey images have without stating it; colour ones were refused before."""
    for keyword, value in (("SamplesPerPixel", 1), ("PixelRepresentation", 0)):
        if not data.get(keyword):  # signed numbers that are read as unsigned ones are refused as HU without their sign
            setattr(data, keyword, value)
    if text_value(data, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        data.PhotometricInterpretation = "MONOCHROME2"
    if number_value(data, "NumberOfFrames") is None:
        data.pop("NumberOfFrames", None)
    for keyword, bits in (("BitsStored", 0), ("HighBit", -1)):
        if data.get(keyword) is None:
            setattr(data, keyword, (data.get("BitsStored") or data.BitsAllocated) + bits)


def _fill_padding(header: Dataset, stored: NDArray[Any], hu: NDArray[np.float32]) -> None:
    """Set the padding of a slice to air."""
    padding = _padding(header, stored)
    if padding is not None and ((hu[padding] > TISSUE_HU[0]) & (hu[padding] < TISSUE_HU[1])).any():
        padding = _padding(header, stored, ("PixelPaddingValue",))  # the range is wrong
    if padding is None or not padding.any():
        return
    if float(hu[padding].max()) > PADDING_HU:  # tissue has this value, too: only what reaches the edge is padding
        from scipy import ndimage  # here, so that the program starts quickly

        edge = np.ones(stored.shape, dtype=np.bool_)
        edge[1:-1, 1:-1] = False
        padding = ndimage.binary_propagation(padding & edge, mask=padding)
    hu[padding] = PADDING_HU


def _padding(
    header: Dataset,
    stored: NDArray[Any],
    keywords: Sequence[str] = ("PixelPaddingValue", "PixelPaddingRangeLimit"),
) -> NDArray[np.bool_] | None:
    """Return (y, x) the pixels with a padding value (PS3.3 C.7.5.1.1.2); None if no such value is stated."""
    limits = []
    for keyword in keywords:
        try:
            limits.append(int(header[keyword].value))
        except DICOM_ERRORS:
            continue
    if not limits:
        return None
    if stored.dtype.kind == "i":  # the value may be written as unsigned
        limits = [limit - (1 << 16) if limit > 32767 else limit for limit in limits]
    return np.asarray((stored >= min(limits)) & (stored <= max(limits)))
