"""Decode frames of RLE Lossless (PS3.5, annex G): pydicom's decoder unpacks all that is there, and drops what is left.

No more is unpacked than the header states, and a frame that holds rows or columns beyond is refused: its header is not
that of the image.
"""

from __future__ import annotations

import struct

import numpy as np

_HEADER = struct.Struct("<16I")  # number of segments, and where each begins
_REPEAT = 128  # control bytes above it repeat the next byte 257 - n times, those below it copy n + 1 bytes


def decode_rle(frame: bytes, rows: int, columns: int, samples: int, sample_bytes: int) -> bytes:
    """Decode a frame, sample after sample, each value in little-endian order.

    Args:
        frame: The frame.
        rows: Rows of the image.
        columns: Columns of the image.
        samples: Values of a pixel.
        sample_bytes: Bytes of a value.

    Raises:
        ValueError: It holds more or fewer pixels.
        struct.error: It is cut short.
    """
    count, *starts = _HEADER.unpack_from(frame)
    if count != samples * sample_bytes:
        raise ValueError(f"{count} segments instead of {samples * sample_bytes}")
    ends = [*starts[1:count], len(frame)]
    pixels, slack = rows * columns, min(rows, columns)  # some programs fill up the last bytes
    planes = [_unpack(frame[start:end], pixels + slack) for start, end in zip(starts, ends, strict=False)]
    if not all(pixels <= len(plane) < pixels + slack for plane in planes):
        raise ValueError(f"another number of pixels than {rows} x {columns}")
    values = np.array([np.frombuffer(plane, np.uint8, pixels) for plane in planes]).reshape(samples, sample_bytes, -1)
    return values[:, ::-1].transpose(0, 2, 1).tobytes()  # a segment holds one byte of each value, the highest first


def _unpack(segment: bytes, limit: int) -> bytes:
    """Unpack a segment, up to about `limit` bytes."""
    unpacked, position = bytearray(), 0
    while position < len(segment) and len(unpacked) < limit:
        control, position = segment[position], position + 1
        if control < _REPEAT:
            unpacked += segment[position : position + control + 1]
            position += control + 1
        elif control > _REPEAT:
            unpacked += segment[position : position + 1] * (257 - control)
            position += 1
    return bytes(unpacked)
