"""The folder where a series lies while it is processed: private, and empty when nothing is."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundglass.errors import ConfigError
from groundglass.files import check_private, is_writable, lock_folder, output_errors

SPARE_BYTES = 1 << 30  # that a series of usual size and its results fit into
_FOLDER_NAME = re.compile("[0-9a-f]{16}")  # of a series: see `_folder_name`


class Spool:
    """A folder of patients' images and results, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "spool"

    def open(self, keep: Collection[str]) -> None:
        """Create the folder, and remove what a killed watcher left in it; what others put there stays.

        Args:
            keep: UIDs of the series whose results are still to be stored.

        Raises:
            OutputError: The folder cannot be created or emptied.
        """
        kept_names = {_folder_name(uid) for uid in keep}
        with output_errors(self._root):
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._root.chmod(0o700)
            for path in self._root.iterdir():
                if _FOLDER_NAME.fullmatch(path.name) and path.name not in kept_names:
                    _remove(path)

    def create_source(self, series_uid: str) -> Path:
        """Create an empty folder for the instances of a series; whatever lay in the spool for it is removed.

        Raises:
            OutputError: The folder cannot be created.
        """
        path = self._root / _folder_name(series_uid) / "series"
        with output_errors(self._root):
            self.clear(series_uid)
            for folder in (self._root, path.parent, path):  # the first one may have been removed by hand
                folder.mkdir(mode=0o700, exist_ok=True)
        return path

    @property
    def has_room(self) -> bool:
        """Whether files can be written, and the disk has room for a series of usual size."""
        return is_writable(self._root) and shutil.disk_usage(self._root).free >= SPARE_BYTES

    def results(self, series_uid: str) -> Path:
        """Return the folder for the results of a series; it exists only once they are complete."""
        return self._root / _folder_name(series_uid) / "results"

    def clear(self, series_uid: str, keep_results: bool = False) -> None:
        """Remove the instances of a series, what a killed worker left, and the results unless they are kept.

        Raises:
            OutputError: They cannot be removed.
        """
        folder = self._root / _folder_name(series_uid)
        with output_errors(self._root):
            for path in folder.iterdir() if folder.exists() else ():
                if not (keep_results and path == self.results(series_uid)):
                    _remove(path)
            if folder.exists() and not keep_results:
                folder.rmdir()


@contextmanager
def lock_watch_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of a watch for this process; the lock ends with `with` or with the process.

    Raises:
        ConfigError: Another process holds the lock.
        OutputError: The folder cannot be created or written.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        check_private(folder)
        lock = lock_folder(folder)
    if lock is None:
        raise ConfigError(
            f"another groundglass watch uses {folder}, expected a folder for each: end that one, or name another folder"
        )
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    """Remove a folder, or what a file manager or a network drive has left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _folder_name(series_uid: str) -> str:
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16]
