"""What the API receives and returns besides jobs, and the types that several routes share."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path as PathParameter

from groundglass.strict_model import StrictModel


class ErrorDetail(StrictModel):
    """Why a request was refused."""

    detail: str


class SignInToken(StrictModel):
    """The token that the server was started with."""

    token: str


class SessionState(StrictModel):
    """Whether the server needs a token, and whether this client has sent it."""

    needs_token: bool
    signed_in: bool


class ServiceLimits(StrictModel):
    """What the server accepts.

    Attributes:
        upload_bytes: Largest upload for one scan.
        upload_files: Largest number of files of one scan.
        slices: Largest number of slices of one scan.
        queue: Largest number of scans that may wait.
        free: Number of scans that the queue accepts at present.
        keep_hours: Time after which results are deleted, in hours.
    """

    upload_bytes: int
    upload_files: int
    slices: int
    queue: int
    free: int
    keep_hours: float


class DisplayWindow(StrictModel):
    """An intensity window: what lies below is drawn black, what lies above is drawn white."""

    low_hu: float
    high_hu: float


class DisplaySettings(StrictModel):
    """How the reports draw a scan."""

    lung_window: DisplayWindow


Responses = dict[int | str, dict[str, Any]]
JobId = Annotated[str, PathParameter(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the job.")]


def error_responses(*statuses: int) -> Responses:
    """Return the description of error responses for the OpenAPI document."""
    return {status: {"model": ErrorDetail} for status in statuses}
