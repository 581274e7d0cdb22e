"""Find the files that may be DICOM below a folder, and read their headers; the others are told apart by kind."""

from __future__ import annotations

import zlib
from collections import Counter
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
from groundglass.io.other_files import (
    DAMAGED_FILE,
    DEAD_LINK,
    FOLDER_LINK,
    PIPE,
    POINTER_FILE,
    begins_with_elements,
    is_dead_link,
    is_placeholder,
    kind_of_other,
)

MAX_FILES = 20_000
MAX_INFLATED = 1 << 29  # bytes of a deflated data set
_INFLATED_AT_ONCE = 1 << 20  # bytes that are unpacked at once to count them


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
        The files, and {kind: number} of what may stand for images and is no file.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for parent, folders, names in walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        others[FOLDER_LINK] += sum(Path(parent, name).is_symlink() for name in folders)
        others[POINTER_FILE] += sum(map(is_placeholder, names))
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.is_file():
                found.append(path)
            else:
                others[DEAD_LINK if is_dead_link(path) else PIPE] += 1
        if len(found) > MAX_FILES:
            raise FormatError(f"{shown(folder)} holds more than {MAX_FILES:,} files: name the folder of one scan")
    return found, dict(+others)


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
                return kind_of_other(head)
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
