"""The loop of the watcher: look for new series, and process one after another.

A series goes from waiting to segmented to done in the ledger, which decides whether its files in the spool are used or
removed. `Watcher._process` decides whether a failure is that of the series or that of the server or disk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from groundglass.apps.pacs.access import BusyError, DeniedError
from groundglass.apps.pacs.backoff import Backoff, format_duration
from groundglass.apps.pacs.dicomweb import DicomWebArchive
from groundglass.apps.pacs.ledger import Ledger, SeriesEntry, State
from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, read_instance_uid, short_message
from groundglass.apps.pacs.retrieval import RETRIEVAL_S, RetrievalTask
from groundglass.apps.pacs.spool import Spool
from groundglass.errors import EngineError, FormatError, InputError, ModelError, OutputError, PacsError
from groundglass.io.dicom_header import DICOM_ERRORS
from groundglass.io.dicom_legal import is_uid
from groundglass.workers import MemoryLimitError, TimeLimitError, Worker, WorkerDiedError, WorkerStartError

_PAUSE_GROWTH = 5  # factor between the pauses before two tries of a series
_SAFE_UID = re.compile(r"(?!\.+$)[0-9.]{1,64}")  # nothing that changes a URL
_GONE = "it is no longer in the PACS"
_UID_RULE = "numbers with dots between them, at most 64 characters"
_FIRST_REQUEST_HINT = (
    "this was the first request: check the URL (the root of an Orthanc with its DICOMweb plugin at /dicom-web; another "
    "server with --dicomweb) and the credentials"
)


class SeriesSource(Protocol):
    """Finds new series."""

    def poll(self, ledger: Ledger) -> bool:
        """Add the series that are new and complete to the ledger.

        Returns:
            False if some series are not known to be complete: poll again soon.

        Raises:
            PacsError: The server fails or refuses.
        """


@dataclass(frozen=True)
class RetryPolicy:
    """Time limits, pauses and number of tries.

    Attributes:
        poll_s: Time between two polls, in seconds.
        time_limit_s: Time limit for a series in the worker, in seconds.
        pause_s: Pause before the second try of a failed series, in seconds; it grows fivefold with each further try.
        max_tries: Number of failed tries after which a series is given up.
    """

    poll_s: float = 10.0
    time_limit_s: float = 600.0
    pause_s: float = 60.0
    max_tries: int = 5

    @property
    def longest_pause_s(self) -> float:
        """The pause before the last try, in seconds."""
        return self.pause_s * float(_PAUSE_GROWTH ** max(0, self.max_tries - 2))


DEFAULT_RETRY_POLICY = RetryPolicy()


@dataclass
class WatchCounts:
    """How the series of a call ended.

    Attributes:
        stored: Number of series whose results were stored.
        refused: Number of series that were refused.
        failed: Number of failed tries.
    """

    stored: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def line(self) -> str:
        """The counts on one line."""
        return f"{self.stored} stored, {self.refused} refused, {self.failed} failed"


class Watcher:
    """The loop of the watcher.

    Args of the constructor:
        source: Finds new series.
        archive: Server to store results to.
        ledger: State of every series.
        spool: Folder of the series that is processed.
        retriever: Process that retrieves a series, and returns the number of its instances.
        worker: Process that segments a series.
        retry_policy: Time limits, pauses and number of tries.
        on_message: Called with a line for each event.
    """

    def __init__(
        self,
        source: SeriesSource,
        archive: DicomWebArchive,
        ledger: Ledger,
        spool: Spool,
        retriever: Worker[RetrievalTask, int],
        worker: Worker[SeriesTask, SegmentationResult],
        retry_policy: RetryPolicy,
        on_message: Callable[[str], None],
    ) -> None:
        self._source, self._archive, self._ledger, self._spool = source, archive, ledger, spool
        self._retriever, self._worker = retriever, worker
        self._retry_policy, self._on_message = retry_policy, on_message
        self._backoff = Backoff(on_message)
        self._next_poll = 0.0  # by `time.monotonic`
        self._is_connected = False  # whether a poll has succeeded
        self._is_complete = False  # whether the last poll found no series that may still grow
        self._poll_failure: PacsError | None = None  # why the last poll failed; None if it did not
        self.counts = WatchCounts()

    def run(self, once: bool) -> None:
        """Poll and process until interrupted or, with `once`, until nothing is due; errors are those of `watch`."""
        self._spool.open(keep=self._ledger.series_with_results())
        while True:
            try:
                self._poll_if_due()
                entry = self._ledger.next_entry(time.time(), self._retry_policy.longest_pause_s)
                if entry is not None:
                    self._process(entry)
                elif self._poll_failure is not None:
                    raise self._poll_failure
            except (PacsError, OutputError, WorkerStartError) as error:
                if isinstance(error, DeniedError) and not self._is_connected:
                    raise PacsError(f"{error}; {_FIRST_REQUEST_HINT}") from None
                if once:
                    raise
                self._backoff.wait(error)
                self._next_poll = 0.0
                continue
            self._backoff.reset()
            if entry is None:
                if once and self._is_complete:
                    return
                self._sleep()

    def _poll_if_due(self) -> None:
        """Poll. If that fails while the server answers other requests, what is known can be processed first.

        Raises:
            PacsError: The server does not answer, or refuses the first poll.
        """
        if not self._is_connected:
            self._archive.check_connection()
        if time.monotonic() >= self._next_poll:
            try:
                self._is_complete = self._source.poll(self._ledger)
            except PacsError as error:
                is_refused = isinstance(error, DeniedError) and not self._is_connected
                if is_refused or not self._server_answers():
                    raise
                self._poll_failure = error
            else:
                self._is_connected, self._poll_failure = True, None
            self._next_poll = time.monotonic() + self._retry_policy.poll_s

    def _sleep(self) -> None:
        """Sleep until the next poll, or until a series is due."""
        due = self._ledger.next_due_time()
        pause_s = self._next_poll - time.monotonic()
        time.sleep(max(0.0, pause_s if due is None else min(pause_s, due - time.time())))

    def _process(self, entry: SeriesEntry) -> None:
        """Segment a series and store its results, or note why not.

        A try fails if the worker fails, or if the server fails with this series but answers other requests. If the
        server does not answer at all, or the disk is full, the series is only postponed. A series that is no longer in
        the PACS is given up.

        Raises:
            PacsError: The server does not answer at all.
            OutputError: The spool cannot be written.
            WorkerStartError: No process can be started.
        """
        begun = time.monotonic()
        self._ledger.mark_begun(entry)
        try:
            _check_uids(entry)
            if entry.state is State.WAITING and entry.result_uids and self._are_stored(entry):
                self._ledger.mark_done(entry)
                return
            if entry.state is State.WAITING or not self._has_results(entry):
                self._segment(entry)
            self._store(entry)
        except InputError as error:
            self._ledger.mark_refused(entry, short_message(error))
            self.counts.refused += 1
            self._on_message(f"{entry.label}: refused: {short_message(error)}")
        except _WorkerFailureError as error:
            self._note_failure(entry, str(error))
        except OutputError as error:
            self._clear_spool(entry)
            if not self._spool.has_room:
                self._ledger.postpone(entry, time.time())
                raise
            self._note_failure(entry, short_message(error))  # it is too large for the disk: the others go on
        except WorkerStartError:
            self._ledger.postpone(entry, time.time())
            raise
        except PacsError as error:
            if not self._server_answers():
                self._ledger.postpone(entry, time.time())
                raise
            if self._is_gone(entry):
                self._ledger.mark_gone(entry, _GONE)
                self._on_message(f"{entry.label}: {_GONE}")
            else:
                self._note_failure(entry, short_message(error), is_busy=isinstance(error, BusyError))
        else:
            self.counts.stored += 1
            self._on_message(f"{entry.label}: results stored, {time.monotonic() - begun:.1f} s")
        finally:
            self._clear_spool(entry)
            self._ledger.clear_begun(entry)

    def _clear_spool(self, entry: SeriesEntry) -> None:
        """Remove what the spool holds of a series, but results that are still to be stored."""
        now = self._ledger.get(entry.series_uid)
        self._spool.clear(entry.series_uid, keep_results=now is not None and now.state is State.SEGMENTED)

    def _segment(self, entry: SeriesEntry) -> None:
        """Retrieve a series, and have it segmented; its results lie in the spool then."""
        source, results = self._spool.create_source(entry.series_uid), self._spool.results(entry.series_uid)
        with _failures_of("its retrieval", RETRIEVAL_S):
            count = self._retriever.run(RetrievalTask(entry.study_uid, entry.series_uid, source))
        if count < entry.instance_count and count != self._archive.count_instances(entry.series_uid):
            raise PacsError(f"the server gave {count} of the series' {entry.instance_count} instances")
        self._on_message(f"{entry.label}: {count} instances retrieved")
        with _failures_of("its segmentation", self._retry_policy.time_limit_s, hint=": give it more with --time-limit"):
            result = self._worker.run(SeriesTask(entry.study_uid, entry.series_uid, source, results))
        if result.internal_error is not None:
            raise _WorkerFailureError(result.internal_error)
        if result.name:
            self._on_message(f"{entry.label}: series {result.name} segmented")
        for note in result.notes:
            self._on_message(f"{entry.label}: {note}")
        self._ledger.mark_segmented(entry, count, result.uids)

    def _store(self, entry: SeriesEntry) -> None:
        """Store the results that are not in the PACS yet."""
        files = sorted(self._spool.results(entry.series_uid).iterdir())
        missing = [file for file in files if not self._archive.has_instance(entry.study_uid, read_instance_uid(file))]
        if missing:
            if self._is_gone(entry):  # a study that was deleted would be created anew, of results alone
                raise PacsError(_GONE)
            self._archive.store(entry.study_uid, missing)
        self._ledger.mark_done(entry)

    def _are_stored(self, entry: SeriesEntry) -> bool:
        """Return whether all results of a series that arrived once more are still in the PACS."""
        is_stored = all(self._archive.has_instance(entry.study_uid, uid) for uid in entry.result_uids)
        if not is_stored:
            self._on_message(f"{entry.label}: its results are not in the PACS, and are made again")
        return is_stored

    def _has_results(self, entry: SeriesEntry) -> bool:
        """Return whether all results of the series still lie in the spool."""
        folder = self._spool.results(entry.series_uid)
        try:
            return {read_instance_uid(file) for file in folder.iterdir()} == set(entry.result_uids)
        except DICOM_ERRORS:  # this includes a missing folder
            return False

    def _is_gone(self, entry: SeriesEntry) -> bool:
        """Return whether the server finds the series no longer; if it does not say, it counts as there."""
        try:
            return self._archive.count_instances(entry.series_uid) is None
        except PacsError:
            return False

    def _note_failure(self, entry: SeriesEntry, reason: str, is_busy: bool = False) -> None:
        """Note a failed try, after the last of which the series is given up; a busy server is asked again for ever."""
        max_tries = self._retry_policy.max_tries
        if is_busy:
            entry = replace(entry, tries=min(entry.tries, max(0, max_tries - 2)))
        pause_s = self._retry_policy.pause_s * _PAUSE_GROWTH**entry.tries
        number = entry.tries + 1
        is_last = number >= max_tries and not is_busy
        self._ledger.mark_failed(entry, reason, None if is_last else time.time() + pause_s)
        self.counts.failed += 1
        outcome = "given up after" if is_last else f"again in {format_duration(pause_s)}, after"
        self._on_message(f"{entry.label}: failed: {reason} ({outcome} try {number} of {max_tries})")

    def _server_answers(self) -> bool:
        try:
            self._archive.check_connection()
        except PacsError:
            return False
        return True


def _check_uids(entry: SeriesEntry) -> None:
    """Check the UIDs of a series before a request is made with them.

    Raises:
        FormatError: They cannot be put into a URL, or no result can be stored into the study.
    """
    if not _SAFE_UID.fullmatch(entry.series_uid):
        raise FormatError(f"its SeriesInstanceUID is no UID, expected {_UID_RULE}: give it another in the PACS")
    if not is_uid(entry.study_uid):
        raise FormatError(
            f"its StudyInstanceUID is no UID, expected {_UID_RULE}; no result can be stored into such a study: give "
            "the study another in the PACS"
        )


@contextmanager
def _failures_of(step: str, limit_s: float, hint: str = "") -> Iterator[None]:
    """Turn the end of a worker inside `with` into a `_WorkerFailureError`.

    Args:
        step: What the worker did, for the message.
        limit_s: Its time limit in seconds.
        hint: What to do about the limit.
    """
    try:
        yield
    except TimeLimitError:
        raise _WorkerFailureError(f"{step} took more than {limit_s:g} s{hint}") from None
    except (MemoryLimitError, ModelError, EngineError) as error:
        raise _WorkerFailureError(f"{step}: {error}") from None
    except WorkerDiedError as error:
        raise _WorkerFailureError(
            f"{step}: its process died twice ({error}): out of memory, or a crash on this series"
        ) from None


class _WorkerFailureError(Exception):
    """The worker could not segment a series; the message says why."""
