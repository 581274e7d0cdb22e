"""Find the files that may be DICOM below a folder, and read their headers; the others are told apart by kind."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from groundglass.errors import FormatError
from groundglass.files import walk
from groundglass.io.dicom_header import DICOM_ERRORS, ByteOpener, DicomInstance
from groundglass.io.dicom_text import decode_header
from groundglass.io.limits import open_bounded, read_bytes, shown
from groundglass.io.other_files import (
    DAMAGED_FILE,
    DEAD_LINK,
    FOLDER_LINK,
    HEAD_BYTES,
    HIDDEN_IMAGE,
    PIPE,
    POINTER_FILE,
    UNREADABLE_FILE,
    UNREADABLE_FOLDER,
    is_dead_link,
    is_placeholder,
    kind_of_other,
    looks_like_dicom,
)

MAX_FILES = 20_000
MAX_INFLATED = 1 << 29  # bytes of a deflated data set
_META_VRS = (b"AE", b"SH", b"UI", b"UL")  # of a file meta group, beside those of long values
_INFLATED_AT_ONCE = 1 << 20  # bytes that are read, and that are unpacked, at once to count them


def file_opener(path: Path) -> ByteOpener:
    """Return a function that opens a file."""
    return lambda: open_bounded(path)


def starts_with(path: Path, signature: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def files_below(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """List every regular file below a folder, without hidden ones; links to folders are not followed.

    Returns:
        The files, and {kind: number} of what may stand for images and is left out.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    unread: set[Path] = set()  # folders that were named and not listed yet
    for parent, folders, names in walk(folder):
        unread.discard(parent)
        hidden = [name for name in (*folders, *names) if name.startswith(".") and not is_placeholder(name)]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = {name for name in folders if Path(parent, name).is_symlink()}
        unread.update(Path(parent, name) for name in folders if name not in links)
        others[FOLDER_LINK] += len(links)
        others[POINTER_FILE] += sum(map(is_placeholder, names))
        others[HIDDEN_IMAGE] += sum(_count_dicom(Path(parent, name)) for name in hidden)
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.is_file():
                found.append(path)
            else:
                others[DEAD_LINK if is_dead_link(path) else PIPE] += 1
        if len(found) > MAX_FILES:
            raise FormatError(f"{shown(folder)} holds more than {MAX_FILES:,} files: name the folder of one scan")
    others[UNREADABLE_FOLDER] = len(unread)
    return found, dict(+others)


def _count_dicom(path: Path) -> int:
    """Return 1 for a DICOM file, for a folder the number of those directly in it, and 0 for anything else."""
    try:
        if path.is_dir() and not path.is_symlink():
            files = islice((file for file in path.iterdir() if file.is_file()), MAX_FILES)
            return sum(map(_count_dicom, files))
        return int(path.is_file() and looks_like_dicom(read_bytes(path, HEAD_BYTES)))
    except (OSError, FormatError):
        return 0


def read_header(path: Path, opener: ByteOpener, is_only_file: bool) -> DicomInstance | str:
    """Read a file's header.

    Returns:
        The instance, or for other files their kind.

    Raises:
        FormatError: The file is damaged and the only one, or it unpacks to more than a slice can be.
    """
    try:
        with opener() as stream:
            head = stream.read(HEAD_BYTES)
            if not looks_like_dicom(head):
                return kind_of_other(head)
            stream.seek(0)
            if (_plain_syntax(head) or _read_syntax(stream)) == DeflatedExplicitVRLittleEndian:
                stream.seek(0)
                _read_syntax(stream)  # the data set follows
                _check_inflated_size(path, stream)
            stream.seek(0)
            header = dcmread(stream, stop_before_pixels=True, force=head[128:132] != b"DICM")
            decode_header(header)
        return DicomInstance(opener, header)
    except FormatError:
        raise
    except DICOM_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # not one of pydicom's
            return UNREADABLE_FILE
        if is_only_file:
            raise FormatError(f"{shown(path)} is damaged or cut short, expected whole DICOM: send it again") from error
        return DAMAGED_FILE


def _plain_syntax(head: bytes) -> str | None:
    """Return the transfer syntax that a file meta group states which is plain, and whole in the first bytes of a file.

    It takes a tenth of the time of `_read_syntax`. None: the group is not so.
    """
    at, syntax = 132 if head[128:132] == b"DICM" else 0, None
    while at + 12 <= len(head):
        group, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        if group != 2:
            return syntax
        at += 8
        if vr in (b"OB", b"UN"):
            length, at = struct.unpack_from("<I", head, at)[0], at + 4
        elif vr not in _META_VRS:
            return None
        if element == 0x10:
            syntax = head[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    return None


def _read_syntax(stream: BinaryIO) -> str | None:
    """Return the transfer syntax that a file states, as pydicom reads it.

    What the file meta group states of its length, or which bytes it holds besides, decides nothing.

    Args:
        stream: The file, at its beginning.
    """
    read_preamble(stream, force=True)
    syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")
    return None if syntax is None else str(syntax)


def _check_inflated_size(path: Path, stream: BinaryIO) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that is larger than a slice can be, before pydicom unpacks it.

    Args:
        path: The input, for messages.
        stream: The file, at the beginning of the data set.
    """
    unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not unpacker.eof and (packed := unpacker.unconsumed_tail or stream.read(_INFLATED_AT_ONCE)):
        size += len(unpacker.decompress(packed, _INFLATED_AT_ONCE))
        if size > MAX_INFLATED:
            raise FormatError(f"{shown(path)} unpacks to more than {MAX_INFLATED:,} bytes: this is no CT slice")
