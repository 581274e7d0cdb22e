"""Files and folders that appear whole or not at all, their checksums, and folders for one process at a time."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from groundglass.errors import OutputError

_PREFIX = ".groundglass-"


@contextmanager
def output_errors(path: Path, hint: str = "make room or name another folder") -> Iterator[None]:
    """Turn an OSError inside `with` into an OutputError.

    Args:
        path: What is being written.
        hint: How to fix it, for the end of the message.

    Raises:
        OutputError: The disk is full, the folder is not writable, or the like.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; {hint}") from None


def write_atomic(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file in one piece; see `write_atomic_chunks`."""
    write_atomic_chunks(path, (data,), mode)


def write_atomic_chunks(path: Path, chunks: Iterable[bytes], mode: int = 0o666) -> None:
    """Write chunks as they arrive to a temporary file beside `path`, then rename it into place.

    Missing parent folders are created. If producing a chunk raises, that error is passed on and no file is left behind.

    Args:
        path: The file to create or to replace.
        chunks: The whole content, in order.
        mode: Permissions of the file, reduced by the process's umask.

    Raises:
        OutputError: The file cannot be written; nothing is left behind.
    """
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}"
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(chunks)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def staged_folder(target: Path, replaces: Iterable[str] = ()) -> Iterator[Path]:
    """Fill a hidden folder, and put its content in place as `target` when `with` ends without an error.

    If `target` does not exist, it appears with one rename. If it exists (it may be a mount point, so the hidden folder
    lies inside it), the new files are moved into it: files of the same name are replaced, `replaces` are removed, all
    others stay; if a step fails, every earlier step is undone.

    Args:
        target: The folder to create or to fill.
        replaces: Names in `target` that belong to an earlier result and must not survive beside the new one.

    Yields:
        The empty folder to fill.

    Raises:
        OutputError: The folder cannot be written; `target` is as it was before.
    """
    with output_errors(target):
        place = target if target.exists() else target.parent
        place.mkdir(parents=True, exist_ok=True)
        staging = place / f"{_PREFIX}{target.name}-{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            yield staging
            if target.exists():
                _exchange(staging, target, set(replaces))
            else:
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def remove_staged(target: Path) -> None:
    """Remove what a killed process left of `staged_folder(target)`.

    Raises:
        OutputError: It cannot be removed.
    """
    with output_errors(target):
        for place in (target, target.parent):
            for path in place.glob(f"{_PREFIX}{glob.escape(target.name)}-*"):
                shutil.rmtree(path)


def _exchange(staging: Path, target: Path, replaces: set[str]) -> None:
    """Move every entry of `staging` into `target`, and what they replace out of it; undo all of it on an error."""
    fresh = sorted(path.name for path in staging.iterdir())
    replaced = staging.with_name(f"{staging.name}-replaced")
    replaced.mkdir()
    moves: list[tuple[Path, Path]] = []
    try:
        for source, destination, names in ((target, replaced, sorted({*fresh, *replaces})), (staging, target, fresh)):
            for name in names:
                if (source / name).exists() or (source / name).is_symlink():
                    (source / name).rename(destination / name)
                    moves.append((source / name, destination / name))
    except BaseException:
        for before, after in reversed(moves):
            after.rename(before)
        raise
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lock_folder(folder: Path) -> FileLock | None:
    """Lock a folder for this process; the lock ends with the process, however that ends.

    Returns:
        The lock, held until its `release`; None if another process holds it.

    Raises:
        OSError: The folder cannot be written.
    """
    lock = FileLock(folder / "lock", timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock
