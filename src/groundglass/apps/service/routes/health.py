"""Routes for a process supervisor, a load balancer and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from groundglass.apps.service.service import Service
from groundglass.apps.service.storage import SPARE_BYTES


def health_routes(service: Service) -> APIRouter:
    """Return the routes of health checks and metrics."""
    router = APIRouter(tags=["watch"], default_response_class=PlainTextResponse)

    @router.get("/healthz")
    async def healthz() -> str:
        """Answer as long as the process runs."""
        return "ok"

    @router.get("/readyz", responses={503: {"content": {"text/plain": {}}, "description": "Not ready."}})
    def readyz() -> PlainTextResponse:
        """Return whether the server accepts scans and processes them."""
        reason = "" if service.dispatcher.is_alive else "the queue has stopped"
        reason = reason or service.dispatcher.trouble
        reason = reason or ("" if service.free_slots else "the queue is full")
        reason = reason or ("" if service.storage.free_bytes() >= SPARE_BYTES else "the disk is full")
        return PlainTextResponse(reason or "ok", 503 if reason else 200)

    @router.get("/metrics")
    def metrics() -> PlainTextResponse:
        """Return metrics in Prometheus' text format; needs the token where the server has one."""
        return PlainTextResponse(service.metrics.text(service.jobs))

    return router
