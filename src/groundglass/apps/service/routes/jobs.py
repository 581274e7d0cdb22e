"""The jobs: their state, events when it changes, and deleting them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse

from groundglass.apps.service.api_models import JobDescription, JobId, error_responses
from groundglass.apps.service.job_states import ScanJob
from groundglass.apps.service.service import DISK_FULL, Service
from groundglass.apps.service.sessions import Sessions
from groundglass.apps.service.upload import MAX_LABEL_LENGTH
from groundglass.errors import OutputError
from groundglass.plain_text import printable

POLL_EVERY_S = 0.25  # looks for changes of a job
POLL_OF_MANY_S = 0.01  # for each client that follows a job, so that all of them together look a hundred times a second
KEEPALIVE_EVERY_S = 15.0  # sends a comment, so that no proxy closes the connection as idle


def job_routes(service: Service, sessions: Sessions) -> APIRouter:
    """Return the routes of `/api/jobs`."""
    router = APIRouter(prefix="/api/jobs", tags=["jobs"])

    @router.get("")
    def jobs() -> list[ScanJob]:
        """List all jobs, newest first."""
        return [service.with_progress(job) for job in service.jobs.all()]

    @router.get("/{id}", responses=error_responses(404))
    def job(job_id: JobId) -> ScanJob:
        """Return the state of a job."""
        return service.get_job(job_id)

    @router.patch("/{id}", responses=error_responses(404, 507))
    def describe(job_id: JobId, changes: JobDescription) -> ScanJob:
        """Change the label or the note of a job; a new label is the name of the scan in its report too."""
        label = None if changes.label is None else printable(changes.label)[:MAX_LABEL_LENGTH].strip() or "a scan"
        if label and label != service.get_job(job_id).label:
            try:
                service.storage.job_folder(job_id).write_name(label)
            except OutputError:
                raise HTTPException(507, DISK_FULL) from None
        if not service.jobs.describe(job_id, label, changes.note):
            raise HTTPException(404, "no such job: it was deleted, or it has expired")
        return service.get_job(job_id)

    @router.delete("/{id}", status_code=204, responses=error_responses(404))
    async def delete(job_id: JobId) -> None:
        """Delete a job with its scan and its results; stop it if it runs."""
        if not await run_sync(service.dispatcher.remove, job_id):
            raise HTTPException(404, "no such job: it was deleted, or it has expired")

    @router.get(
        "/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **error_responses(404)},
    )
    async def events(job_id: JobId, request: Request) -> StreamingResponse:
        """Send the job as a server-sent event, at once and whenever it changes, until it is done, failed or deleted."""
        await run_sync(service.get_job, job_id)
        changes = job_changes(service, job_id, lambda: sessions.is_signed_in(request.headers))
        return StreamingResponse(changes, media_type="text/event-stream")

    return router


async def job_changes(service: Service, job_id: str, is_signed_in: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield the events of a job, until it is over or the client has signed out."""
    sent, sent_at_s = None, time.monotonic()
    service.followers += 1
    try:
        while is_signed_in():
            try:
                job = await run_sync(service.get_job, job_id)
            except HTTPException:  # it was deleted
                return
            except sqlite3.Error:  # the client asks again
                return
            if job != sent:
                sent, sent_at_s = job, time.monotonic()
                yield f"event: job\ndata: {job.model_dump_json()}\n\n"
            elif time.monotonic() - sent_at_s > KEEPALIVE_EVERY_S:
                sent_at_s = time.monotonic()
                yield ": keepalive\n\n"
            if job.is_over:
                return
            await anyio.sleep(max(POLL_EVERY_S, service.followers * POLL_OF_MANY_S))
    finally:
        service.followers -= 1
