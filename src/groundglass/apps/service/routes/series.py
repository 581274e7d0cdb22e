"""The DICOM series of an upload that holds several, and taking another one of them."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Request, Response

from groundglass.apps.service.api_models import JobId, SeriesChoice, error_responses
from groundglass.apps.service.job_states import ScanJob
from groundglass.apps.service.routes.scans import hard_link
from groundglass.apps.service.service import Service
from groundglass.apps.service.upload import Upload
from groundglass.apps.service.uploaded_scan import SERIES_LIST, SeriesOfScan


def series_routes(service: Service) -> APIRouter:
    """Return the routes of `/api/jobs/{id}/series`."""
    router = APIRouter(prefix="/api/jobs/{id}", tags=["series"])

    @router.get("/series", responses=error_responses(404))
    def series(job_id: JobId) -> tuple[SeriesOfScan, ...]:
        """List the DICOM series of an upload that holds several; empty where there is no choice."""
        service.get_job(job_id)
        return _series_of(service, job_id)

    @router.post("/series", status_code=202, responses=error_responses(404, 409, 429, 507))
    async def take_series(job_id: JobId, choice: SeriesChoice, request: Request, response: Response) -> ScanJob:
        """Process another series of an upload; it becomes a job of its own."""
        source_job = await run_sync(service.get_job, job_id)
        wanted = next((s for s in await run_sync(_series_of, service, job_id) if s.label == choice.series), None)
        if wanted is None or wanted.rejection_reason is not None:
            reason = wanted.rejection_reason if wanted else "the upload has no such series"
            raise HTTPException(409, f"series {choice.series} cannot be taken: {reason}")
        source = service.storage.job_folder(job_id)
        async with service.reserve_slot(request, 0) as (new_id, folder):
            await run_sync(hard_link, source.scan, folder.scan)
            await run_sync(folder.wanted_series.write_text, wanted.label)
            await run_sync(service.get_job, job_id)  # it may have been deleted meanwhile
            label = f"{source_job.label}, series {wanted.label}"
            job = await run_sync(service.enqueue, new_id, Upload(label, 0))
        response.headers["Location"] = f"/api/jobs/{new_id}"
        return job

    return router


def _series_of(service: Service, job_id: str) -> tuple[SeriesOfScan, ...]:
    """Return the series that were listed when the upload was read."""
    try:
        return SERIES_LIST.validate_json(service.storage.job_folder(job_id).series.read_bytes())
    except (FileNotFoundError, ValueError):  # there is none, or it is of another version
        return ()
