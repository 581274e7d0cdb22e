"""The folder of a server: the scans it received and their results. No file or folder in it is named by a user.

jobs.sqlite, lock
incoming/ID/    an upload that is still being received, laid out like scans/ID/
scans/ID/
    scan        the scan: one file, or a folder of numbered files
    wanted      the label of the DICOM series to take, where a person has chosen one
    series.json the DICOM series of the scan, where it holds several
    mask.nii    the mask as corrected by hand, in a job that is a correction
    classes     the classes of that mask, one a line, where they are not those of the model
    card.json   the card of the model that was used, or whose mask was corrected
    patient     the PatientID of a DICOM series, which is sent to nobody
    name        the name that a person has given the scan, which its report then has
    progress    the stage, and the number of slices done and of all slices, while the job runs
    results/    what `groundglass segment` writes
    view/       the upright scan and its lesions, for the page
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.service.job_states import JobProgress, JobStage
from groundglass.errors import OutputError
from groundglass.files import check_private, is_writable, lock_folder, output_errors, write_atomic

_JOB_ID = re.compile("[0-9a-f]{32}")
SPARE_BYTES = 1 << 30  # free space that the results of a scan need at most, but for very large scans


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job."""

    path: Path

    @property
    def scan(self) -> Path:
        """The uploaded scan: a file or a folder of files."""
        return self.path / "scan"

    @property
    def wanted_series(self) -> Path:
        """The label of the DICOM series to take; missing where the rule of `dicom_series` decides."""
        return self.path / "wanted"

    @property
    def series(self) -> Path:
        """The DICOM series of the scan as JSON; missing where there are no several."""
        return self.path / "series.json"

    @property
    def mask(self) -> Path:
        """The mask as corrected by hand."""
        return self.path / "mask.nii"

    @property
    def classes(self) -> Path:
        """The classes of the mask by number, one a line; missing where they are those of the model."""
        return self.path / "classes"

    @property
    def card(self) -> Path:
        """The card of the model that was used, or whose mask was corrected; missing in jobs of earlier versions."""
        return self.path / "card.json"

    @property
    def patient(self) -> Path:
        """The PatientID of a DICOM series."""
        return self.path / "patient"

    @property
    def name(self) -> Path:
        """The name that a person has given the scan; missing where it has that of the upload."""
        return self.path / "name"

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.path / "results"

    @property
    def view(self) -> Path:
        """The folder of the images that the page shows."""
        return self.path / "view"

    def read_patient(self) -> str:
        """Return the PatientID of the scan; empty if it states none, or is no DICOM."""
        return _read_or_empty(self.patient)

    def read_name(self) -> str:
        """Return the name that a person has given the scan; empty if there is none."""
        return _read_or_empty(self.name)

    def write_name(self, name: str) -> None:
        """Record the name that a person has given the scan, if the job is still there.

        Raises:
            OutputError: It cannot be written; the name that was given before stays.
        """
        if self.path.is_dir():
            write_atomic(self.name, name.encode())  # a new file: a mask and its correction may share the old one

    def read_progress(self) -> JobProgress | None:
        """Read the progress of the job; None if it has not started yet."""
        try:
            stage, done, total = (self.path / "progress").read_text().split()
            return JobProgress(stage=JobStage(stage), done=int(done), total=int(total))
        except (OSError, ValueError):  # not written yet, or cut short by a power failure
            return None

    def write_progress(self, stage: JobStage, done: int = 0, total: int = 0) -> None:
        """Record the stage of the job, and how many of all slices are done in it."""
        write_atomic(self.path / "progress", f"{stage} {done} {total}".encode())


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


class ServiceStorage:
    """The folder of a server, locked against other servers until `close`.

    Raises:
        OutputError: The folder cannot be created or written, is open to other users, or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with output_errors(folder, "name another folder with -o"):
            for path in (folder, folder / "incoming", folder / "scans"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                check_private(path)
            lock = lock_folder(folder)
            self.database.touch(mode=0o600)  # holds names of scans, also where others may read the folder
        if lock is None:
            raise OutputError(f"another server uses {folder}: stop it, or name another folder with -o")
        self._lock = lock

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    @property
    def database(self) -> Path:
        """The SQLite file of the jobs."""
        return self.folder / "jobs.sqlite"

    def create_incoming(self, job_id: str) -> JobFolder:
        """Create the folder that an upload is received in."""
        path = self.folder / "incoming" / job_id
        path.mkdir(mode=0o700)
        return JobFolder(path)

    def job_folder(self, job_id: str) -> JobFolder:
        """Return the folder of an accepted job."""
        return JobFolder(self.folder / "scans" / job_id)

    def scan_ids(self) -> list[str]:
        """Return the names of the folders of accepted scans."""
        return list(self.scan_times())

    def scan_times(self) -> dict[str, float]:
        """Return {name of the folder of an accepted scan: when it was changed last, in seconds since 1970}.

        One that the database does not know yet, or is to forget, has 0.
        """
        folders = _folders_of_jobs(self.folder / "scans")
        return {path.name: path.stat().st_mtime for path in folders}

    def accept(self, job_id: str) -> None:
        """Move a complete upload from `incoming` to `scans`; the database does not know it yet."""
        path = self.folder / "incoming" / job_id
        os.utime(path, (0, 0))
        path.replace(self.job_folder(job_id).path)

    def mark_recorded(self, job_id: str) -> None:
        """Note that the database knows a scan."""
        self._date(job_id, None)

    def mark_unrecorded(self, job_id: str) -> None:
        """Note that the database is to forget a scan, so that no other database need know it."""
        self._date(job_id, (0, 0))

    def _date(self, job_id: str, times: tuple[int, int] | None) -> None:
        with suppress(OSError):  # it was deleted meanwhile, or the folder is of another user, as after a restore
            os.utime(self.job_folder(job_id).path, times)

    def remove(self, job_id: str) -> None:
        """Remove all files of a job; a server that is killed meanwhile leaves them as an unfinished upload."""
        incoming, accepted = self.folder / "incoming" / job_id, self.job_folder(job_id).path
        with suppress(OSError):  # there is none, or the disk is full
            accepted.replace(incoming)
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(accepted, ignore_errors=True)

    def remove_uploads(self) -> None:
        """Remove unfinished uploads; what others put there stays."""
        for path in _folders_of_jobs(self.folder / "incoming"):
            shutil.rmtree(path, ignore_errors=True)

    def remove_orphans(self, job_ids: set[str]) -> None:
        """Remove unfinished uploads, and the files of jobs that are not in `job_ids`; what others put there stays."""
        self.remove_uploads()
        for name in self.scan_ids():
            if name not in job_ids:
                self.remove(name)

    @property
    def has_room(self) -> bool:
        """Whether files can be written, and there is room for the results of a scan."""
        return is_writable(self.folder / "incoming") and self.free_bytes() >= SPARE_BYTES

    def free_bytes(self) -> int:
        """Return the free space of the disk."""
        return shutil.disk_usage(self.folder).free


def _folders_of_jobs(parent: Path) -> list[Path]:
    """Return the folders that are named by the id of a job: a folder of these names may have held data of others."""
    return [path for path in parent.iterdir() if _JOB_ID.fullmatch(path.name) and path.is_dir()]
