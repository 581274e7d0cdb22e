"""A job of the server as clients see it: its state, its progress and its result files."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from groundglass.strict_model import StrictModel


class JobStatus(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobStage(StrEnum):
    """What is being done with a job that runs, in this order."""

    READING = "reading"
    LUNGS = "lungs"
    LESIONS = "lesions"
    MEASURING = "measuring"
    WRITING = "writing"


class JobProgress(StrictModel):
    """The stage of a job that runs; in the stages that go slice by slice, the slices done and all slices, else 0."""

    stage: JobStage
    done: int
    total: int


class ResultFile(StrictModel):
    """A result file: its path within the results folder, and its size."""

    name: str
    bytes: int


class ScanJob(StrictModel):
    """An uploaded scan and the state of its processing.

    Attributes:
        id: 32 random hexadecimal digits.
        label: Name of the scan: of the uploaded file or folder, or as a person has named it.
        status: State of the job.
        position: Position in the queue, from 1, while the job waits.
        progress: The stage and the slices done, while the job runs.
        submitted: Time at which the scan was accepted.
        started: Time at which the processing last started.
        finished: Time at which the job ended.
        expires: Time at which scan and results are deleted.
        reason: Why the job failed.
        corrects: Id of the job whose mask was corrected by hand, in a job that is a correction.
        note: What a person has noted on it.
        summary: The findings in one line.
        files: The result files.
    """

    id: str
    label: str
    status: JobStatus
    position: int | None
    progress: JobProgress | None
    submitted: datetime
    started: datetime | None
    finished: datetime | None
    expires: datetime | None
    reason: str | None
    corrects: str | None
    note: str
    summary: str | None
    files: tuple[ResultFile, ...]

    @property
    def is_over(self) -> bool:
        """Whether the job is done or failed, so that it will not change any more."""
        return self.status in (JobStatus.DONE, JobStatus.FAILED)
