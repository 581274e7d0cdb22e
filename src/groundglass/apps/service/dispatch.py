"""The dispatcher: hands the queued jobs to the worker process one at a time, and deletes expired ones."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from groundglass.apps.service.jobs import JobStore, ScanJob
from groundglass.apps.service.metrics import ServiceMetrics
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.storage import ServiceStorage
from groundglass.errors import GroundglassError
from groundglass.workers import TimeLimitError, Worker, WorkerClosedError, WorkerDiedError

SWEEP_EVERY_S = 60.0
log = logging.getLogger("groundglass.apps.service")


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
        self._last_sweep = float("-inf")
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

    def wake(self) -> None:
        """Announce a new job in the queue."""
        self._wake.set()

    def remove(self, job_id: str) -> bool:
        """Delete a job and its files, and stop it if it runs; return whether it existed."""
        with self._lock:
            existed = self._jobs.remove(job_id)
            if self._current_id == job_id:
                self._worker.close()
                self._worker = self._new_worker()
            else:
                self._storage.remove(job_id)
        return existed

    def _new_worker(self) -> Worker[Path, JobResult]:
        return Worker(self._worker_factory, self._time_limit_s, self._threads)

    def _run(self) -> None:
        while not self._closed:
            try:
                idle = not self._process_next()
            except (sqlite3.Error, OSError) as error:  # such as a full disk: the queue continues when there is space
                log.error("the queue is paused: %s", type(error).__name__)
                idle = True
            if idle:
                self._wake.wait(SWEEP_EVERY_S)
                self._wake.clear()

    def _process_next(self) -> bool:
        """Process the first job of the queue; return whether there was one."""
        if time.monotonic() - self._last_sweep > SWEEP_EVERY_S:
            self._last_sweep = time.monotonic()
            for job_id in self._jobs.expired_ids():
                self.remove(job_id)
        with self._lock:
            job = None if self._closed else self._jobs.start_next()
            self._current_id, worker = (job.id if job else None), self._worker
        if job is None:
            return False
        self._process(job, worker)
        with self._lock:
            self._current_id = None
            if self._jobs.get(job.id) is None:  # it was deleted meanwhile
                self._storage.remove(job.id)
        return True

    def _process(self, job: ScanJob, worker: Worker[Path, JobResult]) -> None:
        started = time.monotonic()
        try:
            result = worker.run(self._storage.job_folder(job.id).path)
        except WorkerClosedError:
            return
        except TimeLimitError:
            self._jobs.fail(job.id, f"processing took more than {self._time_limit_s:g} s, the limit of this server")
        except WorkerDiedError as error:
            self._jobs.fail(job.id, f"the process died twice ({error}): out of memory, or a crash on this scan")
        except GroundglassError as error:
            self._jobs.fail(job.id, " ".join(str(error).split()))
        else:
            self._jobs.finish(job.id, result.summary, result.files)
        seconds = time.monotonic() - started
        ended = self._jobs.get(job.id)
        if ended is not None:
            self._metrics.record_job_end(ended.status, seconds)
            log.info("job %s %s after %.1f s", job.id, ended.status.value, seconds)
