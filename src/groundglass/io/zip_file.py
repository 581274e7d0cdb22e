"""The members of a ZIP archive, read into memory one at a time: no name of theirs ever becomes a path."""

from __future__ import annotations

import io
import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from groundglass.errors import FormatError
from groundglass.io.limits import shown

MAX_MEMBERS = 20_000
MAX_MEMBER = 1 << 30  # bytes unpacked
MAX_UNPACKED = 4 << 30  # bytes of all members
MAX_RATIO = 200  # bytes unpacked for one packed, of what unpacks to more than `FREE`; CT has 2 to 5
FREE = 64 << 20  # bytes that may be packed as tightly as they are
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, NotImplementedError)


class Member:
    """A file inside an archive."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> None:
        self._archive, self._info, self._name = archive, info, name

    def open(self) -> BinaryIO:
        """Its bytes.

        Raises:
            FormatError: It is damaged, or larger than it states.
        """
        try:
            with self._archive.open(self._info) as stream:
                content = stream.read(self._info.file_size + 1)
        except (*_DAMAGE, RuntimeError):
            raise FormatError(f"{self._name} is a damaged ZIP archive: copy or download it again") from None
        if len(content) > self._info.file_size:
            raise FormatError(f"{self._name} holds a file larger than it states: the ZIP archive is damaged")
        return io.BytesIO(content)


@contextmanager
def members(path: Path) -> Iterator[list[Member]]:
    """Open an archive: its plain files, without folders, links and hidden files, in the order of their names.

    Raises:
        FormatError: It is damaged or encrypted, or claims to hold more than can be a scan.
    """
    name = shown(path)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE:
        raise FormatError(f"{name} is a damaged ZIP archive: copy or download it again") from None
    with archive:
        plain = [info for info in archive.infolist() if _is_plain(info)]
        if len(plain) > MAX_MEMBERS:
            raise FormatError(
                f"{name} holds {len(plain):,} files, expected at most {MAX_MEMBERS:,}: pack one scan alone"
            )
        if any(info.flag_bits & 1 for info in plain):
            raise FormatError(f"{name} is encrypted, expected a plain ZIP archive: unpack it, and give the folder")
        unpacked = sum(info.file_size for info in plain)
        packed = sum(info.compress_size for info in plain)
        largest = max((info.file_size for info in plain), default=0)
        if unpacked > MAX_UNPACKED or largest > MAX_MEMBER or unpacked > max(FREE, MAX_RATIO * packed):
            raise FormatError(
                f"{name} claims {unpacked:,} bytes unpacked ({packed:,} packed), more than a scan can be: "
                "pack one scan alone"
            )
        yield [Member(archive, info, name) for info in sorted(plain, key=lambda info: info.filename)]


def _is_plain(info: zipfile.ZipInfo) -> bool:
    mode = info.external_attr >> 16
    hidden = info.filename.rsplit("/", 1)[-1].startswith(".") or info.filename.startswith("__MACOSX/")
    return bool(info.filename) and not info.is_dir() and not hidden and (stat.S_IFMT(mode) in (0, stat.S_IFREG))
