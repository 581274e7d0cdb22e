"""What is remembered between two calls: how far the polling came, and what became of each series.

One SQLite file. Every step is a transaction of its own, so that a kill at any point loses at most the step.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError, OutputError

NAME = "watch.sqlite"
_VERSION = 1
_UID = re.compile(r"[0-9.]{1,64}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    series_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL,
    instances INTEGER NOT NULL,     -- how many it had when it was found
    stamp INTEGER NOT NULL,         -- of the news of it: see Arrival
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0,   -- seconds since 1970
    begun INTEGER NOT NULL DEFAULT 0,   -- how often without an end: the watcher was killed over it
    reason TEXT,                    -- of the last failure
    results TEXT,                   -- UIDs of what was made of it, with spaces between
    changed REAL NOT NULL           -- seconds since 1970
);
CREATE INDEX IF NOT EXISTS due ON series (state, next_try);
CREATE TABLE IF NOT EXISTS polling (server TEXT NOT NULL, bookmark INTEGER NOT NULL);
"""


class State(StrEnum):
    """Where a series stands."""

    WAITING = "waiting"  # to be retrieved and segmented, for the first time or again
    SEGMENTED = "segmented"  # its results lie in the spool, to be stored
    DONE = "done"  # its results are in the PACS
    REFUSED = "refused"  # for what it is; tried again when it changes
    LEFT = "left"  # given up after the last try; tried again when it changes


@dataclass(frozen=True)
class Arrival:
    """News of a series: it is whole, as far as the server can tell.

    Attributes:
        series_uid: Its UID.
        study_uid: Its study's.
        instances: How many it has.
        stamp: Another one than before is news of a series that failed, even with as many instances.
    """

    series_uid: str
    study_uid: str
    instances: int
    stamp: int


@dataclass(frozen=True)
class SeriesEntry:
    """What is remembered of a series."""

    series_uid: str
    study_uid: str
    instances: int
    state: State
    tries: int
    reason: str | None
    results: tuple[str, ...]

    @property
    def label(self) -> str:
        """How it is called in messages: by its UID's end."""
        return short(self.series_uid)


def short(uid: str) -> str:
    """A UID's end: enough to find it by, and no name."""
    tail = "".join(c if c.isprintable() else "?" for c in uid[-12:])
    return f"…{tail}" if len(uid) > 12 else tail


class Ledger:
    """The file, open. Only one process may have it open: see `spool.lock`."""

    def __init__(self, folder: Path) -> None:
        """Open it, or begin it.

        Raises:
            ConfigError: Another version of groundglass made it.
            OutputError: It cannot be written, or is damaged.
        """
        self._path = folder / NAME
        with self._ledger_errors():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(self._path, timeout=30)
            version = self._one("PRAGMA user_version")[0]
            if version not in (0, _VERSION):
                self._db.close()
                raise ConfigError(
                    f"{self._path} is of version {version}, expected {_VERSION}: another groundglass made it; "
                    "name another folder"
                )
            self._db.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def belong(self, server: str) -> None:
        """Tie it to a server, by its URL and kind.

        Raises:
            ConfigError: It belongs to another one.
        """
        with self._ledger_errors(), self._db:
            known = self._db.execute("SELECT server FROM polling").fetchone()
            if known is None:
                self._db.execute("INSERT INTO polling VALUES (?, 0)", (server,))
            elif known[0] != server:
                raise ConfigError(
                    f"{self._path.parent} remembers {known[0]}, expected {server}: name a folder for each server"
                )

    @property
    def bookmark(self) -> int:
        """How far the news have been read; 0: nothing yet."""
        with self._ledger_errors():
            return int(self._one("SELECT bookmark FROM polling")[0])

    def take(self, arrivals: Sequence[Arrival], bookmark: int) -> None:
        """Note news, and that they have been read, at one stroke. What is known already changes nothing.

        A series is done anew when it has more instances than before, and one that failed when anything is new of it.
        """
        now = time.time()
        with self._ledger_errors(), self._db:
            self._db.executemany(
                "INSERT INTO series (series_uid, study_uid, instances, stamp, state, reason, changed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series_uid) DO UPDATE SET study_uid = excluded.study_uid,"
                " instances = excluded.instances, stamp = excluded.stamp, state = excluded.state, tries = 0,"
                " next_try = 0, reason = excluded.reason, changed = excluded.changed"
                " WHERE excluded.instances > series.instances"
                " OR (excluded.stamp <> series.stamp AND series.state IN ('waiting', 'refused', 'left'))",
                [(*_values(each), *_first_state(each), now) for each in arrivals],
            )
            self._db.execute("UPDATE polling SET bookmark = ?", (bookmark,))

    def get(self, series_uid: str) -> SeriesEntry | None:
        """What is remembered of a series."""
        return self._row("series_uid = ?", series_uid)

    def due(self, now: float) -> SeriesEntry | None:
        """The series that is to be done next; None: nothing is due.

        One that was begun and never ended comes last: the watcher may have died of it, and others should not wait.
        """
        return self._row(
            "state IN ('waiting', 'segmented') AND next_try <= ? ORDER BY begun, next_try, rowid LIMIT 1", now
        )

    def next_due(self) -> float | None:
        """When something will be due, in seconds since 1970; None: nothing waits."""
        with self._ledger_errors():
            found = self._one("SELECT min(next_try) FROM series WHERE state IN ('waiting', 'segmented')")[0]
        return None if found is None else float(found)

    def with_results(self) -> list[str]:
        """UIDs of the series whose results lie in the spool."""
        with self._ledger_errors():
            return [uid for (uid,) in self._db.execute("SELECT series_uid FROM series WHERE state = 'segmented'")]

    def counts(self) -> dict[str, int]:
        """How many series are in each state."""
        with self._ledger_errors():
            return dict(self._db.execute("SELECT state, count(*) FROM series GROUP BY state ORDER BY state"))

    def begin(self, entry: SeriesEntry) -> None:
        """Note that it is worked on."""
        with self._ledger_errors(), self._db:
            self._db.execute("UPDATE series SET begun = begun + 1 WHERE series_uid = ?", (entry.series_uid,))

    def rest(self, entry: SeriesEntry) -> None:
        """Note that it is not worked on any more, whatever the end."""
        self._set(entry, begun=0)

    def segmented(self, entry: SeriesEntry, instances: int, results: Sequence[str]) -> None:
        """Note that its results lie in the spool, and of how many instances they are."""
        self._set(entry, state=State.SEGMENTED, instances=instances, results=" ".join(results))

    def done(self, entry: SeriesEntry) -> None:
        """Note that its results are in the PACS."""
        self._set(entry, state=State.DONE, reason=None)

    def refused(self, entry: SeriesEntry, reason: str) -> None:
        """Note why it is not taken."""
        self._set(entry, state=State.REFUSED, reason=reason)

    def failed(self, entry: SeriesEntry, reason: str, next_try: float | None) -> None:
        """Note why it failed, and when it is to be tried again, in seconds since 1970; None: never."""
        left = {"state": State.LEFT} if next_try is None else {}
        self._set(entry, tries=entry.tries + 1, next_try=next_try or 0.0, reason=reason, **left)

    def postpone(self, entry: SeriesEntry, next_try: float) -> None:
        """Let others go first, without a word about why."""
        self._set(entry, next_try=next_try)

    def again(self) -> int:
        """Have everything tried again that was refused or left; how many that is."""
        with self._ledger_errors(), self._db:
            return self._db.execute(
                "UPDATE series SET state = 'waiting', tries = 0, next_try = 0 WHERE state IN ('refused', 'left')"
            ).rowcount

    def _set(self, entry: SeriesEntry, **values: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._ledger_errors(), self._db:
            self._db.execute(
                f"UPDATE series SET {columns}, changed = ? WHERE series_uid = ?",
                (*values.values(), time.time(), entry.series_uid),
            )

    def _row(self, where: str, value: object) -> SeriesEntry | None:
        columns = "series_uid, study_uid, instances, state, tries, reason, results"
        with self._ledger_errors():
            found = self._db.execute(f"SELECT {columns} FROM series WHERE {where}", (value,)).fetchone()
        if found is None:
            return None
        series, study, instances, state, tries, reason, results = found
        return SeriesEntry(series, study, instances, State(state), tries, reason, tuple((results or "").split()))

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()

    @contextmanager
    def _ledger_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise OutputError(f"{self._path} cannot be used: {why}; make room, or name another folder") from None


def _values(arrival: Arrival) -> tuple[str, str, int, int]:
    return arrival.series_uid, arrival.study_uid, arrival.instances, arrival.stamp


def _first_state(arrival: Arrival) -> tuple[State, str | None]:
    """What is no UID never gets into a URL: it may be anything that somebody sent to the PACS."""
    if _UID.fullmatch(arrival.series_uid) and _UID.fullmatch(arrival.study_uid):
        return State.WAITING, None
    return State.REFUSED, "its UIDs, or its study's, are none, expected digits and dots: send it with proper ones"
