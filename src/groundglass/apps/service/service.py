"""The state of a running server, which the routes use: the jobs, their files, the queue, and accepting uploads."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from anyio.to_thread import run_sync
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.dispatch import Dispatcher
from groundglass.apps.service.job_states import JobStatus, ScanJob
from groundglass.apps.service.jobs import JobStore, is_disk_full, is_locked, new_job_id, unusable
from groundglass.apps.service.metrics import ServiceMetrics
from groundglass.apps.service.processing import ServiceWorkerFactory
from groundglass.apps.service.storage import SPARE_BYTES, JobFolder, ServiceStorage
from groundglass.apps.service.upload import OVERHEAD_BYTES, Upload, UploadError
from groundglass.workers import available_cores

DISK_FULL = "the server's disk is full: delete jobs, or ask its administrator"
GONE = "the file is gone: the job was deleted, or it has expired"
# Part of a refused body that is still read: a browser that cannot finish sending never shows the answer.
DRAIN_BYTES, DRAIN_S = 64 << 20, 5.0


@dataclass
class Service:
    """The state of a running server.

    Attributes:
        config: The settings.
        storage: The folder with the files of the jobs.
        jobs: The jobs.
        metrics: Counters for Prometheus.
        dispatcher: Hands queued jobs to the worker process.
        incoming_ids: Ids of the uploads that are being received; each holds a slot of the queue.
        followers: Number of clients that receive the events of a job.
    """

    config: ServiceConfig
    storage: ServiceStorage
    jobs: JobStore
    metrics: ServiceMetrics
    dispatcher: Dispatcher
    incoming_ids: set[str] = field(default_factory=set)
    followers: int = 0
    _reservation: anyio.Lock = field(default_factory=anyio.Lock)

    @classmethod
    def open(cls, config: ServiceConfig) -> Service:
        """Open the folder, requeue interrupted jobs, and load the model.

        Raises:
            OutputError: The folder cannot be used.
            GroundglassError: The model cannot be loaded.
        """
        storage = ServiceStorage(config.folder)
        try:
            jobs = JobStore(storage.database, timedelta(hours=config.keep_hours))
        except BaseException:
            storage.close()
            raise
        metrics = ServiceMetrics()
        worker_factory = ServiceWorkerFactory(config.model, config.engine, config.max_slices)
        threads = config.engine.threads or available_cores()
        dispatcher = Dispatcher(jobs, storage, metrics, worker_factory, config.time_limit_s, threads)
        service = cls(config, storage, jobs, metrics, dispatcher)
        try:
            jobs.adopt(storage.scan_times())
            jobs.requeue_interrupted()
            storage.remove_orphans(jobs.ids())
            dispatcher.start()
        except sqlite3.Error as error:
            service.close()
            raise unusable(storage.database, error) from None
        except BaseException:
            service.close()
            raise
        return service

    def close(self) -> None:
        """Stop; unfinished jobs continue when the server is started again."""
        self.dispatcher.close()
        self.jobs.close()  # after the scan that is just being recorded, whose files are no longer in `incoming`
        self.storage.remove_uploads()
        self.storage.close()

    @property
    def free_slots(self) -> int:
        """Number of scans that the queue accepts at present."""
        return max(0, self.config.queue_size - self.jobs.count_queued() - len(self.incoming_ids))

    def get_job(self, job_id: str) -> ScanJob:
        """Return a job, with its progress if it runs.

        Raises:
            HTTPException: There is no such job.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise HTTPException(404, "no such job: it was deleted, or it has expired")
        return self.with_progress(job)

    def with_progress(self, job: ScanJob) -> ScanJob:
        """Return a job with its progress if it runs."""
        if job.status is not JobStatus.RUNNING:
            return job
        return job.model_copy(update={"progress": self.storage.job_folder(job.id).read_progress()})

    def get_finished_job(self, job_id: str) -> tuple[ScanJob, JobFolder]:
        """Return a job that is done, and its folder.

        Raises:
            HTTPException: There is no such job, or it is not done.
        """
        job = self.get_job(job_id)
        if job.status is not JobStatus.DONE:
            raise HTTPException(409, f"the job is {job.status}: {job.reason or 'wait until it is done'}")
        return job, self.storage.job_folder(job_id)

    @asynccontextmanager
    async def reserve_slot(self, request: Request, max_bytes: int) -> AsyncIterator[tuple[str, JobFolder]]:
        """Reserve a slot of the queue and a folder for an upload; both are released if the upload fails.

        Yields:
            The id of the new job and the folder to receive the upload in.

        Raises:
            HTTPException: The queue or the disk is full, or the upload was refused.
        """
        job_id = new_job_id()
        try:
            async with self._reservation:
                await run_sync(self._check_capacity, request, max_bytes)
                self.incoming_ids.add(job_id)
            yield job_id, self.storage.create_incoming(job_id)
        except (HTTPException, UploadError, OSError, sqlite3.Error) as error:
            await run_sync(self._discard, job_id)
            refusal = _refusal(error)
            self.metrics.record_refused(refusal.status_code)
            await _drain(request)
            raise refusal from None
        except ClientDisconnect:
            await run_sync(self.storage.remove, job_id)
            raise HTTPException(400, "the connection ended before the scan was complete") from None
        except Exception:  # but not the end of the server, at which it may just be recorded: see `close`
            await run_sync(self.storage.remove, job_id)
            raise
        finally:
            self.incoming_ids.discard(job_id)

    def _discard(self, job_id: str) -> None:
        """Remove what there is of an upload that was refused."""
        with suppress(sqlite3.Error):
            self.jobs.remove(job_id)
        self.storage.remove(job_id)

    def enqueue(self, job_id: str, upload: Upload, corrects: str | None = None) -> ScanJob:
        """Append a complete upload to the queue."""
        self.storage.accept(job_id)
        job = self.jobs.add(job_id, upload.label, corrects)
        self.storage.mark_recorded(job_id)
        self.metrics.record_received(upload.size_bytes)
        self.dispatcher.wake()
        return job

    def _check_capacity(self, request: Request, max_bytes: int) -> None:
        """Refuse an upload for which queue or disk have no space, or which is announced as too large.

        Raises:
            HTTPException: The upload is refused.
        """
        if not self.free_slots:
            wait_s = min(300, max(5, round(self.jobs.mean_seconds() or 30)))
            reason = f"the queue is full ({self.config.queue_size} scans): try again in {wait_s} s"
            raise HTTPException(429, reason, {"Retry-After": str(wait_s)})
        announced = int(request.headers.get("content-length", "0"))
        if announced > max_bytes + OVERHEAD_BYTES:
            raise HTTPException(413, f"{announced:,} bytes, expected at most {max_bytes:,}: the limit of this server")
        if self.storage.free_bytes() < announced + SPARE_BYTES:
            raise HTTPException(507, DISK_FULL)


async def _drain(request: Request) -> None:
    """Read and discard the rest of a refused body, up to `DRAIN_BYTES` and `DRAIN_S`."""
    size = 0
    with anyio.move_on_after(DRAIN_S):
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > DRAIN_BYTES:
                    return
        except (RuntimeError, ClientDisconnect):  # the body was read to its end, or the client has disconnected
            return


def database_refusal(error: Exception) -> HTTPException:
    """Return the answer to a request for which the database could not be read or written."""
    if isinstance(error, sqlite3.Error) and is_disk_full(error):
        return HTTPException(507, DISK_FULL)
    if isinstance(error, sqlite3.Error) and is_locked(error):
        return HTTPException(503, "the server's database is in use by another program: try again", {"Retry-After": "5"})
    return HTTPException(503, f"the server's database cannot be used ({error}): ask its administrator")


def _refusal(error: HTTPException | UploadError | OSError | sqlite3.Error) -> HTTPException:
    if isinstance(error, sqlite3.Error):
        return database_refusal(error)
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, UploadError):
        return HTTPException(error.status, error.reason)
    return HTTPException(507, f"the scan cannot be written: {error.strerror}")
