"""The jobs of a server and their results, kept in SQLite so that accepted scans survive the end of the server.

queued ──> running ──> done
^          │  └───> failed
└──────────┘ the server ended meanwhile (at most `MAX_ATTEMPTS` times, unless it was stopped in order)
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from groundglass.apps.service.job_states import JobStatus, ResultFile, ScanJob
from groundglass.errors import OutputError

MAX_ATTEMPTS = 3
BUSY_S = 5.0  # longest wait for another process that locks the database
_IN_USE = 1  # user_version of a database to which the scans of its folder belong
_COPY_S = 3600.0  # by which scans are younger than a database that is an older copy
_MAX_PAUSE_SHARE = 0.05  # of the time for which results are kept, that may pass between two servers
_TABLES = """
create table if not exists jobs (
    number integer primary key autoincrement, id text unique not null, label text not null, status text not null,
    corrects text, tries integer not null default 0, submitted text not null, started text, finished text,
    reason text, summary text, files text not null default '[]', note text not null default '',
    kept_s real not null default 0      -- seconds for which the results have been kept
);
create table if not exists clock (row integer primary key check (row = 1), seen text not null);
"""
_ADD_NOTES = "alter table jobs add column note text not null default ''"
_ADD_KEPT = """
alter table jobs add column kept_s real not null default 0;
update jobs set kept_s = max(0, 86400 * (julianday('now') - julianday(finished))) where finished is not null;
"""


def is_disk_full(error: sqlite3.Error) -> bool:
    """Return whether SQLite could not write for lack of room."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another program, or another thread for too long, kept SQLite from writing."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def unusable(file: Path, error: sqlite3.Error) -> OutputError:
    """Return the error of a server that cannot start because of its database."""
    if is_disk_full(error):
        hint = "make room on its disk"
    elif is_locked(error):
        hint = "end the other program that uses it"
    else:
        hint = "restore it from a backup, or name another folder with -o"
    return OutputError(f"{file} cannot be used: {error}; {hint}")


def new_job_id() -> str:
    """Return 128 random bits in hexadecimal: an id that cannot be guessed."""
    return secrets.token_hex(16)


class JobStore:
    """All jobs of a server; may be used from any thread.

    Reads have a connection of their own, so that they never wait for a write to the disk.
    """

    def __init__(self, file: Path, keep: timedelta) -> None:
        """Open or create the database.

        Raises:
            OutputError: It is damaged, of a newer version, or cannot be read or written.
        """
        self._keep, self._file = keep, file
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        try:
            self._writer = _connect(file)
            if self._writer.execute("pragma user_version").fetchone()[0] > _IN_USE:
                self._writer.close()
                raise OutputError(
                    f"{file} is of a newer version of groundglass: use that one, or name another folder with -o"
                )
            self._writer.execute("pragma journal_mode = wal")
            self._writer.execute("pragma synchronous = full")
            self._writer.executescript(_TABLES)
            columns = {row["name"] for row in self._writer.execute("pragma table_info(jobs)")}
            for name, addition in (("note", _ADD_NOTES), ("kept_s", _ADD_KEPT)):
                if name not in columns:  # a database of an earlier version
                    self._writer.executescript(addition)
            self._reader = _connect(file)
            self._inode = file.stat().st_ino
        except sqlite3.Error as error:
            raise unusable(file, error) from None

    def adopt(self, scans: Mapping[str, float]) -> None:
        """Take the scans of the folder as those of this database.

        Args:
            scans: {name of the folder of a scan: when it was changed last, in seconds since 1970}.

        Raises:
            OutputError: There are scans, but the database has never held a job, or is an older copy that does not know
                them: it was lost, and they would be too.
        """
        is_in_use = self._read("pragma user_version")[0][0] == _IN_USE
        held = is_in_use or self._read("select seq from sqlite_sequence where name = 'jobs'")
        seen = self._read("select seen from clock")
        old_s = _time(seen[0]["seen"]).timestamp() + _COPY_S if seen else float("inf")
        newer = [name for name in scans.keys() - self.ids() if scans[name] > old_s]
        lost = newer if held else list(scans)
        if lost:
            fault = "is an older copy that does not know them" if held else "is missing or empty"
            raise OutputError(
                f"{len(lost)} scan{'s lie' if len(lost) > 1 else ' lies'} in the folder, but jobs.sqlite {fault}: "
                "restore it from a backup, or remove the folder scans if its scans may be lost"
            )
        self._write(f"pragma user_version = {_IN_USE}", ())

    def close(self) -> None:
        """Close the database."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def add(self, job_id: str, label: str, corrects: str | None = None) -> ScanJob:
        """Append a job to the queue."""
        self._write(
            "insert into jobs (id, label, status, corrects, submitted) values (?, ?, ?, ?, ?)",
            (job_id, label, JobStatus.QUEUED, corrects, _now()),
        )
        job = self.get(job_id)
        assert job is not None
        return job

    def get(self, job_id: str) -> ScanJob | None:
        """Return the job with this id; None if there is none."""
        rows = self._read("select * from jobs where id = ?", (job_id,))
        return self._job(rows[0]) if rows else None

    def all(self) -> list[ScanJob]:
        """Return all jobs, newest first."""
        return [self._job(row) for row in self._read("select * from jobs order by number desc")]

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        return {row["id"] for row in self._read("select id from jobs")}

    def pass_time(self, seconds: float | None) -> None:
        """Let time pass for the results that are kept.

        Args:
            seconds: Time since the last call. None at the first call of a server: the time since the last call of the
                server before it, by the clock of the machine. It may have been set meanwhile, so that a pause counts
                up to a twentieth of the time for which results are kept.
        """
        now = _now()
        if seconds is None:
            seen = self._read("select seen from clock")
            pause = _time(now) - _time(seen[0]["seen"]) if seen else timedelta()
            seconds = min(max(pause, timedelta()), self._keep * _MAX_PAUSE_SHARE).total_seconds()
        self._write("insert or replace into clock (row, seen) values (1, ?)", (now,))
        self._write("update jobs set kept_s = kept_s + ? where finished is not null", (seconds,))

    def expired_ids(self, unwritten_s: float = 0.0) -> list[str]:
        """Return the ids of the jobs whose results have been kept long enough.

        Args:
            unwritten_s: Time that has passed for them and could not be written.
        """
        statement = "select id from jobs where finished is not null and kept_s + ? > ?"
        return [row["id"] for row in self._read(statement, (unwritten_s, self._keep.total_seconds()))]

    def count_queued(self) -> int:
        """Return the number of jobs that wait."""
        return int(self._read("select count(*) from jobs where status = ?", (JobStatus.QUEUED,))[0][0])

    def count_by_status(self) -> dict[str, int]:
        """Return {status: number of jobs}, for every status."""
        rows = self._read("select status, count(*) as count from jobs group by status")
        counts = {row["status"]: row["count"] for row in rows}
        return {status.value: counts.get(status, 0) for status in JobStatus}

    def mean_seconds(self) -> float | None:
        """Return the mean processing time of the last ten jobs that were done; None if there are none."""
        rows = self._read(
            "select started, finished from jobs where status = ? order by number desc limit 10", (JobStatus.DONE,)
        )
        seconds = [(_time(row["finished"]) - _time(row["started"])).total_seconds() for row in rows]
        return sum(seconds) / len(seconds) if seconds else None

    def start_next(self) -> ScanJob | None:
        """Mark the first job of the queue as running and return it; None if no job waits."""
        rows = self._write(
            "update jobs set status = ?, started = ?, tries = tries + 1 where number = "
            "(select min(number) from jobs where status = ?) returning *",
            (JobStatus.RUNNING, _now(), JobStatus.QUEUED),
        )
        return self._job(rows[0]) if rows else None

    def finish(self, job_id: str, summary: str, files: Sequence[ResultFile]) -> None:
        """Mark a job as done."""
        self._write(
            "update jobs set status = ?, finished = ?, summary = ?, files = ? where id = ?",
            (JobStatus.DONE, _now(), summary, json.dumps([file.model_dump() for file in files]), job_id),
        )

    def fail(self, job_id: str, reason: str) -> None:
        """Mark a job as failed."""
        self._write(
            "update jobs set status = ?, finished = ?, reason = ? where id = ?",
            (JobStatus.FAILED, _now(), reason, job_id),
        )

    def requeue_unprocessed(self) -> None:
        """Put the running job back into the queue, at its old position, as if it had not been started."""
        self._write(
            "update jobs set status = ?, started = null, tries = tries - 1 where status = ?",
            (JobStatus.QUEUED, JobStatus.RUNNING),
        )

    def describe(self, job_id: str, label: str | None, note: str | None) -> bool:
        """Change the label and the note of a job, each unless it is None; return whether the job exists."""
        statement = "update jobs set label = coalesce(?, label), note = coalesce(?, note) where id = ? returning id"
        return bool(self._write(statement, (label, note, job_id)))

    def remove(self, job_id: str) -> bool:
        """Delete a job, its name from the files of the database too; return whether it existed."""
        existed = bool(self._write("delete from jobs where id = ? returning id", (job_id,)))
        with suppress(sqlite3.Error):  # on a full disk, or beside a backup: then with the next one
            self._write("pragma wal_checkpoint(truncate)", ())
        return existed

    def requeue_interrupted(self) -> None:
        """Requeue the job that ran when the server ended, at its old position.

        After `MAX_ATTEMPTS` interruptions it is marked as failed, since it may be what ends the server.
        """
        reason = f"the server ended {MAX_ATTEMPTS} times while it processed this scan"
        self._write(
            "update jobs set status = ?, finished = ?, reason = ? where status = ? and tries >= ?",
            (JobStatus.FAILED, _now(), reason, JobStatus.RUNNING, MAX_ATTEMPTS),
        )
        self._write("update jobs set status = ? where status = ?", (JobStatus.QUEUED, JobStatus.RUNNING))

    def _job(self, row: sqlite3.Row) -> ScanJob:
        position = None
        if row["status"] == JobStatus.QUEUED:
            statement = "select count(*) from jobs where status = ? and number <= ?"
            position = int(self._read(statement, (JobStatus.QUEUED, row["number"]))[0][0])
        finished = _time(row["finished"]) if row["finished"] else None
        return ScanJob(
            id=row["id"],
            label=row["label"],
            status=JobStatus(row["status"]),
            position=position,
            progress=None,
            submitted=_time(row["submitted"]),
            started=_time(row["started"]) if row["started"] else None,
            finished=finished,
            expires=finished + self._keep if finished else None,
            reason=row["reason"],
            corrects=row["corrects"],
            note=row["note"],
            summary=row["summary"],
            files=tuple(ResultFile(**file) for file in json.loads(row["files"])),
        )

    def _write(self, statement: str, parameters: tuple[Any, ...]) -> list[sqlite3.Row]:
        if not self._write_lock.acquire(timeout=BUSY_S):  # or else all threads wait one after another
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        try:
            self._check_place()
            with closing(self._writer.execute(statement, parameters)) as cursor:
                return cursor.fetchall()
        finally:
            self._write_lock.release()

    def _check_place(self) -> None:
        """Check that what is written will be there for the next server: SQLite writes into a file that is gone too.

        Raises:
            sqlite3.OperationalError: The file was removed or replaced by hand.
        """
        try:
            is_there = self._file.stat().st_ino == self._inode
        except OSError:
            is_there = False
        if not is_there:
            raise sqlite3.OperationalError(f"{self._file.name} was removed or replaced while the server was running")

    def _read(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        try:
            with self._read_lock, closing(self._reader.execute(statement, parameters)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error:
            self._check_place()
            raise


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=BUSY_S)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma secure_delete = on")  # what is deleted is overwritten
    return connection


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
