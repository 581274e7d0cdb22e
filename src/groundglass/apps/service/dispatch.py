"""The dispatcher: hands the queued jobs to the worker process one at a time, and deletes expired ones."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.service.clock import steady_s
from groundglass.apps.service.job_states import ScanJob
from groundglass.apps.service.jobs import JobStore, is_disk_full
from groundglass.apps.service.metrics import ServiceMetrics
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.storage import ServiceStorage
from groundglass.errors import GroundglassError, OutputError, origin
from groundglass.workers import TimeLimitError, Worker, WorkerClosedError, WorkerDiedError, WorkerStartError

SWEEP_EVERY_S = 60.0
MAX_UNWRITTEN = 3  # times that results could not be written although there is room, after which their job fails
RETRY_EVERY_S = 5.0  # while the disk is full, the database is locked, or no process can be started
log = logging.getLogger("groundglass.apps.service")


@dataclass(frozen=True)
class JobEnd:
    """How the processing of a job ended; kept until it is recorded.

    Attributes:
        job_id: Id of the job.
        seconds: Time that it took.
        result: Its result; None if there is none.
        reason: Why it failed; empty if it did not.
        obstacle: What kept it from being processed, for which the scan is not to blame; None if it was.
    """

    job_id: str
    seconds: float
    result: JobResult | None = None
    reason: str = ""
    obstacle: Exception | None = None


class Dispatcher:
    """Processes the jobs of a queue in a thread of its own, with a worker process that may be killed at any time.

    Args of the constructor:
        jobs: The queue.
        storage: The folder that holds the files of the jobs.
        metrics: Counters to update.
        worker_factory: Called in the worker process; loads the model and returns the function that processes a job.
        time_limit_s: Longest processing time of a job, in seconds.
        threads: Threads that the worker process may compute with.
    """

    def __init__(
        self,
        jobs: JobStore,
        storage: ServiceStorage,
        metrics: ServiceMetrics,
        worker_factory: Callable[[], Callable[[Path], JobResult]],
        time_limit_s: float,
        threads: int,
    ) -> None:
        self._jobs, self._storage, self._metrics = jobs, storage, metrics
        self._worker_factory, self._time_limit_s, self._threads = worker_factory, time_limit_s, threads
        self._worker = self._new_worker()
        self._wake, self._closed = threading.Event(), False
        self._current_id: str | None = None
        self._lock = threading.Lock()  # guards _current_id, _worker and _closed
        self._unrecorded: JobEnd | None = None  # the end of the current job, until it is in the database
        self._trouble = ""
        self._unwritten: tuple[str, int] = "", 0  # a job, and how often its results could not be written
        self._last_passed: float | None = None  # when time passed last for what is kept, by `steady_s`
        self._thread = threading.Thread(target=self._run, name="dispatcher")

    def start(self) -> None:
        """Load the model, then start with the queue.

        Raises:
            GroundglassError: The model cannot be loaded.
        """
        self._worker.start()
        self._thread.start()

    def close(self) -> None:
        """Stop; a job that is interrupted starts again with the next server."""
        with self._lock:
            self._closed, worker = True, self._worker
        self._wake.set()
        worker.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def trouble(self) -> str:
        """Why no job can be processed or recorded at present; empty if all is well."""
        return self._trouble

    def wake(self) -> None:
        """Announce a new job in the queue."""
        self._wake.set()

    def remove(self, job_id: str) -> bool:
        """Delete a job and its files, and stop it if it runs; return whether it existed.

        On a full disk the files go first, which makes the room that SQLite needs to delete the record.

        Raises:
            sqlite3.Error: The database cannot be written; the job is still in it.
        """
        self._storage.mark_unrecorded(job_id)
        try:
            existed = self._jobs.remove(job_id)
        except sqlite3.Error as error:
            if not is_disk_full(error) or self._jobs.get(job_id) is None:
                self._storage.mark_recorded(job_id)
                raise
            self._remove_files(job_id)
            return self._jobs.remove(job_id)
        self._remove_files(job_id)
        return existed

    def _remove_files(self, job_id: str) -> None:
        """Remove the files of a job; if it runs, its worker is ended before."""
        with self._lock:
            if self._current_id == job_id:
                self._worker.close()
                self._worker = self._new_worker()
                self.wake()
        self._storage.remove(job_id)

    def _new_worker(self) -> Worker[Path, JobResult]:
        return Worker(self._worker_factory, self._time_limit_s, self._threads)

    def _run(self) -> None:
        while not self._closed:
            try:
                idle = not self._process_next()
                self._trouble = ""
            except Exception as error:  # whatever it is, the queue goes on: a full disk, a locked database, a bug
                reason = f"the queue is paused: {origin(error)}"
                if reason != self._trouble:  # said once, not every few seconds
                    log.error("%s", reason)
                self._trouble, idle = reason, True
            if idle:
                self._wake.wait(RETRY_EVERY_S if self._trouble else SWEEP_EVERY_S)
                self._wake.clear()

    def _process_next(self) -> bool:
        """Process the first job of the queue; return whether there was one.

        Raises:
            Exception: The job, or its end, could not be recorded. Its end is tried again at the next call; a job
                without an end goes back into the queue.
        """
        end = self._unrecorded or self._process_first()
        if end is None:
            return False
        self._unrecorded = end
        self._record(end)
        self._forget_current()
        self._unrecorded = None
        if end.obstacle is not None:
            raise end.obstacle
        return True

    def _process_first(self) -> JobEnd | None:
        """Process the first job of the queue and return how it ended; None if there was none, or it was deleted."""
        if self._trouble:  # a job may have been taken without its end being known
            self._forget_current()
            self._jobs.requeue_unprocessed()
        self._sweep()
        with self._lock:
            job = None if self._closed else self._jobs.start_next()
            self._current_id, worker = (job.id if job else None), self._worker
        end = self._process(job, worker) if job else None
        if end is None:
            self._forget_current()
            if job:  # it was deleted, unless the database would not forget it, or the server ends in order
                self._jobs.requeue_unprocessed()
        return end

    def _sweep(self) -> None:
        """Delete the expired jobs from time to time."""
        passed_s, unwritten_s = self._passed_s(), 0.0
        if passed_s is None or passed_s > SWEEP_EVERY_S:
            try:
                self._pass_time()
            except sqlite3.Error as error:
                if not is_disk_full(error):  # a full disk keeps no expired job from being deleted
                    raise
                unwritten_s = passed_s or 0.0
            for job_id in self._jobs.expired_ids(unwritten_s):
                self.remove(job_id)

    def _passed_s(self) -> float | None:
        """Return the seconds since time passed last for the results that are kept; None if it has not yet."""
        return None if self._last_passed is None else steady_s() - self._last_passed

    def _pass_time(self) -> None:
        """Let time pass for the results that are kept until now."""
        now = steady_s()
        self._jobs.pass_time(self._passed_s())
        self._last_passed = now

    def _process(self, job: ScanJob, worker: Worker[Path, JobResult]) -> JobEnd | None:
        """Process a job and return how it ended; None if the worker was closed meanwhile."""
        started = time.monotonic()

        def end(reason: str = "", result: JobResult | None = None, obstacle: Exception | None = None) -> JobEnd:
            return JobEnd(job.id, time.monotonic() - started, result, reason, obstacle)

        try:
            return end(result=worker.run(self._storage.job_folder(job.id).path))
        except WorkerClosedError:
            return None
        except TimeLimitError:
            return end(f"processing took more than {self._time_limit_s:g} s, the limit of this server")
        except WorkerDiedError as error:
            return end(f"the process died twice ({error}): out of memory, or a crash on this scan")
        except OutputError as error:
            return end(obstacle=error) if self._may_be_written(job.id) else end(" ".join(str(error).split()))
        except (OSError, WorkerStartError) as error:
            return end(obstacle=error)
        except GroundglassError as error:
            return end(" ".join(str(error).split()))
        except Exception as error:
            return end(f"{origin(error)} (a fault of groundglass)")

    def _may_be_written(self, job_id: str) -> bool:
        """Return whether results that could not be written may be another time: the disk is full, or was a moment ago.

        Those of a scan that is too large for the disk would keep all others waiting.
        """
        if not self._storage.has_room:
            return True
        before = self._unwritten[1] if self._unwritten[0] == job_id else 0
        self._unwritten = job_id, before + 1
        return before + 1 < MAX_UNWRITTEN

    def _record(self, end: JobEnd) -> None:
        """Write the end of a job into the database.

        Raises:
            sqlite3.Error: The database is locked, or the disk is full.
        """
        if end.obstacle is not None:
            self._jobs.requeue_unprocessed()
            return
        self._pass_time()  # for the others: what ends now is kept from now on
        if end.result is not None:
            self._jobs.finish(end.job_id, end.result.summary, end.result.files)
        else:
            self._jobs.fail(end.job_id, end.reason)
        ended = self._jobs.get(end.job_id)
        if ended is not None:
            self._metrics.record_job_end(ended.status, end.seconds)
            log.info("job %s %s after %.1f s", ended.id, ended.status.value, end.seconds)

    def _forget_current(self) -> None:
        """Note that no job runs, and remove the files of the last one if it was deleted meanwhile."""
        with self._lock:
            if self._current_id is not None and self._jobs.get(self._current_id) is None:
                self._storage.remove(self._current_id)
            self._current_id = None
