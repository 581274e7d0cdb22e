"""Where a server keeps what it was given and what it made. Nothing in here is named by a user.

jobs.sqlite, lock
incoming/ID/          a scan that is still being sent
scans/ID/scan         the scan: one file, or a folder of numbered ones
mask.nii     a mask corrected by hand, if it is one
progress     slices done and their number, while it runs
results/     what `segment` writes
view/        the scan and its lesions upright, for the page
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.service.jobs import Progress
from groundglass.errors import OutputError
from groundglass.files import lock_folder


@dataclass(frozen=True)
class ScanFolder:
    """The folder of one job."""

    path: Path

    @property
    def scan(self) -> Path:
        """What was sent."""
        return self.path / "scan"

    @property
    def mask(self) -> Path:
        """The corrected mask."""
        return self.path / "mask.nii"

    @property
    def results(self) -> Path:
        """What was made of it."""
        return self.path / "results"

    @property
    def view(self) -> Path:
        """What the page shows."""
        return self.path / "view"

    @property
    def progress(self) -> Progress | None:
        """How far it is."""
        try:
            done, total = (self.path / "progress").read_text().split()
            return Progress(done=int(done), total=int(total))
        except (OSError, ValueError):  # not begun, or just being written
            return None

    def on_message(self, done: int, total: int) -> None:
        """Leave word how far it is."""
        (self.path / "progress").write_text(f"{done} {total}")


class ServiceStorage:
    """The folder of a server, which no other server uses meanwhile.

    Raises:
        OutputError: It cannot be made or written, or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for each in (folder, folder / "incoming", folder / "scans"):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.database.touch(mode=0o600)  # it holds what scans were called, whoever may read the folder
            lock = lock_folder(folder)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}; name another with -o") from None
        if lock is None:
            raise OutputError(f"another server uses {folder}: stop it, or name another folder with -o")
        self._lock = lock

    def close(self) -> None:
        """Let others use it."""
        self._lock.release()

    @property
    def database(self) -> Path:
        """Of the jobs."""
        return self.folder / "jobs.sqlite"

    def incoming(self, job_id: str) -> ScanFolder:
        """Where a scan is put together; made."""
        path = self.folder / "incoming" / job_id
        path.mkdir(mode=0o700)
        return ScanFolder(path)

    def scan(self, job_id: str) -> ScanFolder:
        """Where a job's files are."""
        return ScanFolder(self.folder / "scans" / job_id)

    def accept(self, job_id: str) -> None:
        """A scan is here whole."""
        (self.folder / "incoming" / job_id).replace(self.scan(job_id).path)

    def drop(self, job_id: str) -> None:
        """Remove all that there is of a job."""
        shutil.rmtree(self.folder / "incoming" / job_id, ignore_errors=True)
        shutil.rmtree(self.scan(job_id).path, ignore_errors=True)

    def sweep(self, ids: set[str]) -> None:
        """Remove what belongs to no job: what was being sent, or deleted, when the server ended."""
        found = {path.name for place in ("incoming", "scans") for path in (self.folder / place).iterdir()}
        for job_id in found - ids:
            self.drop(job_id)
        for path in (self.folder / "incoming").iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def free_bytes(self) -> int:
        """Room on the disk."""
        return shutil.disk_usage(self.folder).free
