"""Find the files that may be DICOM below a folder, and read their headers; the others are told apart by kind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from groundglass.errors import FormatError
from groundglass.files import walk
from groundglass.io.dicom_header import DICOM_ERRORS, ByteOpener, DicomInstance, text_value
from groundglass.io.dicom_text import decode_header
from groundglass.io.limits import open_bounded, shown

MAX_FILES = 20_000
MAX_INFLATED = 1 << 29  # bytes of a deflated data set
DAMAGED_FILE = "damaged DICOM file"
DEAD_LINK, POINTER_FILE, EMPTY_FILE = "link that leads nowhere", "pointer to a file that is not here", "empty file"
ZIP_LINK = "symbolic link"  # in an archive
ARCHIVE = "packed archive"  # beside images
_LOST_AS_CALLED = (DEAD_LINK, POINTER_FILE, EMPTY_FILE, ZIP_LINK, ARCHIVE)
LOSSES = {DAMAGED_FILE: "damaged file"} | {kind: kind for kind in _LOST_AS_CALLED}
_INFLATED_AT_ONCE = 1 << 20  # bytes that are unpacked at once to count them
_LAST_GROUP = 0x28  # that may follow the first element of a file without a preamble
_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT".split())
SEVEN_ZIP, RAR = b"7z\xbc\xaf\x27\x1c", b"Rar!"  # first bytes
_ARCHIVES = (b"PK\x03\x04", SEVEN_ZIP, RAR)
_POINTERS = (b"version https://git-lfs.github.com/", b"/annex/objects/")


def file_opener(path: Path) -> ByteOpener:
    """Return a function that opens a file."""
    return lambda: open_bounded(path)


def starts_with(path: Path, signature: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def files_below(folder: Path) -> tuple[list[Path], int]:
    """List every regular file below a folder, without hidden ones; links to folders are not followed.

    Returns:
        The files, and the number of links that lead nowhere.
    """
    found: list[Path] = []
    dead_links = 0
    for parent, folders, names in walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
        found += [file for file in files if file.is_file()]
        dead_links += sum(is_dead_link(file) for file in files)
        if len(found) > MAX_FILES:
            raise FormatError(f"{shown(folder)} holds more than {MAX_FILES:,} files: name the folder of one scan")
    return found, dead_links


def is_dead_link(path: Path) -> bool:
    """Return whether a path is a link that leads nowhere, or in a circle."""
    return path.is_symlink() and not path.exists()


def list_losses(others: Mapping[str, int]) -> str:
    """Name the files that may have been images: `2 damaged files, 1 link that leads nowhere`; empty without any."""
    return ", ".join(counted(others[kind], text) for kind, text in LOSSES.items() if others.get(kind))


def read_header(path: Path, opener: ByteOpener, is_only_file: bool) -> DicomInstance | str:
    """Read a file's header.

    Returns:
        The instance, or for other files their kind.

    Raises:
        FormatError: The file is damaged and the only one, or it unpacks to more than a slice can be.
    """
    try:
        with opener() as stream:
            head = stream.read(1024)
            has_preamble = head[128:132] == b"DICM"
            if not has_preamble and not begins_with_elements(head):
                return _kind_of_other(head)
            stream.seek(0)
            if _is_deflated(stream):
                _check_inflated_size(path, stream)
            stream.seek(0)
            header = dcmread(stream, stop_before_pixels=True, force=not has_preamble)
            decode_header(header)
        if text_value(header, "SOPClassUID") == MediaStorageDirectoryStorage:
            return "DICOMDIR"
        return DicomInstance(opener, header)
    except FormatError:
        raise
    except DICOM_ERRORS as error:
        if is_only_file:
            raise FormatError(f"{shown(path)} is damaged or cut short, expected whole DICOM: send it again") from error
        return DAMAGED_FILE


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


def _kind_of_other(head: bytes) -> str:
    if not head:
        return EMPTY_FILE
    if head.startswith(_ARCHIVES):
        return ARCHIVE
    return POINTER_FILE if any(pointer in head[:200] for pointer in _POINTERS) else "other file"


def _is_deflated(stream: BinaryIO) -> bool:
    """Return whether a deflated data set follows the file meta group, read as pydicom reads it.

    What the group states of its length, or which bytes it holds besides, decides nothing.

    Args:
        stream: The file, at its beginning; at that of the data set afterwards.
    """
    read_preamble(stream, force=True)
    syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")
    return bool(syntax == DeflatedExplicitVRLittleEndian)


def _check_inflated_size(path: Path, stream: BinaryIO) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that is larger than a slice can be, before pydicom unpacks it.

    Args:
        path: The input, for messages.
        stream: The file, at the beginning of the data set.
    """
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    packed = stream.read()
    while packed and not unpacker.eof:
        size += len(unpacker.decompress(packed, _INFLATED_AT_ONCE))
        packed = unpacker.unconsumed_tail
        if size > MAX_INFLATED:
            raise FormatError(f"{shown(path)} unpacks to more than {MAX_INFLATED:,} bytes: this is no CT slice")


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 damaged file`, `3 links that lead nowhere`."""
    if number == 1 or noun.startswith("DICOM"):
        return f"{number} {noun}"
    first, that, rest = noun.partition(" that leads ")
    if that:
        return f"{number} {first}s that lead {rest}"
    first, to, rest = noun.partition(" to a file that is ")
    return f"{number} {first}s to files that are {rest}" if to else f"{number} {noun}s"
