"""The loop of the watcher: look for what is new, and bring one series after another to its end.

A series goes waiting -> segmented -> done in the ledger, and what lies in the spool is used or thrown away by what the
ledger says. What fails is the series' fault or the server's: see `Watcher._do`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from groundglass.apps.pacs.access import DeniedError
from groundglass.apps.pacs.dicomweb import DicomWeb
from groundglass.apps.pacs.ledger import Ledger, SeriesEntry, State
from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, instance_uid, plain
from groundglass.apps.pacs.spool import Spool
from groundglass.errors import InputError, OutputError, PacsError
from groundglass.io.dicom_series import DAMAGE
from groundglass.workers import LostError, TimeLimitError, Worker

_LONGEST_PAUSE_S = 60.0  # between two tries to reach a server
_GROWTH = 5  # of the pause between two tries of a series

Say = Callable[[str], None]


class Source(Protocol):
    """Where news of series come from."""

    def look(self, ledger: Ledger) -> bool:
        """Note what is new; False: look again soon, some of it is not known to be whole.

        Raises:
            PacsError: The server does not play along.
        """


@dataclass(frozen=True)
class RetryPolicy:
    """How fast and how often.

    Attributes:
        poll_s: Between two looks for news, in seconds.
        time_limit_s: For a series in the worker.
        pause_s: Before a failed series' second try; five times as long before each further one.
        tries: Of a series, altogether.
    """

    poll_s: float = 10.0
    time_limit_s: float = 600.0
    pause_s: float = 60.0
    tries: int = 5


DEFAULT_RETRY_POLICY = RetryPolicy()


@dataclass
class WatchCounts:
    """What became of the series of a call: results stored, refused, failed tries."""

    stored: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def line(self) -> str:
        """In a few words."""
        return f"{self.stored} stored, {self.refused} refused, {self.failed} failed"


class Watcher:
    """The loop, and what it works with."""

    def __init__(
        self,
        source: Source,
        archive: DicomWeb,
        ledger: Ledger,
        spool: Spool,
        worker: Worker[SeriesTask, SegmentationResult],
        retry_policy: RetryPolicy,
        on_message: Say,
    ) -> None:
        self._source, self._archive, self._ledger, self._spool = source, archive, ledger, spool
        self._worker, self._pace, self._say = worker, retry_policy, on_message
        self._trouble = Backoff(on_message)
        self.counts = WatchCounts()

    def run(self, once: bool) -> None:
        """Look and do in turns; see `watch`."""
        self._spool.open(kept=self._ledger.with_results())
        next_look, met, is_all = 0.0, False, False
        while True:
            try:
                if not met:
                    self._archive.reach()
                if time.monotonic() >= next_look:
                    is_all = self._source.look(self._ledger)
                    next_look, met = time.monotonic() + self._pace.poll_s, True
                entry = self._ledger.due(time.time())
                if entry is not None:
                    self._do(entry)
            except (PacsError, OutputError) as error:
                if isinstance(error, DeniedError) and not met:
                    raise PacsError(
                        f"{error}; this was the first question: check the URL (Orthanc's root, with its DICOMweb "
                        "plugin at /dicom-web; another server's with --dicomweb), and the credentials"
                    ) from None
                if once:
                    raise
                self._trouble.wait(error)
                next_look = 0.0
                continue
            self._trouble.over()
            if entry is None:
                if once and is_all:
                    return
                self._sleep(next_look)

    def _sleep(self, next_look: float) -> None:
        """Until the next look, or until something is due."""
        due = self._ledger.next_due()
        pause_s = next_look - time.monotonic()
        time.sleep(max(0.0, pause_s if due is None else min(pause_s, due - time.time())))

    def _do(self, entry: SeriesEntry) -> None:
        """Bring a series to its end, or note why not.

        A series fails where the worker does, or where the server does with it alone while it answers otherwise. Where
        the server is gone or the disk full, no series fails.

        Raises:
            PacsError: The server fails altogether.
            OutputError: The spool cannot be written.
        """
        begun = time.monotonic()
        self._ledger.begin(entry)
        try:
            if entry.state is State.WAITING or not self._has_results(entry):
                self._segment(entry)
            self._store(entry)
        except InputError as error:
            self._ledger.refused(entry, plain(error))
            self.counts.refused += 1
            self._say(f"{entry.label}: refused: {plain(error)}")
        except TimeLimitError:
            self._failed(entry, f"took more than {self._pace.time_limit_s:g} s: give it more with --time-limit")
        except LostError as error:
            self._failed(entry, f"its process died twice ({error}): out of memory, or a crash on this series")
        except _FaultError as error:
            self._failed(entry, str(error))
        except (PacsError, OutputError) as error:
            if isinstance(error, OutputError) or not self._answers():
                self._ledger.postpone(entry, time.time())
                raise
            self._failed(entry, plain(error))
        else:
            self.counts.stored += 1
            self._say(f"{entry.label}: results stored, {time.monotonic() - begun:.1f} s")
        finally:
            after = self._ledger.get(entry.series_uid)
            self._spool.clear(entry.series_uid, after is not None and after.state is State.SEGMENTED)
            self._ledger.rest(entry)

    def _segment(self, entry: SeriesEntry) -> None:
        """Retrieve it, and have it segmented; the results lie in the spool then."""
        source, results = self._spool.source(entry.series_uid), self._spool.results(entry.series_uid)
        count = self._archive.retrieve(entry.study_uid, entry.series_uid, source)
        if count < entry.instances:
            raise PacsError(f"the server gave {count} of the series' {entry.instances} instances")
        self._say(f"{entry.label}: {count} instances retrieved")
        made = self._worker.ask(SeriesTask(entry.series_uid, source, results))
        if made.fault is not None:
            raise _FaultError(made.fault)
        self._ledger.segmented(entry, count, made.uids)

    def _store(self, entry: SeriesEntry) -> None:
        """Store what of the results is not in the PACS yet."""
        files = sorted(self._spool.results(entry.series_uid).iterdir())
        missing = [file for file in files if not self._archive.has(entry.study_uid, instance_uid(file))]
        if missing:
            self._archive.store(entry.study_uid, missing)
        self._ledger.done(entry)

    def _has_results(self, entry: SeriesEntry) -> bool:
        """Whether all that was made of it still lies in the spool."""
        folder = self._spool.results(entry.series_uid)
        try:
            return {instance_uid(file) for file in folder.iterdir()} == set(entry.results)
        except DAMAGE:  # no folder either
            return False

    def _failed(self, entry: SeriesEntry, reason: str) -> None:
        pause_s = self._pace.pause_s * _GROWTH**entry.tries
        last = entry.tries + 1 >= self._pace.tries
        self._ledger.failed(entry, reason, None if last else time.time() + pause_s)
        self.counts.failed += 1
        what = "left after" if last else f"again in {_duration(pause_s)}, after"
        self._say(f"{entry.label}: failed: {reason} ({what} try {entry.tries + 1} of {self._pace.tries})")

    def _answers(self) -> bool:
        try:
            self._archive.reach()
        except PacsError:
            return False
        return True


class Backoff:
    """A time in which nothing can be done, and its growing pauses."""

    def __init__(self, on_message: Say) -> None:
        self._say = on_message
        self._since: float | None = None
        self._said, self._pause_s = "", 1.0

    def wait(self, error: Exception) -> None:
        """Say what is wrong, once for each kind of it, and wait."""
        self._since = self._since or time.monotonic()
        if plain(error) != self._said:
            self._said = plain(error)
            self._say(f"waiting: {self._said}")
        time.sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)

    def over(self) -> None:
        """Say that it goes on, if it did not."""
        if self._since is not None:
            self._say(f"going on after {_duration(time.monotonic() - self._since)}")
        self._since, self._said, self._pause_s = None, "", 1.0


class _FaultError(Exception):
    """A series failed in the worker, and nobody foresaw how."""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
