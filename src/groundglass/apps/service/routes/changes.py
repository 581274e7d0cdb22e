"""The change from one scan of a patient to another."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from groundglass.apps.service.api_models import Change, JobId, error_responses
from groundglass.apps.service.comparison import compare_jobs
from groundglass.apps.service.service import GONE, Service


def change_routes(service: Service) -> APIRouter:
    """Return the route of `/api/jobs/{id}/change`."""
    router = APIRouter(prefix="/api/jobs/{id}", tags=["results"])

    @router.get("/change", responses=error_responses(404, 409))
    def change(job_id: JobId, other: str) -> Change:
        """Compare two scans that are done; the one with the earlier date counts as the earlier, else `other`."""
        (_, folder), (_, other_folder) = service.get_finished_job(job_id), service.get_finished_job(other)
        try:
            return compare_jobs((other, other_folder), (job_id, folder))
        except FileNotFoundError:
            raise HTTPException(404, GONE) from None
        except ValueError:
            reason = "the results are of another version of groundglass: send the scans again"
            raise HTTPException(409, reason) from None

    return router
