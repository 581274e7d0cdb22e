"""Where a series lies while it is worked on: private, and empty when nothing is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundglass.errors import ConfigError, OutputError
from groundglass.files import lock_folder


class Spool:
    """A folder of patients' images and results, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "spool"

    def open(self, kept: Collection[str]) -> None:
        """Make it, and take away what an end in the middle left.

        Args:
            kept: UIDs of the series whose results are still to be stored.

        Raises:
            OutputError: It cannot be made or emptied.
        """
        with _ledger_errors(self._root):
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._root.chmod(0o700)
            for place in self._root.iterdir():
                if place.name not in {_name(uid) for uid in kept}:
                    shutil.rmtree(place)

    def source(self, series_uid: str) -> Path:
        """An empty folder for a series' instances.

        Raises:
            OutputError: It cannot be made.
        """
        path = self._root / _name(series_uid) / "series"
        with _ledger_errors(self._root):
            self.clear(series_uid)
            path.parent.mkdir(mode=0o700)
            path.mkdir(mode=0o700)
        return path

    def results(self, series_uid: str) -> Path:
        """The folder of a series' results; there only when they are whole."""
        return self._root / _name(series_uid) / "results"

    def clear(self, series_uid: str, keep_results: bool = False) -> None:
        """Take away a series' instances, and its results too unless they are kept.

        Raises:
            OutputError: They cannot be taken away.
        """
        place = self._root / _name(series_uid)
        with _ledger_errors(self._root):
            for path in place.iterdir() if place.exists() else ():
                if not (keep_results and path == self.results(series_uid)):
                    shutil.rmtree(path)
            if place.exists() and not keep_results:
                place.rmdir()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make a folder one's own as long as `with` lasts; it ends with the process, however that ends.

    Raises:
        ConfigError: Another process has it.
        OutputError: It cannot be made or written.
    """
    with _ledger_errors(folder):
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        held = lock_folder(folder)
    if held is None:
        raise ConfigError(
            f"another groundglass watch works in {folder}, expected one for each folder: end it, or name another"
        )
    with held:
        yield


def _name(series_uid: str) -> str:
    return hashlib.sha256(series_uid.encode()).hexdigest()[:16]


@contextmanager
def _ledger_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}; make room, or name another folder with -o"
        ) from None
