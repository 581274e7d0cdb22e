"""Files and folders that are written whole or not at all, checksums, and locks on folders."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from groundglass.errors import OccupiedError, OutputError

LOCK_LIMIT_S = 300.0  # for which a process waits for another one to exchange its files
_STALE_S = 24 * 3600.0  # after which a hidden folder is taken as left by a process that was killed
_PREFIX, _REPLACED = ".groundglass-", "-replaced"  # parts of the names of hidden files and folders
_LONGEST_LABEL = 200  # bytes between them, of the 255 that file systems allow for a name


@contextmanager
def output_errors(path: Path, hint: str = "make room or name another folder") -> Iterator[None]:
    """Turn an OSError inside `with` into an OutputError.

    Args:
        path: The file or folder that is being written.
        hint: How to fix the error; it ends the message.

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
    """Write chunks to a temporary file beside `path` as they arrive, then rename it to `path`.

    Missing parent folders are created. An error while a chunk is produced is passed on, and no file is left behind.

    Args:
        path: The file to create or to replace.
        chunks: The content of the file, in order.
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
def staged_folder(
    target: Path, replaces: Iterable[str] = (), check: Callable[[Path], None] = lambda _: None, known_by: str = ""
) -> Iterator[Path]:
    """Fill a hidden folder, which becomes `target` when the `with` block ends without an error.

    If `target` does not exist, it appears with one rename. If it exists, the new entries are moved into it: files of
    the same name are replaced, what `replaces` names is removed, and all else stays, also in folders of the same name.
    If one of the moves fails, the earlier ones are undone. The hidden folder then lies inside `target`, which may be a
    mount point whose parent is not writable.

    Args:
        target: The folder to create or to fill.
        replaces: Paths in `target` of files and folders that an earlier result may have left there.
        check: Called with the hidden folder before its entries are moved into a `target` that exists: what lies there
            may have come while the folder was filled. No other process moves entries into `target` meanwhile.
        known_by: The file by which the content is known as a result. It leaves `target` last and enters it first, so
            that what a process leaves that is killed meanwhile is known as a result too.

    Yields:
        The empty folder to fill.

    Raises:
        OutputError: The folder cannot be written; `target` is as it was before.
    """
    with output_errors(target):
        parent = target if target.exists() else target.parent
        parent.mkdir(parents=True, exist_ok=True)
        staging = parent / f"{_PREFIX}{_label(target)}-{secrets.token_hex(4)}"
        _remove_stale(parent, target)
        staging.mkdir()
        try:
            yield staging
            if target.exists():
                with one_at_a_time(target):
                    check(staging)
                    _exchange(staging, target, set(replaces), known_by)
            else:
                staging.rename(target)
        except OutputError as error:  # of a file in it; the user knows `target` alone
            raise type(error)(str(error).replace(str(staging), str(target))) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_files(
    folder: Path, contents: Mapping[str, bytes], replaces: Iterable[str] = (), known_by: str = ""
) -> list[Path]:
    """Write files into a folder, all of them or none; see `staged_folder`.

    Args:
        folder: The folder to create or to fill.
        contents: {path in the folder: content}.
        replaces: Paths in `folder` of files and folders that an earlier result may have left there.
        known_by: The file by which an earlier result is known: without it, files of these names are of others.

    Returns:
        The files.

    Raises:
        OutputError: The folder cannot be written, or holds files of others of these names; it is as it was before.
    """
    replaces = tuple(replaces)

    def check(_: Path) -> None:
        if known_by:
            refuse_strangers(folder, (*contents, *replaces), known_by)

    with staged_folder(folder, replaces, check, known_by) as staging:
        for name, content in contents.items():
            write_atomic(staging / name, content)
    return [folder / name for name in contents]


def refuse_strangers(folder: Path, names: Iterable[str], known_by: str) -> None:
    """Refuse a folder that has files of these names, but not the one by which an earlier result is known.

    Raises:
        OccupiedError: It has.
    """
    stranger = next((folder / name for name in names if os.path.lexists(folder / name)), None)
    if stranger is not None and not (folder / known_by).is_file():
        raise OccupiedError(f"{stranger} is not of an earlier result: name another folder, or remove it")


def remove_staged(target: Path) -> None:
    """Remove the hidden folders that a killed process left of `staged_folder(target)`.

    Raises:
        OutputError: A folder cannot be removed.
    """
    hidden = _staged_name(target)
    with output_errors(target):
        for parent in (target, target.parent):
            for path in parent.glob(f"{_PREFIX}*"):
                if hidden.fullmatch(path.name):
                    shutil.rmtree(path)


def _remove_stale(parent: Path, target: Path) -> None:
    """Remove what killed processes left of earlier calls for `target` long ago; a younger one may be in use.

    What they had replaced already stays, since it may be the only copy of an earlier result.
    """
    for path in parent.glob(f"{_PREFIX}{glob.escape(_label(target))}-*"):
        is_staged = _staged_name(target).fullmatch(path.name) and not path.name.endswith(_REPLACED)
        with suppress(OSError):
            if is_staged and time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path)


def _staged_name(target: Path) -> re.Pattern[str]:
    """Return the pattern of the names of hidden folders of `staged_folder(target)`."""
    return re.compile(f"{re.escape(_PREFIX + _label(target))}-[0-9a-f]{{8}}({_REPLACED})?")


def _label(target: Path) -> str:
    """Return what hidden folders of `staged_folder(target)` are called after: its name, or a hash of a long one."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST_LABEL else hashlib.sha256(name).hexdigest()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let other processes wait that call this with the same file or folder, where the system can lock it.

    Raises:
        OSError: It is not there, or cannot be opened.
        OutputError: Another process has it for longer than any exchange takes; it may have been stopped.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks no file that is only read
    end = time.monotonic() + LOCK_LIMIT_S
    try:
        with suppress(OSError):  # of a file system without locks
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise OutputError(f"another process has locked {path} for {LOCK_LIMIT_S:g} s: end it") from None
                    time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _exchange(staging: Path, target: Path, replaces: set[str], known_by: str) -> None:
    """Move what is replaced out of `target`, and all that is in `staging` into it; all moves or none."""
    fresh = sorted(_entries_to_move(staging, target, replaces), key=lambda name: (name != known_by, name))
    there = (name for name in {*fresh, *replaces} if os.path.lexists(target / name))
    old = sorted(there, key=lambda name: (name == known_by, name))
    replaced = staging.with_name(f"{staging.name}{_REPLACED}")
    moves = [(target / name, replaced / name) for name in old]
    moves += [(staging / name, target / name) for name in fresh]
    done: list[tuple[Path, Path]] = []
    replaced.mkdir()
    try:
        for source, destination in moves:
            destination.parent.mkdir(parents=True, exist_ok=True)
            source.rename(destination)
            done.append((source, destination))
    except BaseException:
        for source, destination in reversed(done):
            destination.rename(source)
        shutil.rmtree(replaced)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _entries_to_move(staging: Path, target: Path, replaces: set[str], folder: str = "") -> Iterator[str]:
    """Yield the paths of what is moved as a whole: folders that `target` has too are entered unless it loses them."""
    for entry in (staging / folder).iterdir():
        name = f"{folder}{entry.name}"
        if entry.is_dir() and (target / name).is_dir() and name not in replaces:
            yield from _entries_to_move(staging, target, replaces, f"{name}/")
        else:
            yield name


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder below a folder, itself first, with the names of its folders and of its other entries, sorted.

    As `os.walk`, which fails at a depth of some hundred folders: the caller may remove names from the list of folders
    to leave them out, links to folders are not followed, and folders that cannot be read are left out.
    """
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        links = set()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else names).append(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
        except OSError:
            continue
        folders.sort()
        names.sort()
        yield parent, folders, names
        waiting += [parent / name for name in reversed(folders) if name not in links]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def read_file(path: Path) -> bytes:
    """Read a file of the disk. A pipe or a device of its name might give nothing, or something, for ever.

    Raises:
        OSError: It cannot be read, or is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    return path.read_bytes()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_private(folder: Path) -> None:
    """Refuse a folder in which other users may put, replace or remove files.

    Raises:
        OutputError: The folder belongs to another user, or every user may write into it.
    """
    if os.name != "posix":
        return
    state = folder.stat()
    if state.st_uid not in (os.geteuid(), 0):
        raise OutputError(f"{folder} belongs to another user: name a folder of your own")
    if state.st_mode & stat.S_IWOTH:
        raise OutputError(f"every user of this machine may write into {folder}: chmod 700 {folder}")


def lock_folder(folder: Path) -> FileLock | None:
    """Lock a folder for this process; the lock ends with the process, even if that is killed.

    Returns:
        The lock, held until its `release` or until nothing refers to it; None if another process holds it.

    Raises:
        OSError: The folder is not writable, or its file `lock` is a link, which would be followed.
    """
    if (folder / "lock").is_symlink():
        raise OSError(errno.ELOOP, "its file lock is a link", folder / "lock")
    lock = FileLock(folder / "lock", timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def is_writable(folder: Path) -> bool:
    """Return whether a file of some size can be written into a folder now: it is there, and the disk is not full."""
    probe = folder / "probe"
    with suppress(OutputError):
        write_atomic(probe, bytes(1 << 16))
        probe.unlink()
        return True
    return False
