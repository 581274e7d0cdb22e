"""From the queue to the worker, one job at a time; and results away when their time is over."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from groundglass.apps.service.jobs import Jobs, ScanJob
from groundglass.apps.service.metrics import Metrics
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.storage import ServiceStorage
from groundglass.errors import GroundglassError
from groundglass.workers import ClosedError, LostError, TimeLimitError, Worker

SWEEP_EVERY_S = 60.0
log = logging.getLogger("groundglass.apps.service")


class Dispatcher:
    """Does the jobs of a queue, in a thread of its own and a process that may die.

    Args of the constructor:
        jobs: The queue.
        place: Where their files are.
        metrics: What is counted.
        opener: For the worker: loads the model.
        time_limit_s: For a job.
        threads: That the worker may compute with.
    """

    def __init__(
        self,
        jobs: Jobs,
        place: ServiceStorage,
        metrics: Metrics,
        opener: Callable[[], Callable[[Path], JobResult]],
        time_limit_s: float,
        threads: int,
    ) -> None:
        self._jobs, self._place, self._metrics = jobs, place, metrics
        self._opener, self._time_limit_s, self._threads = opener, time_limit_s, threads
        self._worker = self._new_worker()
        self._wake, self._closed = threading.Event(), False
        self._current: str | None = None
        self._changing = threading.Lock()
        self._swept = float("-inf")
        self._thread = threading.Thread(target=self._run, name="dispatcher")

    def start(self) -> None:
        """Load the model, then begin with the queue.

        Raises:
            GroundglassError: The model cannot be loaded.
        """
        self._worker.warm()
        self._thread.start()

    def close(self) -> None:
        """End, whatever is being done: it is begun anew when the server is."""
        with self._changing:
            self._closed, worker = True, self._worker
        self._wake.set()
        worker.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the queue goes on."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """There is something in the queue."""
        self._wake.set()

    def remove(self, job_id: str) -> bool:
        """Forget a job and all that there is of it; stop it if it runs. Whether there was one."""
        with self._changing:
            existed = self._jobs.remove(job_id)
            if self._current == job_id:
                self._worker.close()
                self._worker = self._new_worker()
            else:
                self._place.drop(job_id)
        return existed

    def _new_worker(self) -> Worker[Path, JobResult]:
        return Worker(self._opener, self._time_limit_s, self._threads)

    def _run(self) -> None:
        while not self._closed:
            try:
                idle = not self._next()
            except (sqlite3.Error, OSError) as error:  # a full disk, say: what waits goes on when there is room again
                log.error("the queue stands still: %s", type(error).__name__)
                idle = True
            if idle:
                self._wake.wait(SWEEP_EVERY_S)
                self._wake.clear()

    def _next(self) -> bool:
        """Do the first of the queue; whether there was one."""
        if time.monotonic() - self._swept > SWEEP_EVERY_S:
            self._swept = time.monotonic()
            for job_id in self._jobs.expired():
                self.remove(job_id)
        with self._changing:
            job = None if self._closed else self._jobs.take()
            self._current, worker = (job.id if job else None), self._worker
        if job is None:
            return False
        self._do(job, worker)
        with self._changing:
            self._current = None
            if self._jobs.get(job.id) is None:  # it was deleted meanwhile
                self._place.drop(job.id)
        return True

    def _do(self, job: ScanJob, worker: Worker[Path, JobResult]) -> None:
        begun = time.monotonic()
        try:
            outcome = worker.ask(self._place.scan(job.id).path)
        except ClosedError:
            return
        except TimeLimitError:
            self._jobs.fail(job.id, f"it took more than {self._time_limit_s:g} s, which is the limit of this server")
        except LostError as error:
            self._jobs.fail(job.id, f"its process died twice ({error}): out of memory, or a crash on this scan")
        except GroundglassError as error:
            self._jobs.fail(job.id, " ".join(str(error).split()))
        else:
            self._jobs.finish(job.id, outcome.summary, outcome.files)
        seconds = time.monotonic() - begun
        ended = self._jobs.get(job.id)
        if ended is not None:
            self._metrics.ended(ended.status, seconds)
            log.info("job %s %s after %.1f s", job.id, ended.status.value, seconds)
