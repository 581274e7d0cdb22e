"""Whether a PNG holds all of its rows, and a JPEG 2000 image all parts of its tiles: decoders show it all the same."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

_PNG_SIGNATURE_BYTES = 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # {colour type: values of a pixel}
_WHOLE = ((0, 0, 1, 1),)  # (first column, first row, step between columns, between rows) of each pass
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BEGINNING, _TILE = b"\xff\x4f\xff\x51", b"\xff\x90"  # of JPEG 2000: before the size, before a part of a tile
_CODESTREAM_END = b"\xff\xd9"
_PACKETS = b"\xc7\xe3" * 1024  # that a decoder takes for packets with content
_MANY_ZEROS = 4  # at the end of a part, where coded data have so many once in 2^32 parts


def find_png_fault(png: bytes) -> str | None:
    """Return what is wrong with the compressed pixels of a PNG, which Pillow does not look at; None if nothing is."""
    header, pixels = b"", bytearray()
    for kind, content, has_checksum in _chunks(png):
        if kind == b"IHDR":
            header = content
        elif kind == b"IDAT":
            pixels += content
            if not has_checksum:
                return "a checksum of its pixels is wrong"
    size = _unpacked_bytes(header)
    return None if len(zlib.decompressobj().decompress(pixels, size)) == size else "its data end before its pixels"


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield kind and content of each chunk, and whether its checksum is right."""
    kind, start = b"", _PNG_SIGNATURE_BYTES
    while kind != b"IEND" and start < len(png):
        length, kind = int.from_bytes(png[start : start + 4], "big"), png[start + 4 : start + 8]
        end = start + 8 + length
        yield kind, png[start + 8 : end], zlib.crc32(png[start + 4 : end]) == int.from_bytes(png[end : end + 4], "big")
        start = end + 4


def _unpacked_bytes(header: bytes) -> int:
    """Return the bytes of all rows of a PNG: one for the filter before the pixels of each."""
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS[colour]
    total = 0
    for x, y, dx, dy in _ADAM7 if is_interlaced else _WHOLE:
        columns, rows = len(range(x, width, dx)), len(range(y, height, dy))
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def has_all_parts(codestream: bytes) -> bool:
    """Return whether every tile of a JPEG 2000 codestream is there with all of its parts (ITU-T T.800, annex A).

    A part may hold one resolution or one layer: without the last one, a decoder shows less detail and other values.
    """
    size = codestream.index(_BEGINNING) + 8
    width, height, _, _, tile_width, tile_height, left, top = struct.unpack_from(">8I", codestream, size)
    found, stated = Counter[int](), Counter[int]()  # {tile: number of its parts}; stated by one of them, or 0
    for start, _ in _tile_parts(codestream):
        tile, _, _, count = struct.unpack_from(">HIBB", codestream, start + 4)
        found[tile] += 1
        stated[tile] = max(stated[tile], count)
    columns, rows = -(-(width - left) // tile_width), -(-(height - top) // tile_height)
    return len(found) == int(columns * rows) and found >= stated


def is_last_part_whole(codestream: bytes, decoded: Callable[[bytes], object]) -> bool:
    """Return whether the last part of a JPEG 2000 codestream holds all of its packets.

    A decoder takes zeros for packets without content, and so it does what is missing behind the last packet of a part
    that states no length. Nothing but the end marker follows such a part, so that other data may be put there: they
    change the pixels if a packet is missing, and nothing if all are there.

    Args:
        codestream: One with all parts.
        decoded: Returns the pixels of a codestream; None if it cannot be decoded.
    """
    *_, (start, length) = _tile_parts(codestream)
    end = start + length if length else codestream.rindex(_CODESTREAM_END)
    part = codestream[: start + 6] + bytes(4) + codestream[start + 10 : end]  # without its length

    def pixels(changed: bytes) -> object:
        return decoded(changed + _CODESTREAM_END)

    zeros = len(part) - len(part.rstrip(b"\0"))
    if zeros < _MANY_ZEROS:
        return bool(length) or pixels(part + _PACKETS) == pixels(part)
    # Each zero is a packet: the decoder refuses a part that ends within one, and needs the last of them.
    ends_between_packets = any(pixels(part[: kept - zeros]) is not None for kept in range(3))
    return ends_between_packets and pixels(part[:-1] + _PACKETS[:1]) != pixels(part)


def _tile_parts(codestream: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each part of a tile begins, and the length that it states: 0 for a last one up to the end."""
    start = codestream.index(_BEGINNING) + 2
    while codestream[start : start + 2] not in (_TILE, b""):  # the segments of the header
        start += 2 + int.from_bytes(codestream[start + 2 : start + 4], "big")
    while codestream[start : start + 2] == _TILE:
        length = int.from_bytes(codestream[start + 6 : start + 10], "big")
        yield start, length
        start = start + length if length else len(codestream)
