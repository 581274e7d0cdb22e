"""What became of each case: a small file each, written whole, so that no two shards or machines write the same one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from groundglass.apps.batch.items import BatchItem
from groundglass.files import output_errors, remove_staged, write_atomic
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig
from groundglass.report.findings import Findings, ModelRef
from groundglass.scan.kinds import IntensityKind

RECORDS = "records"


class CaseStatus(StrEnum):
    """How a case ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"


class Numbers(BaseModel):
    """The key numbers of a scan's findings, under the names of the summary's columns; None is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lesion_ml: float | None
    lung_ml: float | None
    lesion_percent: float | None
    right_percent: float | None
    left_percent: float | None
    slices: int
    lesion_slices: int
    warnings: int


@dataclass(frozen=True)
class BatchOptions:
    """How every case is to be done.

    Attributes:
        model: The ONNX file; None: the bundled one.
        engine: What runs it, and in which precision. The threads are shared out by the batch.
        intensity: What the numbers are; None: recognise it, scan by scan.
        with_identity: Name sources and patients in results and summary.
    """

    model: Path | None = None
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG
    intensity: IntensityKind | None = None
    with_identity: bool = False


DEFAULT_BATCH_OPTIONS = BatchOptions()


@dataclass(frozen=True)
class BatchSettings:
    """What is asked of every case alike.

    Attributes:
        folder: Of the results.
        used: The model's name and sha256.
        wish: How it is to be done.
    """

    folder: Path
    used: ModelRef
    options: BatchOptions


class CaseRecord(BaseModel):
    """How a case ended, and of which source, model and wish.

    Attributes:
        case: Its name.
        status: How it ended.
        reason: Why it is not done.
        seconds: From reading to the last file.
        source: The path; None unless identity was asked for.
        fingerprint: Of the source: see `BatchItem`.
        intensity: What the numbers were said to be.
        model: What was used.
        files: Its results, seen from its folder.
        numbers: Of its findings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str
    status: CaseStatus
    reason: str | None = None
    seconds: float
    source: str | None
    fingerprint: str
    intensity: IntensityKind | None
    model: ModelRef
    files: tuple[str, ...] = ()
    numbers: Numbers | None = None


def numbers_of(findings: Findings) -> Numbers:
    """What the summary says of a scan."""
    return Numbers(
        lesion_ml=findings.lesion_volume_ml,
        lung_ml=findings.lung_volume_ml,
        lesion_percent=findings.lesion_share_of_lung_percent,
        right_percent=findings.right_lung.lesion_share_of_lung_percent,
        left_percent=findings.left_lung.lesion_share_of_lung_percent,
        slices=findings.slices,
        lesion_slices=findings.lesion_slices,
        warnings=len(findings.warnings),
    )


def record_of(
    case: BatchItem, settings: BatchSettings, status: CaseStatus, seconds: float, fingerprint: str, reason: str | None
) -> CaseRecord:
    """A record without results."""
    return CaseRecord(
        case=case.name,
        status=status,
        reason=reason,
        seconds=round(seconds, 2),
        source=os.fsencode(case.source).decode("utf-8", "replace") if settings.options.with_identity else None,
        fingerprint=fingerprint,
        intensity=settings.options.intensity,
        model=settings.used,
    )


def write_record(record: CaseRecord, folder: Path) -> None:
    """Write it into the folder of results.

    Raises:
        OutputError: It cannot be written.
    """
    text = record.model_dump_json(indent=1) + "\n"
    write_atomic(folder / RECORDS / f"{record.case}.json", text.encode("utf-8"))


def read_record(folder: Path, name: str) -> CaseRecord | None:
    """A case's record; None where there is none that can be read."""
    try:
        return CaseRecord.model_validate_json((folder / RECORDS / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def is_done(case: BatchItem, settings: BatchSettings) -> bool:
    """Whether its results are there, of this very source, model and wish."""
    record = read_record(settings.folder, case.name)
    return (
        record is not None
        and record.status is CaseStatus.DONE
        and (record.model.sha256, record.intensity) == (settings.used.sha256, settings.options.intensity)
        and (settings.folder / case.name / "findings.json").is_file()
        and record.fingerprint == case.fingerprint
    )


def forget(folder: Path, name: str) -> None:
    """Take away what an earlier attempt left: record, results and halves. Other files in the case's folder stay.

    Raises:
        OutputError: It cannot be taken away.
    """
    record = read_record(folder, name)
    with output_errors(folder):
        (folder / RECORDS / f"{name}.json").unlink(missing_ok=True)
        remove_staged(folder / name)
        for file in record.files if record else ():
            (folder / name / file).unlink(missing_ok=True)
        for place in (folder / name / "lesions", folder / name):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
