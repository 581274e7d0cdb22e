"""The server's routes: scans in, jobs and their results out."""

from __future__ import annotations

import hmac
import shutil
import time
from collections.abc import AsyncIterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as Part
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.staticfiles import StaticFiles

from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.guard import COOKIE, REPORT_POLICY, Guard, is_signed_in, session_of
from groundglass.apps.service.jobs import JobStatus, ScanJob
from groundglass.apps.service.service import Service
from groundglass.apps.service.upload import FIELD, Upload, UploadError, flowing, receive

LOOK_EVERY_S = 0.25  # for what is new of a job
ALIVE_EVERY_S = 15.0  # a word, so that nobody between takes the line for dead
_SHOWN = {"report.html": "text/html; charset=utf-8", "preview.png": "image/png"}
_VIEW = ("scan.nii.gz", "lesions.nii.gz", "slices.json")
JobId = Annotated[str, Part(alias="id", pattern="^[0-9a-f]{32}$", description="Of the job.")]


class Detail(BaseModel):
    """Why a request was refused."""

    detail: str


class Token(BaseModel):
    """What was given with --token-file."""

    model_config = ConfigDict(extra="forbid")
    token: str


class Session(BaseModel):
    """Whether a token is needed, and was shown."""

    needs_token: bool
    signed_in: bool


class Limits(BaseModel):
    """What the server takes; `free` is how many scans more the queue takes now."""

    upload_bytes: int
    upload_files: int
    slices: int
    queue: int
    free: int
    keep_hours: float


def build(service: Service) -> FastAPI:
    """The application: routes behind the guard."""
    app = FastAPI(
        title="groundglass",
        version=version("groundglass"),
        description="COVID-19 lesions in chest CT. Research use only: not a medical device.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={code: {"model": Detail} for code in (400, 401, 403, 421)},
    )
    app.add_middleware(Guard, config=service.config)
    _add_session(app, service.config)
    _add_scans(app, service)
    _add_results(app, service)
    _add_watch(app, service)
    _add_page(app)
    return app


def _add_session(app: FastAPI, config: ServiceConfig) -> None:
    @app.get("/api/session", tags=["session"])
    async def session(request: Request) -> Session:
        """Whether a token is needed, and was shown."""
        return Session(needs_token=config.token is not None, signed_in=is_signed_in(request.headers, config.token))

    @app.post("/api/session", tags=["session"], status_code=204)
    async def sign_in(shown: Token, request: Request, response: Response) -> None:
        """Show the token once; a cookie is given for it."""
        if config.token is None:
            return
        if not hmac.compare_digest(shown.token.encode("utf-8", "surrogatepass"), config.token.encode()):
            raise HTTPException(401, "that is not the token")
        response.set_cookie(
            COOKIE, session_of(config.token), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )

    @app.delete("/api/session", tags=["session"], status_code=204)
    async def sign_out(response: Response) -> None:
        """Give the cookie back."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _add_scans(app: FastAPI, service: Service) -> None:
    config = service.config
    refusals: dict[int | str, dict[str, Any]] = {code: {"model": Detail} for code in (408, 413, 429, 507)}
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
    }
    binary = {"type": "string", "format": "binary"}

    @app.get("/api/limits", tags=["scans"])
    async def limits() -> Limits:
        """What is taken."""
        return Limits(
            upload_bytes=config.upload_bytes,
            upload_files=config.upload_files,
            slices=config.slices,
            queue=config.queue,
            free=service.free,
            keep_hours=config.keep_hours,
        )

    @app.post(
        "/api/scans",
        tags=["scans"],
        status_code=202,
        responses=refusals,
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}},
    )
    async def send_scan(request: Request, response: Response) -> ScanJob:
        """Send a scan: one NIfTI, MHA, NRRD, ZIP or picture, or all files of a DICOM folder."""
        async with service.arrival(request, config.upload_bytes) as (job_id, folder):
            kind = request.headers.get("content-type", "")
            upload = await receive(request.stream(), kind, folder.scan, config.upload_bytes, config.upload_files)
            job = service.accept(job_id, upload)
        response.headers["Location"] = f"/api/jobs/{job_id}"
        return job

    @app.post(
        "/api/jobs/{id}/corrections",
        tags=["scans"],
        status_code=202,
        responses={**refusals, 404: {"model": Detail}, 409: {"model": Detail}},
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": binary}}}},
    )
    async def correct(job_id: JobId, request: Request, response: Response) -> ScanJob:
        """Send the mask as a person has corrected it, as NIfTI on the grid of view/scan.nii.gz: a job of its own."""
        job, source = service.done(job_id)
        async with service.arrival(request, config.upload_bytes) as (new, folder):
            size = await _write_body(request, folder.mask, config.upload_bytes)
            await run_sync(_link, source.scan, folder.scan)
            made = service.accept(new, Upload(job.label, size), corrects=job_id)
        response.headers["Location"] = f"/api/jobs/{new}"
        return made

    @app.get("/api/jobs", tags=["jobs"])
    async def jobs() -> list[ScanJob]:
        """All jobs, newest first."""
        return [service.job(job.id) if job.status is JobStatus.RUNNING else job for job in service.jobs.all()]

    @app.get("/api/jobs/{id}", tags=["jobs"], responses={404: {"model": Detail}})
    async def job(job_id: JobId) -> ScanJob:
        """How a job stands."""
        return service.job(job_id)

    @app.delete("/api/jobs/{id}", tags=["jobs"], status_code=204, responses={404: {"model": Detail}})
    async def delete(job_id: JobId) -> None:
        """Remove a job with its scan and its results; stop it if it runs."""
        if not await run_sync(service.dispatcher.remove, job_id):
            raise HTTPException(404, "there is no such job: it was deleted, or its time is over")

    @app.get(
        "/api/jobs/{id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, 404: {"model": Detail}},
    )
    async def events(job_id: JobId) -> StreamingResponse:
        """The job as a server-sent event, at once and whenever it changes, until it is done, failed or deleted."""
        service.job(job_id)
        return StreamingResponse(_changes(service, job_id), media_type="text/event-stream")


def _add_results(app: FastAPI, service: Service) -> None:
    missing: dict[int | str, dict[str, Any]] = {code: {"model": Detail} for code in (404, 409)}

    @app.get(
        "/api/jobs/{id}/findings", tags=["results"], responses={200: {"content": {"application/json": {}}}, **missing}
    )
    async def findings(job_id: JobId) -> FileResponse:
        """The findings: findings.json."""
        _, folder = service.done(job_id)
        return FileResponse(folder.results / "findings.json", media_type="application/json")

    @app.get("/api/jobs/{id}/files/{name:path}", tags=["results"], response_class=FileResponse, responses=missing)
    async def file(job_id: JobId, name: str, download: bool = False) -> FileResponse:
        """A result: report and picture to look at, unless `download`; the others to keep."""
        job, folder = service.done(job_id)
        if name not in {file.name for file in job.files}:
            raise HTTPException(404, f"the job has no such file, but {', '.join(file.name for file in job.files)}")
        if name not in _SHOWN or download:
            kind = "application/json" if name.endswith(".json") else "application/octet-stream"
            return FileResponse(folder.results / name, media_type=kind, filename=Path(name).name)
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(folder.results / name, media_type=_SHOWN[name], headers=headers)

    @app.get("/api/jobs/{id}/view/{name}", tags=["results"], response_class=FileResponse, responses=missing)
    async def view(job_id: JobId, name: str) -> FileResponse:
        """For a viewer, in upright axial slices: scan.nii.gz (int16, HU), lesions.nii.gz (uint8), slices.json."""
        _, folder = service.done(job_id)
        if name not in _VIEW:
            raise HTTPException(404, f"expected one of {', '.join(_VIEW)}")
        kind = "application/json" if name.endswith(".json") else "application/gzip"
        return FileResponse(folder.view / name, media_type=kind)


def _add_watch(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["watch"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process answers."""
        return "ok"

    @app.get(
        "/readyz",
        tags=["watch"],
        response_class=PlainTextResponse,
        responses={503: {"content": {"text/plain": {}}, "description": "Not now."}},
    )
    async def readyz() -> PlainTextResponse:
        """Scans are taken, and done."""
        reason = "" if service.dispatcher.is_alive else "the queue has stopped"
        reason = reason or ("" if service.free else "the queue is full")
        return PlainTextResponse(reason or "ok", 503 if reason else 200)

    @app.get("/metrics", tags=["watch"], response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """For Prometheus; with a token it needs it."""
        return PlainTextResponse(service.metrics.text(service.jobs))


def _add_page(app: FastAPI) -> None:
    page = resources.files("groundglass.apps.service") / "page"
    if not page.is_dir():  # an installation without it has the API alone
        return

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(str(page / "index.html"), headers={"Cache-Control": "no-cache"})

    app.mount("/assets", StaticFiles(directory=str(page / "assets")))


async def _changes(service: Service, job_id: str) -> AsyncIterator[str]:
    said, spoke = None, time.monotonic()
    while True:
        try:
            job = service.job(job_id)
        except HTTPException:  # deleted
            return
        if job != said:
            said, spoke = job, time.monotonic()
            yield f"event: job\ndata: {job.model_dump_json()}\n\n"
        elif time.monotonic() - spoke > ALIVE_EVERY_S:
            spoke = time.monotonic()
            yield ": still here\n\n"
        if job.is_over:
            return
        await anyio.sleep(LOOK_EVERY_S)


async def _write_body(request: Request, file: Path, limit: int) -> int:
    """The body as a file; its size.

    Raises:
        UploadError: It is empty or too large.
    """
    size = 0
    async with await anyio.open_file(file, "wb") as stream:
        async for chunk in flowing(request.stream()):
            size += len(chunk)
            if size > limit:
                raise UploadError(413, f"more than {limit:,} bytes, which is the limit of this server")
            await stream.write(chunk)
    if not size:
        raise UploadError(400, "the body is empty, expected the mask as NIfTI")
    return size


def _link(source: Path, target: Path) -> None:
    """The same files again, without their bytes."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=lambda a, b: Path(b).hardlink_to(a))
    else:
        target.hardlink_to(source)
