"""A plugin of pydicom that decodes compressed frames: RLE here, all others in the process of `decoding`."""

from __future__ import annotations

from typing import Any

from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import UID, RLELossless

from groundglass.io import decoding
from groundglass.io.decoding import CODEC_BY_SYNTAX
from groundglass.io.pixel_codecs import FrameTask
from groundglass.io.rle import decode_rle

PLUGIN = "groundglass"  # name of `decode_frame` among pydicom's decoders
COMPRESSED = (*CODEC_BY_SYNTAX, RLELossless)  # transfer syntaxes whose frames it decodes
DECODER_DEPENDENCIES: dict[UID, tuple[str, ...]] = {}  # pydicom asks for them
_OPTIONS = (
    *("transfer_syntax_uid", "rows", "columns", "samples_per_pixel", "photometric_interpretation"),
    *("planar_configuration", "bits_allocated", "bits_stored", "pixel_representation", "j2k_precision"),
)


def is_available(uid: str) -> bool:
    """Return whether frames of a transfer syntax are decoded here; pydicom asks for it."""
    return uid in COMPRESSED


def decode_frame(data: bytes, runner: DecodeRunner) -> bytes | bytearray:
    """Decode a frame of a DICOM instance; pydicom calls it as its plugin `PLUGIN`.

    Raises:
        DecodeError: The frame is damaged, cut short, or too large.
        ValueError: It is one of RLE, which is damaged, cut short, or of another size.
    """
    if runner.transfer_syntax == RLELossless:
        runner.set_option("planar_configuration", 1)
        size = runner.rows, runner.columns
        return decode_rle(data, *size, runner.samples_per_pixel, runner.bits_allocated // 8)
    options: dict[str, Any] = {name: runner.get_option(name) for name in _OPTIONS}
    options = {name: str(value) if isinstance(value, str) else value for name, value in options.items()}
    decoded = decoding.decode_frame(FrameTask(CODEC_BY_SYNTAX[runner.transfer_syntax], data, options))
    for name, value in decoded.options.items():
        runner.set_option(name, value)
    return decoded.pixels


def _register() -> None:
    for syntax in COMPRESSED:
        get_decoder(UID(syntax)).add_plugin(PLUGIN, (__name__, decode_frame.__name__))


_register()
