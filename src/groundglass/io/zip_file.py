"""Read the files in a ZIP archive into memory one at a time; their names never become paths."""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from groundglass.errors import FormatError
from groundglass.io.limits import file_size, shown
from groundglass.io.other_files import HEAD_BYTES, HIDDEN_IMAGE, ZIP_LINK, looks_like_dicom

_PART = re.compile(r"\.z?\d{2,3}", re.IGNORECASE)  # ends the names of the parts of a split archive: .z01, .001
MAX_MEMBERS = 20_000
MAX_MEMBER = 1 << 30  # bytes unpacked
MAX_UNPACKED = 4 << 30  # bytes of all members
MAX_RATIO = 200  # bytes unpacked for each packed one, if more than `FREE` unpack; CT has 2 to 5
FREE = 64 << 20  # bytes unpacked, up to which any ratio is allowed
# Python unpacks by these step by step, but by bzip2 and LZMA at once, whatever size is stated.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError)


class ZipMember:
    """A file inside an archive."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> None:
        self._archive, self._info, self._name = archive, info, name

    @property
    def name(self) -> str:
        """Its name inside the archive, which may be anything."""
        return self._info.filename

    def open(self) -> BinaryIO:
        """Unpack the file into memory.

        Raises:
            FormatError: The file is damaged, or larger than the archive states.
        """
        try:
            with self._archive.open(self._info) as stream:
                content = stream.read(self._info.file_size + 1)
        except (*_DAMAGE, RuntimeError):
            raise FormatError(f"{self._name} is a damaged ZIP archive: copy or download it again") from None
        if len(content) > self._info.file_size:
            raise FormatError(f"{self._name} holds a file larger than it states: the ZIP archive is damaged")
        return io.BytesIO(content)


@dataclass(frozen=True, eq=False)
class ZipListing:
    """What an archive holds.

    Attributes:
        members: Its regular files.
        others: {kind: number} of what may stand for images and is left out: symbolic links, since what they lead to may
            lie outside of it, and hidden DICOM files.
    """

    members: list[ZipMember]
    others: dict[str, int]


@contextmanager
def open_zip(path: Path) -> Iterator[ZipListing]:
    """Open an archive and list its regular files by name, without folders, links and hidden files.

    The members can be opened while the context is.

    Raises:
        FormatError: The archive is damaged, encrypted or packed in an unusual way, or states that it holds more than a
            scan can be.
    """
    name = shown(path)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE:
        if _PART.fullmatch(path.suffix):
            raise FormatError(
                f"{name} is a part of a split ZIP archive: unpack all parts together, as by 7-Zip, and give the folder"
            ) from None
        raise FormatError(f"{name} is a damaged ZIP archive: copy or download it again") from None
    with archive:
        entries = archive.infolist()
        files = [info for info in entries if _is_regular(info) and not _is_hidden(info)]
        if len(files) > MAX_MEMBERS:
            raise FormatError(
                f"{name} holds {len(files):,} files, expected at most {MAX_MEMBERS:,}: pack one scan alone"
            )
        if any(info.flag_bits & 1 for info in files):
            raise FormatError(f"{name} is encrypted, expected a plain ZIP archive: unpack it, and give the folder")
        if any(info.compress_type not in _METHODS for info in files):
            raise FormatError(f"{name} is not packed by deflate, as ZIP archives usually are: pack it anew")
        unpacked = sum(info.file_size for info in files)
        packed = min(file_size(path), sum(info.compress_size for info in files))  # which may be stated wrongly
        largest = max((info.file_size for info in files), default=0)
        if unpacked > MAX_UNPACKED or largest > MAX_MEMBER or unpacked > max(FREE, MAX_RATIO * packed):
            raise FormatError(
                f"{name} claims {unpacked:,} bytes unpacked ({packed:,} packed), more than a scan can be: "
                "pack one scan alone"
            )
        members = [ZipMember(archive, info, name) for info in sorted(files, key=lambda info: info.filename)]
        hidden = [info for info in entries if _is_regular(info) and _is_hidden(info)]
        others = {
            ZIP_LINK: sum(stat.S_ISLNK(info.external_attr >> 16) for info in entries if not _is_hidden(info)),
            HIDDEN_IMAGE: sum(_holds_dicom(archive, info) for info in hidden[:MAX_MEMBERS]),
        }
        yield ZipListing(members, {kind: number for kind, number in others.items() if number})


def _holds_dicom(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    if info.flag_bits & 1 or info.compress_type not in _METHODS:
        return False
    try:
        with archive.open(info) as stream:
            return looks_like_dicom(stream.read(HEAD_BYTES))
    except (*_DAMAGE, RuntimeError):
        return False


def _is_hidden(info: zipfile.ZipInfo) -> bool:
    return info.filename.rsplit("/", 1)[-1].startswith(".") or info.filename.startswith("__MACOSX/")


def _is_regular(info: zipfile.ZipInfo) -> bool:
    is_file = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
    return bool(info.filename) and not info.is_dir() and is_file
