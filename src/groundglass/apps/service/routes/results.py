"""The results of a job that is done: findings, files, and the images for a viewer."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from groundglass.apps.service.api_models import JobId, error_responses
from groundglass.apps.service.guard import REPORT_POLICY
from groundglass.apps.service.service import GONE, Service
from groundglass.apps.service.view_files import VIEW_FILES
from groundglass.report.html import with_heading

_INLINE_TYPES = {"report.html": "text/html; charset=utf-8", "preview.png": "image/png"}


def result_routes(service: Service) -> APIRouter:
    """Return the routes of the results."""
    router = APIRouter(prefix="/api/jobs/{id}", tags=["results"])
    errors = error_responses(404, 409)

    @router.get("/findings", responses={200: {"content": {"application/json": {}}}, **errors})
    def findings(job_id: JobId) -> FileResponse:
        """Return the findings, findings.json."""
        _, folder = service.get_finished_job(job_id)
        return _File(_existing(folder.results / "findings.json"), media_type="application/json")

    @router.get("/files/{name:path}", response_class=FileResponse, responses=errors)
    def file(job_id: JobId, name: str, download: bool = False) -> Response:
        """Return a result file; browsers show report and preview unless `download` is set, and save the others.

        The report has the name that a person has given the scan.
        """
        job, folder = service.get_finished_job(job_id)
        names = [file.name for file in job.files]
        if name not in names:
            raise HTTPException(404, f"the job has no such file, expected one of {', '.join(names)}")
        path = _existing(folder.results / name)
        if name not in _INLINE_TYPES or download:
            media_type = "application/json" if name.endswith(".json") else "application/octet-stream"
            sent = _File(path, media_type=media_type, filename=f"{file_stem(job.label)}-{path.name}")
        else:
            sent = _File(path, media_type=_INLINE_TYPES[name], headers={"Content-Security-Policy": REPORT_POLICY})
        given = folder.read_name() if name == "report.html" else ""
        return _named_report(sent, given) if given else sent

    @router.get("/view/{name}", response_class=FileResponse, responses=errors)
    def view(job_id: JobId, name: str) -> FileResponse:
        """Return a file for a viewer, in upright axial slices.

        scan.nii (int16, HU), lesions.nii.gz (uint8), lungs.nii.gz (uint8: 1 right, 2 left), or slices.json.
        """
        _, folder = service.get_finished_job(job_id)
        if name not in VIEW_FILES:
            raise HTTPException(404, f"expected one of {', '.join(VIEW_FILES)}")
        media_type = "application/json" if name.endswith(".json") else "application/octet-stream"
        return _File(_existing(folder.view / name), media_type=media_type)

    return router


class _File(FileResponse):
    """A result file; 404 if the job is deleted before it is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except RuntimeError:
            if Path(self.path).exists():
                raise
            raise HTTPException(404, GONE) from None


def _named_report(report: FileResponse, name: str) -> Response:
    """Return a report, or its download, with the name of its scan as heading."""
    try:
        html = Path(report.path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise HTTPException(404, GONE) from None
    kept = ("content-type", "content-disposition", "content-security-policy")
    headers = {header: value for header, value in report.headers.items() if header in kept}
    return Response(with_heading(html, name), headers=headers)


def file_stem(label: str) -> str:
    """Return the beginning of the names of downloads: the label of a scan without what a file name must not hold."""
    stem = re.sub(r"\.(nii(\.gz)?|mha|nrrd|zip|dcm|png|jpe?g)$", "", label, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:60] or "scan"


def _existing(path: Path) -> Path:
    """Return the path of a result, or refuse the request if the job was deleted meanwhile."""
    if not path.is_file():
        raise HTTPException(404, GONE)
    return path
