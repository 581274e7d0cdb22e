"""Jobs and what became of them, in SQLite: what was accepted survives the server.

queued ──> running ──> done
^          │  └───> failed
└──────────┘ the server ended meanwhile (at most `TRIES` times)
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from groundglass.strict_model import StrictModel

TRIES = 3
_TABLE = """
create table if not exists jobs (
    number integer primary key autoincrement, id text unique not null, label text not null, status text not null,
    corrects text, tries integer not null default 0, submitted text not null, started text, finished text,
    reason text, summary text, files text not null default '[]'
)
"""


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Progress(StrictModel):
    """Slices done, of how many."""

    done: int
    total: int


class ResultFile(StrictModel):
    """A file of the results, by its path in the folder."""

    name: str
    bytes: int


class ScanJob(StrictModel):
    """A scan on its way.

    Attributes:
        id: 32 random hex digits.
        label: What the user called it.
        status: Where it stands.
        position: Its place in the queue, from 1.
        progress: While it runs.
        submitted: When it was accepted.
        started: When it was last begun.
        finished: When it ended.
        expires: When its results are removed.
        reason: Why it failed.
        corrects: The job whose mask was corrected by hand.
        summary: Its findings in a line.
        files: Its results.
    """

    id: str
    label: str
    status: JobStatus
    position: int | None
    progress: Progress | None
    submitted: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None
    reason: str | None
    corrects: str | None
    summary: str | None
    files: tuple[ResultFile, ...]

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in (JobStatus.DONE, JobStatus.FAILED)


def new_id() -> str:
    """128 random bits: it cannot be guessed."""
    return secrets.token_hex(16)


class Jobs:
    """All jobs of a server; may be used from any thread.

    Readers have a connection of their own, so that they never wait for what is being written to the disk.
    """

    def __init__(self, file: Path, keep: timedelta) -> None:
        self._keep = keep
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer = _connect(file)
        self._writer.execute("pragma journal_mode = wal")
        self._writer.execute("pragma synchronous = full")
        self._writer.execute(_TABLE)
        self._reader = _connect(file)

    def close(self) -> None:
        """Close the file."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    def add(self, job_id: str, label: str, corrects: str | None = None) -> ScanJob:
        """Put a job at the end of the queue."""
        self._write(
            "insert into jobs (id, label, status, corrects, submitted) values (?, ?, ?, ?, ?)",
            (job_id, label, JobStatus.QUEUED, corrects, _now()),
        )
        job = self.get(job_id)
        assert job is not None
        return job

    def get(self, job_id: str) -> ScanJob | None:
        """The job of that id."""
        found = self._read("select * from jobs where id = ?", (job_id,))
        return self._job(found[0]) if found else None

    def all(self) -> list[ScanJob]:
        """Newest first."""
        return [self._job(row) for row in self._read("select * from jobs order by number desc")]

    def waiting(self) -> int:
        """How many are in the queue."""
        return int(self._read("select count(*) from jobs where status = ?", (JobStatus.QUEUED,))[0][0])

    def counts(self) -> dict[str, int]:
        """{status: how many}."""
        rows = self._read("select status, count(*) as count from jobs group by status")
        found = {row["status"]: row["count"] for row in rows}
        return {status.value: found.get(status, 0) for status in JobStatus}

    def take(self) -> ScanJob | None:
        """The first of the queue, now running; None where none waits."""
        found = self._write(
            "update jobs set status = ?, started = ?, tries = tries + 1 where number = "
            "(select min(number) from jobs where status = ?) returning *",
            (JobStatus.RUNNING, _now(), JobStatus.QUEUED),
        )
        return self._job(found[0]) if found else None

    def finish(self, job_id: str, summary: str, files: Sequence[ResultFile]) -> None:
        """A job is done."""
        listed = json.dumps([file.model_dump() for file in files])
        self._end(
            "update jobs set status = ?, finished = ?, summary = ?, files = ? where id = ?",
            JobStatus.DONE,
            summary,
            listed,
            job_id,
        )

    def fail(self, job_id: str, reason: str) -> None:
        """A job cannot be done."""
        self._end("update jobs set status = ?, finished = ?, reason = ? where id = ?", JobStatus.FAILED, reason, job_id)

    def remove(self, job_id: str) -> bool:
        """Forget a job; whether there was one."""
        return bool(self._write("delete from jobs where id = ? returning id", (job_id,)))

    def recover(self) -> None:
        """What was running when the server ended waits again, in its old place; not for ever: it may be the cause."""
        self._write(
            "update jobs set status = ?, finished = ?, reason = ? where status = ? and tries >= ?",
            (JobStatus.FAILED, _now(), f"the server ended {TRIES} times during this scan", JobStatus.RUNNING, TRIES),
        )
        self._write("update jobs set status = ? where status = ?", (JobStatus.QUEUED, JobStatus.RUNNING))

    def expired(self) -> list[str]:
        """Ids of jobs whose results have been kept long enough."""
        before = (datetime.now(UTC) - self._keep).isoformat()
        return [row["id"] for row in self._read("select id from jobs where finished < ?", (before,))]

    def ids(self) -> set[str]:
        """Of all jobs."""
        return {row["id"] for row in self._read("select id from jobs")}

    def typical_seconds(self) -> float | None:
        """The mean of the last ten that were done."""
        rows = self._read(
            "select started, finished from jobs where status = ? order by number desc limit 10", (JobStatus.DONE,)
        )
        took = [(_time(row["finished"]) - _time(row["started"])).total_seconds() for row in rows]
        return sum(took) / len(took) if took else None

    def _job(self, row: sqlite3.Row) -> ScanJob:
        position = None
        if row["status"] == JobStatus.QUEUED:
            ahead = "select count(*) from jobs where status = ? and number <= ?"
            position = int(self._read(ahead, (JobStatus.QUEUED, row["number"]))[0][0])
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
            summary=row["summary"],
            files=tuple(ResultFile(**file) for file in json.loads(row["files"])),
        )

    def _end(self, statement: str, status: JobStatus, *words: str) -> None:
        self._write(statement, (status, _now(), *words))

    def _write(self, statement: str, words: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._writing, closing(self._writer.execute(statement, words)) as cursor:
            return cursor.fetchall()

    def _read(self, statement: str, words: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        with self._reading, closing(self._reader.execute(statement, words)) as cursor:
            return cursor.fetchall()


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
