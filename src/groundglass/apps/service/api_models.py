"""What the API receives and returns besides jobs, and the types that several routes share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path as PathParameter
from pydantic import Field

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


class JobDescription(StrictModel):
    """How a person describes a job; what is None stays as it is.

    Attributes:
        label: Name of the scan.
        note: A note, such as who corrected the mask and why.
    """

    label: Annotated[str, Field(max_length=200)] | None = None
    note: Annotated[str, Field(max_length=2000)] | None = None


class SeriesChoice(StrictModel):
    """The DICOM series to take, by its label in the list of the scan's series."""

    series: Annotated[str, Field(min_length=1, max_length=64)]


class Change(StrictModel):
    """How the lesions changed from one scan to another; intervals hold 95 % of simulated repeats of both scans.

    Attributes:
        earlier: Id of the earlier job.
        later: Id of the later job.
        by_date: Whether the dates of the scans decided which is the earlier one.
        earlier_scanned: Date of the earlier scan; None if it is not stated.
        later_scanned: Date of the later scan; None if it is not stated.
        volume_ml: Change of the volume.
        volume_interval_ml: Its interval.
        volume_percent: Change of the volume in % of the earlier one; None where that is 0.
        volume_percent_interval: Its interval.
        share_points: Change of the share of the lung, in percentage points.
        share_interval_points: Its interval.
        in_words: The change on one line.
        warnings: Why the scans may not be comparable.
    """

    earlier: str
    later: str
    by_date: bool
    earlier_scanned: datetime | None
    later_scanned: datetime | None
    volume_ml: float | None
    volume_interval_ml: tuple[float, float] | None
    volume_percent: float | None
    volume_percent_interval: tuple[float, float] | None
    share_points: float | None
    share_interval_points: tuple[float, float] | None
    in_words: str
    warnings: tuple[str, ...]


Responses = dict[int | str, dict[str, Any]]
JobId = Annotated[str, PathParameter(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the job.")]


def error_responses(*statuses: int) -> Responses:
    """Return the description of error responses for the OpenAPI document."""
    return {status: {"model": ErrorDetail} for status in statuses}
