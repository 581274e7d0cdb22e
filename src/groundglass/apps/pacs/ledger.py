"""The state of a watch, kept between two calls: how far the polling came, and the state of each series.

It is one SQLite file. Every change is a transaction of its own, so a kill at any moment loses at most that change.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError, OutputError
from groundglass.files import output_errors
from groundglass.plain_text import printable

NAME = "watch.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    series_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL,
    instances INTEGER NOT NULL,         -- number of its instances when it was found or retrieved
    stamp INTEGER NOT NULL,             -- see SeriesArrival
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,   -- number of failed tries
    next_try REAL NOT NULL DEFAULT 0,   -- seconds since 1970
    begun INTEGER NOT NULL DEFAULT 0,   -- number of tries without an end: the watcher was killed during them
    reason TEXT,                        -- reason of the last failure
    results TEXT,                       -- UIDs of its results, separated by spaces
    changed REAL NOT NULL               -- seconds since 1970
);
CREATE INDEX IF NOT EXISTS due ON series (state, next_try);
CREATE TABLE IF NOT EXISTS polling (
    server TEXT NOT NULL,
    bookmark INTEGER NOT NULL,
    last_number INTEGER NOT NULL DEFAULT 0,     -- see ChangeMark
    last_digest TEXT NOT NULL DEFAULT ''
);
"""
_ADD_MARK = """
BEGIN;
ALTER TABLE polling ADD COLUMN last_number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE polling ADD COLUMN last_digest TEXT NOT NULL DEFAULT '';
COMMIT;
"""
_HINTS = dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), "end the other program that uses it")
_NO_STAMP = -1  # that of no arrival


class State(StrEnum):
    """State of a series."""

    WAITING = "waiting"  # to be retrieved and segmented, unless its results are known and in the PACS
    SEGMENTED = "segmented"  # its results lie in the spool, to be stored
    DONE = "done"  # its results are in the PACS
    REFUSED = "refused"  # not a CT that can be segmented; tried again when it changes
    GIVEN_UP = "left"  # failed too often; tried again when it changes

    @property
    def label(self) -> str:
        """Name of the state in messages."""
        return "given up" if self is State.GIVEN_UP else self.value


@dataclass(frozen=True)
class SeriesArrival:
    """A series that is complete, as far as the server can tell.

    Attributes:
        series_uid: Series instance UID.
        study_uid: Study instance UID.
        instance_count: Number of its instances.
        stamp: Differs from that of the arrival before if anything of the series may have changed.
    """

    series_uid: str
    study_uid: str
    instance_count: int
    stamp: int


@dataclass(frozen=True)
class ChangeMark:
    """The last change of the server that was read; another one of its number is that of another database.

    Attributes:
        number: Its number; 0 if none was read.
        digest: Checksum of what the server states of it.
    """

    number: int = 0
    digest: str = ""


@dataclass(frozen=True)
class SeriesEntry:
    """A series in the ledger.

    Attributes:
        series_uid: Series instance UID.
        study_uid: Study instance UID.
        instance_count: Number of its instances when it was found or, later, retrieved.
        state: Its state.
        tries: Number of failed tries.
        reason: Reason of the last failure or refusal; None if there was none.
        result_uids: SOP instance UIDs of its results; empty if none were made of these instances.
    """

    series_uid: str
    study_uid: str
    instance_count: int
    state: State
    tries: int
    reason: str | None
    result_uids: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the series in messages: the end of its UID."""
        return short_uid(self.series_uid)


def short_uid(uid: str) -> str:
    """Cut a UID to its end, which is enough to find the series by."""
    tail = printable(uid[-12:])
    return f"…{tail}" if len(uid) > 12 else tail


class Ledger:
    """The open file. Only one process may have it open at a time: see `spool.lock_watch_folder`."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file.

        Raises:
            ConfigError: Another version of groundglass created it.
            OutputError: It cannot be written, or is damaged.
        """
        self._path = folder / NAME
        with output_errors(self._path):
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._sqlite_errors():
            self._db = sqlite3.connect(self._path, timeout=30)
            version = self._one("PRAGMA user_version")[0]
            if version not in (0, _VERSION):
                self._db.close()
                raise ConfigError(
                    f"{self._path} is of version {version}, expected {_VERSION}: another version of groundglass "
                    "created it; name another folder"
                )
            self._db.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
            if "last_number" not in {row[1] for row in self._db.execute("PRAGMA table_info(polling)")}:
                self._db.executescript(_ADD_MARK)  # a ledger of an earlier version

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def bind_to_server(self, server: str) -> None:
        """Bind the ledger to a server, if it is new, or check that it belongs to this one.

        Args:
            server: Kind and URL of the server.

        Raises:
            ConfigError: It belongs to another server.
        """
        with self._sqlite_errors(), self._db:
            known = self._db.execute("SELECT server FROM polling").fetchone()
            if known is None:
                self._db.execute("INSERT INTO polling (server, bookmark) VALUES (?, 0)", (server,))
            elif known[0] != server:
                raise ConfigError(
                    f"{self._path.parent} belongs to {known[0]}, expected {server}: name a folder for each server"
                )

    @property
    def bookmark(self) -> int:
        """Number of the last change of the server that was read; 0 if none was."""
        with self._sqlite_errors():
            return int(self._one("SELECT bookmark FROM polling")[0])

    @property
    def last_change(self) -> ChangeMark:
        """The last change of the server that was read; it may lie behind the bookmark."""
        with self._sqlite_errors():
            return ChangeMark(*self._one("SELECT last_number, last_digest FROM polling"))

    def add_arrivals(
        self, arrivals: Sequence[SeriesArrival], bookmark: int, last_change: ChangeMark | None = None
    ) -> None:
        """Add series, and note in the same transaction how far the server's changes have been read.

        A known series is processed again if it has more instances than before. If it has another stamp, its results
        are looked for, and made again if they are gone: it may have been deleted and sent again.

        Args:
            arrivals: The series.
            bookmark: Number of the last change that need not be read again.
            last_change: The last change that was read; None if it is the same as before.
        """
        now = time.time()
        with self._sqlite_errors(), self._db:
            self._db.executemany(
                "INSERT INTO series (series_uid, study_uid, instances, stamp, state, changed)"
                " VALUES (?, ?, ?, ?, 'waiting', ?) ON CONFLICT (series_uid) DO UPDATE SET"
                " study_uid = excluded.study_uid, instances = excluded.instances, stamp = excluded.stamp,"
                " state = excluded.state, tries = 0, next_try = 0, reason = NULL, changed = excluded.changed,"
                " results = CASE WHEN excluded.instances > series.instances THEN NULL ELSE series.results END"
                " WHERE excluded.instances > series.instances"
                " OR (excluded.stamp <> series.stamp AND series.state <> 'segmented')",
                [(*astuple(arrival), now) for arrival in arrivals],
            )
            self._db.execute("UPDATE polling SET bookmark = ?", (bookmark,))
            if last_change is not None:
                self._db.execute("UPDATE polling SET last_number = ?, last_digest = ?", astuple(last_change))

    def forget_changes(self) -> None:
        """Have the server's changes read from the start, since they are those of another database.

        Of each series in it something may have changed: its results may be missing.
        """
        with self._sqlite_errors(), self._db:
            self._db.execute("UPDATE polling SET bookmark = 0, last_number = 0, last_digest = ''")
            self._db.execute("UPDATE series SET stamp = ?", (_NO_STAMP,))

    def get(self, series_uid: str) -> SeriesEntry | None:
        """Return the entry of a series; None if it is unknown."""
        return self._entry("series_uid = ?", series_uid)

    def next_entry(self, now: float, longest_pause_s: float) -> SeriesEntry | None:
        """Return the series to process next; None if nothing is due.

        A series whose processing was begun and never ended comes last: the watcher may have died of it. One that has
        not failed yet needs no pause: `next_try` is its place in the queue only, whatever the clock says now.

        Args:
            now: Seconds since 1970.
            longest_pause_s: Longest pause before a try, in seconds: a series that is due later than that is due now,
                since the clock was ahead when the pause was noted.
        """
        return self._entry(
            "state IN ('waiting', 'segmented') AND (tries = 0 OR next_try <= ? OR next_try > ?)"
            " ORDER BY begun, next_try, rowid LIMIT 1",
            now,
            now + longest_pause_s,
        )

    def next_due_time(self) -> float | None:
        """Return when the next series is due, in seconds since 1970; None if none is waiting."""
        with self._sqlite_errors():
            found = self._one("SELECT min(next_try) FROM series WHERE state IN ('waiting', 'segmented')")[0]
        return None if found is None else float(found)

    def series_with_results(self) -> list[str]:
        """Return the UIDs of the series whose results lie in the spool."""
        with self._sqlite_errors():
            return [uid for (uid,) in self._db.execute("SELECT series_uid FROM series WHERE state = 'segmented'")]

    def counts(self) -> dict[State, int]:
        """Count the series in each state."""
        with self._sqlite_errors():
            rows = self._db.execute("SELECT state, count(*) FROM series GROUP BY state ORDER BY state").fetchall()
        return {State(state): count for state, count in rows}

    def mark_begun(self, entry: SeriesEntry) -> None:
        """Note that the processing of a series begins."""
        with self._sqlite_errors(), self._db:
            self._db.execute("UPDATE series SET begun = begun + 1 WHERE series_uid = ?", (entry.series_uid,))

    def clear_begun(self, entry: SeriesEntry) -> None:
        """Note that the processing of a series has ended, in whatever way."""
        self._update(entry, begun=0)

    def mark_segmented(self, entry: SeriesEntry, instance_count: int, result_uids: Sequence[str]) -> None:
        """Note that the results lie in the spool, and from how many instances they were made."""
        self._update(entry, state=State.SEGMENTED, instances=instance_count, results=" ".join(result_uids))

    def mark_done(self, entry: SeriesEntry) -> None:
        """Note that the results are in the PACS."""
        self._update(entry, state=State.DONE, reason=None)

    def mark_refused(self, entry: SeriesEntry, reason: str) -> None:
        """Note why a series is refused."""
        self._update(entry, state=State.REFUSED, reason=reason)

    def mark_failed(self, entry: SeriesEntry, reason: str, next_try: float | None) -> None:
        """Note why a series failed, and when to try again, in seconds since 1970; None to give it up."""
        state = {"state": State.GIVEN_UP} if next_try is None else {}
        self._update(entry, tries=entry.tries + 1, next_try=next_try or 0.0, reason=reason, **state)

    def mark_gone(self, entry: SeriesEntry, reason: str) -> None:
        """Give up a series that is no longer in the PACS; if it is sent again, it has grown from nothing."""
        self._update(entry, state=State.GIVEN_UP, instances=0, stamp=_NO_STAMP, reason=reason)

    def postpone(self, entry: SeriesEntry, next_try: float) -> None:
        """Put a series behind those that are due before `next_try`, in seconds since 1970."""
        self._update(entry, next_try=next_try)

    def retry_all(self) -> int:
        """Have every series tried again that was refused or given up; return their number."""
        with self._sqlite_errors(), self._db:
            return self._db.execute(
                "UPDATE series SET state = 'waiting', tries = 0, next_try = 0 WHERE state IN ('refused', 'left')"
            ).rowcount

    def _update(self, entry: SeriesEntry, **values: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._sqlite_errors(), self._db:
            self._db.execute(
                f"UPDATE series SET {columns}, changed = ? WHERE series_uid = ?",
                (*values.values(), time.time(), entry.series_uid),
            )

    def _entry(self, condition: str, *values: object) -> SeriesEntry | None:
        columns = "series_uid, study_uid, instances, state, tries, reason, results"
        with self._sqlite_errors():
            row = self._db.execute(f"SELECT {columns} FROM series WHERE {condition}", values).fetchone()
        if row is None:
            return None
        series_uid, study_uid, count, state, tries, reason, results = row
        return SeriesEntry(series_uid, study_uid, count, State(state), tries, reason, tuple((results or "").split()))

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()

    @contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            hint = _HINTS.get(code, "make room, restore it from a backup, or name another folder")
            raise OutputError(f"{self._path} cannot be used: {error}; {hint}") from None
