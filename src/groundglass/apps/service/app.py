"""The web application: the routes of the API and the page, behind the guard."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from groundglass.apps.service.api_models import error_responses
from groundglass.apps.service.guard import Guard
from groundglass.apps.service.routes.changes import change_routes
from groundglass.apps.service.routes.health import health_routes
from groundglass.apps.service.routes.jobs import job_routes
from groundglass.apps.service.routes.results import result_routes
from groundglass.apps.service.routes.scans import scan_routes
from groundglass.apps.service.routes.series import series_routes
from groundglass.apps.service.routes.session import session_routes
from groundglass.apps.service.service import Service, database_refusal
from groundglass.apps.service.sessions import Sessions
from groundglass.plain_text import printable


def build(service: Service) -> FastAPI:
    """Build the application of a server."""
    app = FastAPI(
        title="groundglass",
        version=version("groundglass"),
        description="COVID-19 lesions in chest CT. Research use only: not a medical device.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=error_responses(400, 401, 403, 408, 413, 421, 429, 503, 507),
    )
    sessions = Sessions(service.config.token)
    app.add_middleware(Guard, config=service.config, sessions=sessions)
    app.add_exception_handler(sqlite3.Error, _refuse_for_database)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.include_router(session_routes(sessions))
    app.include_router(job_routes(service, sessions))
    for routes in (scan_routes, series_routes, result_routes, change_routes, health_routes):
        app.include_router(routes(service))
    _add_page(app)
    return app


def _refuse_body(_: Request, error: Exception) -> JSONResponse:
    """Answer a request whose values are not those of the API, without what JSON cannot write: NaN, half characters."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    shown = [{"type": fault["type"], "loc": _printable_path(fault["loc"]), "msg": fault["msg"]} for fault in faults]
    return JSONResponse({"detail": shown}, 422)


def _printable_path(path: Sequence[str | int]) -> list[str | int]:
    return [printable(step) if isinstance(step, str) else step for step in path]


def _refuse_for_database(_: Request, error: Exception) -> JSONResponse:
    """Answer a request for which the database could not be read or written."""
    refusal = database_refusal(error)
    return JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)


def _add_page(app: FastAPI) -> None:
    page = resources.files("groundglass.apps.service") / "page"
    if not page.is_dir():  # an installation without the page serves the API only
        return

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(str(page / "index.html"), headers={"Cache-Control": "no-cache"})

    app.mount("/assets", StaticFiles(directory=str(page / "assets")))
