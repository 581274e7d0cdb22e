"""Sending scans and corrected masks, and what the page must know before: the limits and the lung window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from groundglass.apps.service.api_models import (
    DisplaySettings,
    DisplayWindow,
    JobId,
    Responses,
    ServiceLimits,
    error_responses,
)
from groundglass.apps.service.job_states import ScanJob
from groundglass.apps.service.service import Service
from groundglass.apps.service.upload import FIELD, Upload, UploadError, receive, without_stalls
from groundglass.scan.intensity import LUNG_WINDOW

_REFUSALS: Responses = error_responses(408, 413, 429, 507)
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "array", "minItems": 1, "items": _FILE}},
}


def scan_routes(service: Service) -> APIRouter:
    """Return the routes that accept scans and corrections."""
    config = service.config
    router = APIRouter(prefix="/api", tags=["scans"])

    @router.get("/limits")
    def limits() -> ServiceLimits:
        """Return what the server accepts."""
        return ServiceLimits(
            upload_bytes=config.max_upload_bytes,
            upload_files=config.max_upload_files,
            slices=config.max_slices,
            queue=config.queue_size,
            free=service.free_slots,
            keep_hours=config.keep_hours,
        )

    @router.get("/display")
    async def display() -> DisplaySettings:
        """Return how the reports draw a scan, so that a viewer can draw it alike."""
        return DisplaySettings(lung_window=DisplayWindow(low_hu=LUNG_WINDOW.low_hu, high_hu=LUNG_WINDOW.high_hu))

    @router.post(
        "/scans",
        status_code=202,
        responses=_REFUSALS,
        openapi_extra=_request_body("multipart/form-data", _FORM),
    )
    async def send_scan(request: Request, response: Response) -> ScanJob:
        """Send a scan: one NIfTI, MHA, NRRD, ZIP or image file, or all files of a DICOM folder."""
        async with service.reserve_slot(request, config.max_upload_bytes) as (job_id, folder):
            content_type = request.headers.get("content-type", "")
            limits = config.max_upload_bytes, config.max_upload_files
            upload = await receive(request.stream(), content_type, folder.scan, *limits)
            job = await run_sync(service.enqueue, job_id, upload)
        response.headers["Location"] = f"/api/jobs/{job_id}"
        return job

    @router.post(
        "/jobs/{id}/corrections",
        status_code=202,
        responses=_REFUSALS | error_responses(404, 409),
        openapi_extra=_request_body("application/octet-stream", _FILE),
    )
    async def correct(job_id: JobId, request: Request, response: Response, opened: bool = False) -> ScanJob:
        """Send a mask corrected by hand, as NIfTI on the grid of view/scan.nii; it becomes a job of its own.

        `opened`: the mask was not drawn on that of the job, but made elsewhere; a DICOM Segmentation goes too.
        """
        source_job, source = await run_sync(service.get_finished_job, job_id)
        async with service.reserve_slot(request, config.max_upload_bytes) as (new_id, folder):
            size_bytes = await _write_body(request, folder.mask, config.max_upload_bytes)
            await run_sync(hard_link, source.scan, folder.scan)
            if opened:
                await run_sync(folder.classes.touch)
            for old, new in (
                (source.wanted_series, folder.wanted_series),
                (source.classes, folder.classes),
                (source.card, folder.card),
                (source.name, folder.name),
            ):
                if old.exists() and not new.exists():
                    await run_sync(hard_link, old, new)
            await run_sync(service.get_job, job_id)  # it may have been deleted meanwhile
            job = await run_sync(service.enqueue, new_id, Upload(source_job.label, size_bytes), job_id)
        response.headers["Location"] = f"/api/jobs/{new_id}"
        return job

    return router


def _request_body(content_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a body that a route reads as a stream, for the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {content_type: {"schema": schema}}}}


async def _write_body(request: Request, file: Path, max_bytes: int) -> int:
    """Write the body of a request to a file and return its size.

    Raises:
        UploadError: The body is empty or too large.
    """
    size = 0
    async with await anyio.open_file(file, "wb") as stream:
        async for chunk in without_stalls(request.stream()):
            size += len(chunk)
            if size > max_bytes:
                raise UploadError(413, f"more than {max_bytes:,} bytes, the limit of this server")
            await stream.write(chunk)
    if not size:
        raise UploadError(400, "the body is empty, expected the mask as NIfTI")
    return size


def hard_link(source: Path, target: Path) -> None:
    """Give a file, or every file of a folder without folders, a second path without copying the bytes.

    Of a job that is being deleted, some files may be linked: see afterwards whether it is still there.

    Raises:
        UploadError: The files are gone.
        OSError: They cannot be linked.
    """
    try:
        if source.is_dir():
            target.mkdir()
            for file in source.iterdir():
                (target / file.name).hardlink_to(file)
        else:
            target.hardlink_to(source)
    except FileNotFoundError:
        raise UploadError(404, "the scan to correct is gone: it was deleted, or it has expired") from None
