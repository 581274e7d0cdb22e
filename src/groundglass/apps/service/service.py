"""What the routes work with: jobs, their files, the queue; and the way in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import anyio
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.dispatch import Dispatcher
from groundglass.apps.service.jobs import Jobs, JobStatus, ScanJob, new_id
from groundglass.apps.service.metrics import Metrics
from groundglass.apps.service.processing import ServiceWorkerFactory
from groundglass.apps.service.storage import ScanFolder, ServiceStorage
from groundglass.apps.service.upload import Upload, UploadError
from groundglass.workers import cores

SPARE_BYTES = 1 << 30  # of the disk, left to the results
DRAIN_BYTES, DRAIN_S = 64 << 20, 5.0  # of a refused body: a browser that may not send it on would not hear why


@dataclass
class Service:
    """What the routes work with."""

    config: ServiceConfig
    place: ServiceStorage
    jobs: Jobs
    metrics: Metrics
    dispatcher: Dispatcher
    arriving: set[str] = field(default_factory=set)  # scans on their way, which have a place in the queue already

    @classmethod
    def open(cls, config: ServiceConfig) -> Service:
        """Open the folder, take up what was left, and load the model.

        Raises:
            OutputError: The folder cannot be used.
            GroundglassError: The model cannot be loaded.
        """
        place = ServiceStorage(config.folder)
        jobs, metrics = Jobs(place.database, timedelta(hours=config.keep_hours)), Metrics()
        opener = ServiceWorkerFactory(config.model, config.engine, config.slices)
        threads = config.engine.threads or cores()
        dispatcher = Dispatcher(jobs, place, metrics, opener, config.time_limit_s, threads)
        service = cls(config, place, jobs, metrics, dispatcher)
        try:
            jobs.recover()
            place.sweep(jobs.ids())
            dispatcher.start()
        except BaseException:
            service.close()
            raise
        return service

    def close(self) -> None:
        """End; what is not done goes on when the server is started again."""
        self.dispatcher.close()
        self.jobs.close()
        self.place.close()

    @property
    def free(self) -> int:
        """How many scans more the queue takes."""
        return max(0, self.config.queue - self.jobs.waiting() - len(self.arriving))

    def job(self, job_id: str) -> ScanJob:
        """A job as it stands.

        Raises:
            HTTPException: There is none.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise HTTPException(404, "there is no such job: it was deleted, or its time is over")
        if job.status is JobStatus.RUNNING:
            return job.model_copy(update={"progress": self.place.scan(job_id).progress})
        return job

    def done(self, job_id: str) -> tuple[ScanJob, ScanFolder]:
        """A job that is done, and its folder.

        Raises:
            HTTPException: There is none, or it is not.
        """
        job = self.job(job_id)
        if job.status is not JobStatus.DONE:
            raise HTTPException(409, f"the job is {job.status}: {job.reason or 'wait until it is done'}")
        return job, self.place.scan(job_id)

    @asynccontextmanager
    async def arrival(self, request: Request, limit: int) -> AsyncIterator[tuple[str, ScanFolder]]:
        """A place in the queue and a folder for something that is being sent; gone again if it is refused.

        Raises:
            HTTPException: The queue or the disk is full, or it is too large.
        """
        job_id = new_id()
        try:
            if not self.free:
                wait = min(300, max(5, round(self.jobs.typical_seconds() or 30)))
                reason = f"the queue is full ({self.config.queue} scans): try again in {wait} s"
                raise HTTPException(429, reason, {"Retry-After": str(wait)})
            announced = int(request.headers.get("content-length", "0"))
            if announced > limit + (1 << 20):  # what stands between the files
                raise HTTPException(413, f"{announced:,} bytes, expected at most {limit:,}: the limit of this server")
            if self.place.free_bytes() < announced + SPARE_BYTES:
                raise HTTPException(507, "the server's disk is full: delete jobs, or ask who runs it")
            self.arriving.add(job_id)
            yield job_id, self.place.incoming(job_id)
        except (HTTPException, UploadError, OSError) as error:
            self.place.drop(job_id)
            refusal = _refusal(error)
            self.metrics.refused(refusal.status_code)
            await _drain(request)
            raise refusal from None
        except BaseException:  # the client is gone
            self.place.drop(job_id)
            raise
        finally:
            self.arriving.discard(job_id)

    def accept(self, job_id: str, upload: Upload, corrects: str | None = None) -> ScanJob:
        """Put what has arrived into the queue."""
        self.place.accept(job_id)
        job = self.jobs.add(job_id, upload.label, corrects)
        self.metrics.received(upload.bytes)
        self.dispatcher.wake()
        return job


async def _drain(request: Request) -> None:
    """Read on for a while."""
    size = 0
    with anyio.move_on_after(DRAIN_S):
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > DRAIN_BYTES:
                    return
        except (RuntimeError, ClientDisconnect):  # it was read to its end, or nobody listens
            return


def _refusal(error: HTTPException | UploadError | OSError) -> HTTPException:
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, UploadError):
        return HTTPException(error.status, error.reason)
    return HTTPException(507, f"the scan cannot be written: {error.strerror}")
