"""What files are that are no image, by their first bytes, and which of them may be images that were lost."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from groundglass.errors import FormatError

HEAD_BYTES = 1024  # that tell what a file is
DAMAGED_FILE = "damaged DICOM file"
DEAD_LINK, FOLDER_LINK = "link that leads nowhere", "link to a folder"
POINTER_FILE, EMPTY_FILE = "pointer to a file that is not here", "empty file"
ZIP_LINK = "symbolic link"  # in an archive
HIDDEN_IMAGE = "hidden DICOM file"
UNREADABLE_FILE, UNREADABLE_FOLDER = "file that cannot be read", "folder that cannot be read"
ARCHIVE = "packed archive"  # beside images
PIPE = "pipe, socket or device"
OTHER_FILE = "other file"  # of no interest
OTHER_SIZE, OTHER_ORIENTATION = "image of another size", "image of another orientation"  # in one series
NO_IMAGE = "file named like the images that holds none"
_PLURALS = {
    DEAD_LINK: "links that lead nowhere",
    FOLDER_LINK: "links to folders",
    POINTER_FILE: "pointers to files that are not here",
    PIPE: "pipes, sockets or devices",
    UNREADABLE_FILE: "files that cannot be read",
    UNREADABLE_FOLDER: "folders that cannot be read",
    NO_IMAGE: "files named like the images that hold none",
    OTHER_SIZE: "images of another size",
    OTHER_ORIENTATION: "images of another orientation",
}
_LOST_AS_CALLED = (
    *(DEAD_LINK, FOLDER_LINK, POINTER_FILE, EMPTY_FILE, ZIP_LINK, ARCHIVE, PIPE, NO_IMAGE),
    *(HIDDEN_IMAGE, UNREADABLE_FILE, UNREADABLE_FOLDER),
)
LOSSES = {DAMAGED_FILE: "damaged file"} | {kind: kind for kind in _LOST_AS_CALLED}
_NUMBER = re.compile(r"\d+")
_LAST_GROUP = 0x28  # that may follow the first element of a file without a preamble
_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT".split())
SEVEN_ZIP, RAR = b"7z\xbc\xaf\x27\x1c", b"Rar!"  # first bytes
_ARCHIVES = (b"PK\x03\x04", SEVEN_ZIP, RAR, b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x1f\x9d")
TAR = 257, b"ustar"  # place and bytes of its signature
# What stands for a file that is elsewhere, by its first bytes: of Git LFS, of git-annex (on Windows too), of DVC, and a
# shortcut of Windows.
_POINTERS = (b"version https://git-lfs.github.com/", b"/annex/objects/", b"\\annex\\objects\\", b"outs:\n- md5:")
_SHORTCUT = b"L\0\0\0\x01\x14\x02\0"
_PLACEHOLDER = ".icloud"  # ends the hidden name of a file that iCloud holds
_WEB_PAGE = (b"<!doctype html", b"<html")
_UNFINISHED = (".part", ".crdownload", ".download", ".partial", ".tmp")  # end the name of a download


class NoDicomError(FormatError):
    """There is no DICOM image in the input.

    Attributes:
        others: {kind: number} of the files that were found.
    """

    def __init__(self, message: str, others: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.others = dict(others or {})


def is_dead_link(path: Path) -> bool:
    """Return whether a path is a link that leads nowhere, or in a circle."""
    return path.is_symlink() and not path.exists()


def list_losses(others: Mapping[str, int]) -> str:
    """Name the files that may have been images: `2 damaged files, 1 link that leads nowhere`; empty without any."""
    return ", ".join(counted(others[kind], text) for kind, text in LOSSES.items() if others.get(kind))


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, with a preamble or without one, by its first bytes."""
    return head[128:132] == b"DICM" or begins_with_elements(head)


def begins_with_elements(head: bytes) -> bool:
    """Return whether a file begins with a plausible element of group 2 or 8: DICOM without a preamble.

    Args:
        head: The first bytes of the file.
    """
    if len(head) < 12:
        return False
    is_little, is_big = (struct.unpack(f"{order}H", head[:2])[0] in (2, 8) for order in "<>")
    if head[4:6] in _VRS:
        return is_little or is_big
    return is_little and _continues(head)


def _continues(head: bytes) -> bool:
    """Return whether a file that begins with an element of implicit VR goes on with an item or a further element."""
    group, element, length = struct.unpack("<HHI", head[:8])
    if length == 0xFFFFFFFF:
        return head[8:12] == b"\xfe\xff\x00\xe0"
    if length > len(head) - 12:
        return False
    next_group, next_element = struct.unpack("<HH", head[8 + length : 12 + length])
    return (group, element) < (next_group, next_element) and next_group <= _LAST_GROUP


def kind_of_other(head: bytes) -> str:
    """Return what a file is that is no DICOM, by its first bytes."""
    if not head:
        return EMPTY_FILE
    if head.startswith(_ARCHIVES) or head.startswith(TAR[1], TAR[0]) or _unpacks_to_dicom(head):
        return ARCHIVE
    return POINTER_FILE if is_pointer(head) else OTHER_FILE


def _unpacks_to_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, or an archive of several files, in gzip."""
    if not head.startswith(b"\x1f\x8b"):
        return False
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error:
        return False
    return looks_like_dicom(unpacked) or unpacked.startswith(TAR[1], TAR[0])


def is_pointer(head: bytes) -> bool:
    """Return whether a file stands for one that is elsewhere, by its first bytes."""
    return head.startswith(_SHORTCUT) or any(pointer in head[:200] for pointer in _POINTERS)


def is_placeholder(name: str) -> bool:
    """Return whether a file stands for one that is elsewhere, by its name."""
    return name.startswith(".") and name.endswith(_PLACEHOLDER)


def is_web_page(head: bytes) -> bool:
    """Return whether a file is a web page, as a download that failed leaves it, by its first bytes."""
    return head.lstrip()[:20].lower().startswith(_WEB_PAGE)


def count_named_alike(names: Iterable[str], images: Iterable[str]) -> int:
    """Count the names that are like those of images: equal but for numbers, or with the same extension."""
    shapes = {shape for name in images for shape in _shapes(name)}
    return sum(not shapes.isdisjoint(_shapes(name)) for name in names)


def _shapes(name: str) -> set[str]:
    """Return what a name is but for its numbers, and its extension, if that is none; both in lower case."""
    for ending in _UNFINISHED:
        name = name.removesuffix(ending)
    extension = Path(name).suffix.lower()
    return {_NUMBER.sub("#", name.lower()), *([extension] if extension and not _NUMBER.search(extension) else [])}


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 damaged file`, `3 links that lead nowhere`."""
    if number == 1 or noun.startswith("DICOM"):
        return f"{number} {noun}"
    return f"{number} {_PLURALS.get(noun, f'{noun}s')}"
