"""Decode compressed frames and pictures by libraries in C and C++; called in the process of `decoding`.

The libraries are imported when they are needed, and nothing else, so that the process starts quickly. What a library
fills in instead of refusing is refused here: its warnings are read, and frames that end early are recognised.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, cast

from groundglass.errors import GroundglassError
from groundglass.io.jpeg_scans import is_complete, size_in_frame, with_filling
from groundglass.io.missing_parts import find_png_fault, has_all_parts, is_last_part_whole

JPEG_END = b"\xff\xd9"
# Entropy-coded data that means something, and begins with other bits than zeros; no marker, not even behind 0xFF.
_FILLING = b"\xa5\x5a" + bytes(range(255)) * 8
_SIGNS_OF_DAMAGE = (b"corrupt", b"premature")  # in what libjpeg writes on standard error


class DecodeError(GroundglassError):
    """Pixels cannot be decoded; the message completes `it is damaged or cut short (...)`."""


@dataclass(frozen=True)
class FrameTask:
    """A compressed frame of a DICOM instance.

    Attributes:
        codec: Key of `_CODECS`.
        data: The frame.
        options: What its header states, under pydicom's names.
    """

    codec: str
    data: bytes = field(repr=False)
    options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class DecodedFrame:
    """The pixels of a frame, and the options that hold for them instead of those that its header states."""

    pixels: bytes | bytearray = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureTask:
    """A PNG or JPEG file.

    Attributes:
        data: Its content.
        grey_modes: {mode of Pillow: mode to convert to}; other modes are converted to RGBA.
        alpha_modes: Modes that convert to RGBA without losing their transparency.
    """

    data: bytes = field(repr=False)
    grey_modes: dict[str, str]
    alpha_modes: tuple[str, ...]


@dataclass(frozen=True)
class DecodedPicture:
    """The pixels of a picture.

    Attributes:
        mode: Mode of Pillow after the conversion.
        size: Width and height.
        pixels: The pixels in that mode.
    """

    mode: str
    size: tuple[int, int]
    pixels: bytes = field(repr=False)


def make_decoder() -> Callable[[FrameTask | PictureTask], DecodedFrame | DecodedPicture]:
    """Return the function that decodes; called once in the process."""
    return decode


def decode(task: FrameTask | PictureTask) -> DecodedFrame | DecodedPicture:
    """Decode a frame or a picture.

    Raises:
        DecodeError: It is damaged, cut short, or too large for the memory of this process.
    """
    try:
        if isinstance(task, PictureTask):
            return _decode_picture(task)
        frame = _CODECS[task.codec](task)
        if JPEG_END not in task.data:  # coded pixels never hold it: the rest of the frame is zeros, or of another file
            raise DecodeError("its end marker is missing")
        return frame
    except DecodeError:
        raise
    except MemoryError:
        raise DecodeError("it needs more memory than decoding may take") from None
    except Exception as error:  # what the libraries raise is of many types
        raise DecodeError(" ".join(str(error).split()) or type(error).__name__) from None


def _decode_jpeg(task: FrameTask) -> DecodedFrame:
    """Decode a frame by Pillow, as pydicom does."""
    from PIL import Image

    def decoded(data: bytes) -> bytes:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            _check_size(task, image.height, image.width)
            if task.options["samples_per_pixel"] != 1 and "adobe_transform" not in image.info:
                image.draft("YCbCr", image.size)  # no change of colours
            return image.tobytes()

    pixels = decoded(task.data)
    _check_scans(task.data)
    _check_end(task.data, lambda data: decoded(data) == pixels)
    return DecodedFrame(pixels)


def _decode_jpeg_ls(task: FrameTask) -> DecodedFrame:
    """Decode a frame by CharLS, as pydicom does."""
    import jpeg_ls

    pixels, info = jpeg_ls.decode_pixel_data(task.data)
    _check_size(task, info["height"], info["width"])
    options = {"bits_allocated": _container_bits(info["bits_per_sample"])}
    if info["components"] > 1:
        options["planar_configuration"] = int(info["interleave_mode"] == 0)
    return DecodedFrame(pixels, options)


def _decode_jpeg_2000(task: FrameTask) -> DecodedFrame:
    """Decode a frame by OpenJPEG, as pydicom does."""
    from openjpeg.utils import decode_pixel_data, get_parameters

    found = get_parameters(task.data)
    _check_size(task, int(found["rows"]), int(found["columns"]))
    pixels = decode_pixel_data(task.data, version=2)
    if not has_all_parts(task.data):
        raise DecodeError("tiles are missing, or parts of them")

    def decoded(data: bytes) -> bytearray | None:
        try:
            return cast(bytearray, decode_pixel_data(data, version=2))
        except RuntimeError:  # the library says no more
            return None

    if JPEG_END in task.data and not is_last_part_whole(task.data, decoded):
        raise DecodeError("its data end before its pixels")
    options: dict[str, Any] = {"bits_allocated": _container_bits(task.options["j2k_precision"])}
    if task.options["photometric_interpretation"] in ("YBR_ICT", "YBR_RCT"):
        options["photometric_interpretation"] = "RGB"
    return DecodedFrame(cast(bytearray, pixels), options)


def _check_size(task: FrameTask, rows: int, columns: int) -> None:
    """Refuse a frame of another size than its header states, which pydicom would cut into other rows.

    Raises:
        DecodeError: It has another size.
    """
    stated = task.options["rows"], task.options["columns"]
    if (rows, columns) != stated:
        raise DecodeError(f"its size is {rows} x {columns}, its header states {stated[0]} x {stated[1]}")


def _container_bits(precision: int) -> int:
    """Return the bits in which a decoder stores values of this precision."""
    return 8 if precision <= 8 else 16 if precision <= 16 else 32


def _decode_lossless_jpeg(task: FrameTask) -> DecodedFrame:
    """Decode a frame by GDCM, as pydicom does, and read its warnings: it fills what is missing with made-up pixels."""
    import gdcm

    if size := size_in_frame(task.data):
        _check_size(task, *size)
    options = task.options
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(task.data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((options["columns"], options["rows"], 1))
    image.SetDataElement(element)
    colours = gdcm.PhotometricInterpretation.GetPIType(options["photometric_interpretation"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(colours))
    if options["samples_per_pixel"] > 1:
        image.SetPlanarConfiguration(options["planar_configuration"])
    syntax = gdcm.TransferSyntax.GetTSType(options["transfer_syntax_uid"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = options["bits_allocated"]  # not `bits_stored`, beyond which GDCM would cut numbers off without a word
    image.SetPixelFormat(
        gdcm.PixelFormat(options["samples_per_pixel"], bits, bits, bits - 1, options["pixel_representation"])
    )
    with _captured_warnings() as warnings:
        pixels = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM returns char* as str
        said = warnings().lower()
    if any(sign in said for sign in _SIGNS_OF_DAMAGE):
        raise DecodeError("its data end before its pixels")
    return DecodedFrame(pixels)


@contextmanager
def _captured_warnings() -> Iterator[Callable[[], bytes]]:
    """Inside `with`, what a library writes on standard error goes into a file; yields a function that returns it."""
    with _open_memory() as file:

        def read() -> bytes:
            file.seek(0)
            return file.read()

        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield read
        finally:
            os.dup2(before, 2)
            os.close(before)


def _open_memory() -> IO[bytes]:
    """Return a file, in memory where the system has such: on a full disk the signs of damage would be lost."""
    memory = getattr(os, "memfd_create", None)
    return tempfile.TemporaryFile() if memory is None else os.fdopen(memory("warnings"), "w+b")


def _decode_picture(task: PictureTask) -> DecodedPicture:
    from PIL import Image

    def decoded(data: bytes) -> DecodedPicture:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            image.load()
            if image.mode in task.grey_modes:
                converted = image.convert(task.grey_modes[image.mode])
            else:
                converted = (image if image.mode in task.alpha_modes else image.convert("RGB")).convert("RGBA")
            return DecodedPicture(converted.mode, converted.size, converted.tobytes())

    picture = decoded(task.data)
    if task.data.startswith(b"\xff\xd8"):
        _check_scans(task.data)
        _check_end(task.data, lambda data: decoded(data).pixels == picture.pixels)
    elif fault := find_png_fault(task.data):
        raise DecodeError(fault)
    return picture


def _check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG that lacks scans, or intervals of one: libjpeg shows it with less detail, or without a colour.

    Raises:
        DecodeError: A scan is missing, or an interval.
    """
    if not is_complete(jpeg):
        raise DecodeError("parts of its scans are missing")


def _check_end(jpeg: bytes, gives_the_same: Callable[[bytes], bool]) -> None:
    """Refuse a JPEG whose data end before its pixels, although its end marker is there.

    Pillow's decoder goes on as if zeros followed. If other data before a marker change the pixels, these were read as
    pixels, so the file's own data had ended. Behind the last pixel of a scan, or of an interval, they are skipped.

    Args:
        jpeg: The file.
        gives_the_same: Whether a changed file is decoded to the same pixels.

    Raises:
        DecodeError: The data end early.
    """
    if not gives_the_same(with_filling(jpeg, _FILLING)):
        raise DecodeError("its data end before its pixels")


_CODECS: dict[str, Callable[[FrameTask], DecodedFrame]] = {
    "jpeg": _decode_jpeg,
    "lossless JPEG": _decode_lossless_jpeg,
    "JPEG-LS": _decode_jpeg_ls,
    "JPEG 2000": _decode_jpeg_2000,
}
