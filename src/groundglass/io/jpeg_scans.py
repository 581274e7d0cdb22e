"""Whether a JPEG holds all of its scans (ITU-T T.81, annexes B and G): each sends some coefficients, or some bits.

A scan may be cut into intervals of a stated size, with restart markers 0 to 7 in turn between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, by Huffman coding, as libjpeg reads them
_LOSSLESS = 0xC3
_SCAN, _END, _INTERVAL = 0xDA, 0xD9, 0xDD
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
_COEFFICIENTS = 64  # of a block
_UNSENT = 99  # bits that a coefficient lacks before its first scan
_BLOCK = 8  # pixels along the side of a block
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # behind coded data: neither a filled 0xFF nor a restart


def is_complete(jpeg: bytes) -> bool:
    """Return whether every component of a JPEG got all bits of all coefficients, every scan all of its intervals.

    The end of the image must follow.

    What is not understood between beginning and end counts as complete.

    Args:
        jpeg: A file or frame.
    """
    lacking: dict[int, list[int]] = {}  # {component: how many of its low bits each coefficient lacks}
    frame, interval, has_ended = b"", 0, False
    for marker, segment, end in _segments(jpeg):
        if marker == _INTERVAL:
            interval = int.from_bytes(segment[:2], "big")
        if marker in _FRAMES and len(segment) >= 6:
            frame = segment
            lacking = {identifier: [_UNSENT] * _COEFFICIENTS for identifier in segment[6 : 6 + 3 * segment[5] : 3]}
        elif marker == _SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            restarts = [marker[0][-1] & 7 for marker in _RESTART.finditer(jpeg, end, _end_of_scan(jpeg, end))]
            needed = -(-_units(frame, segment) // interval) - 1 if interval and frame else 0
            if restarts[:needed] != [number % 8 for number in range(needed)]:
                return False
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for identifier in segment[1 : 1 + 2 * segment[0] : 2]:
                for index in range(first, min(last + 1, _COEFFICIENTS)):
                    if identifier in lacking:
                        lacking[identifier][index] = bits & 0x0F
        has_ended = marker == _END
    return has_ended and not any(map(any, lacking.values()))


def size_in_frame(jpeg: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that the frame header of a JPEG states, lossless or not; None without one."""
    for marker, segment, _ in _segments(jpeg):
        if marker in (*_FRAMES, _LOSSLESS) and len(segment) >= 6:
            return int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    return None


def with_filling(jpeg: bytes, filling: bytes) -> bytes:
    """Return a JPEG with other data behind the coded data of every interval and scan."""
    parts, copied = list[bytes](), 0
    for marker, _, start in _segments(jpeg):
        if marker == _SCAN:
            stop = _end_of_scan(jpeg, start)
            for end in (*(restart.start() for restart in _RESTART.finditer(jpeg, start, stop)), stop):
                parts += [jpeg[copied:end], filling]
                copied = end
    return b"".join((*parts, jpeg[copied:]))


def _units(frame: bytes, scan: bytes) -> int:
    """Return of how many units a scan consists, which its intervals count: of one component, blocks."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = {frame[i]: (frame[i + 1] >> 4, frame[i + 1] & 15) for i in range(6, 6 + 3 * frame[5], 3)}
    widest, highest = (max(factors) or 1 for factors in zip(*sampling.values(), strict=True))
    across, down = (1, 1) if scan[0] > 1 else sampling.get(scan[1], (1, 1))
    return -(-width * across // (_BLOCK * widest)) * -(-height * down // (_BLOCK * highest))


def _end_of_scan(jpeg: bytes, start: int) -> int:
    """Return where the marker behind coded data begins."""
    found = _NEXT_MARKER.search(jpeg, start)
    return len(jpeg) if found is None else found.start()


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker and content of each segment, and where it ends, up to the end of the image."""
    found = _NEXT_MARKER.search(jpeg)
    marker = None
    while found is not None and marker != _END:
        marker, start = found[1][0], found.end()
        if marker == _END:
            yield marker, b"", start
        elif marker not in _ALONE:
            end = start + max(2, int.from_bytes(jpeg[start : start + 2], "big"))
            yield marker, jpeg[start + 2 : end], end
            start = end
        found = _NEXT_MARKER.search(jpeg, start)
