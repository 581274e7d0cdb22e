"""Files that are written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from groundglass.errors import OutputError


def write_whole(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write `data` in one piece; see `write_pieces`."""
    write_pieces(path, (data,), mode)


def write_pieces(path: Path, pieces: Iterable[bytes], mode: int | None = None) -> None:
    """Write pieces, each as it comes, under a temporary name beside `path`, and rename it into place.

    Folders are made as needed. Where a piece cannot be had, its error goes on, and nothing is left behind either.

    Args:
        path: What to write, or to replace.
        pieces: The whole of it, one after the other.
        mode: Its permissions; None: those of any new file.

    Raises:
        OutputError: The disk is full, the folder is not writable, or the like; nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".groundglass-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(pieces)
            Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; make room or name another folder"
        ) from None


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    """The mask of a new file's permissions, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
