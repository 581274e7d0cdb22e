"""Whether a JPEG holds all of its scans (ITU-T T.81, annexes B and G): each sends some coefficients, or some bits."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, by Huffman coding, as libjpeg reads them
_SCAN, _END = 0xDA, 0xD9
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
_COEFFICIENTS = 64  # of a block
_UNSENT = 99  # bits that a coefficient lacks before its first scan
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # behind coded data: neither a filled 0xFF nor a restart


def is_complete(jpeg: bytes) -> bool:
    """Return whether every component of a JPEG got all bits of all coefficients, and the end of the image follows.

    What is not understood between beginning and end counts as complete.

    Args:
        jpeg: A file or frame.
    """
    lacking: dict[int, list[int]] = {}  # {component: how many of its low bits each coefficient lacks}
    has_ended = False
    for marker, segment in _segments(jpeg):
        if marker in _FRAMES and len(segment) >= 6:
            lacking = {identifier: [_UNSENT] * _COEFFICIENTS for identifier in segment[6 : 6 + 3 * segment[5] : 3]}
        elif marker == _SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            first, last, bits = segment[1 + 2 * segment[0] :][:3]
            for identifier in segment[1 : 1 + 2 * segment[0] : 2]:
                for index in range(first, min(last + 1, _COEFFICIENTS)):
                    if identifier in lacking:
                        lacking[identifier][index] = bits & 0x0F
        has_ended = marker == _END
    return has_ended and not any(map(any, lacking.values()))


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment, up to the end of the image."""
    found = _NEXT_MARKER.search(jpeg)
    marker = None
    while found is not None and marker != _END:
        marker, start = found[1][0], found.end()
        if marker == _END:
            yield marker, b""
        elif marker not in _ALONE:
            end = start + max(2, int.from_bytes(jpeg[start : start + 2], "big"))
            yield marker, jpeg[start + 2 : end]
            start = end
        found = _NEXT_MARKER.search(jpeg, start)
