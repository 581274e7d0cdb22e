"""Records of how the items of a batch ended.

Each item has a small file of its own, which is written atomically: shards and machines never write the same file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from groundglass.apps.batch.items import BatchItem
from groundglass.files import output_errors, remove_staged, write_atomic
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig
from groundglass.report.findings import Findings, ModelRef
from groundglass.scan.kinds import IntensityKind
from groundglass.strict_model import StrictModel

RECORDS = "records"


class ItemStatus(StrEnum):
    """How the processing of an item ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"


class KeyNumbers(StrictModel):
    """Key numbers of a scan's findings, under the names of the summary's columns; None is unknown."""

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
    """Options of a batch, the same for every item.

    Attributes:
        model: ONNX file; None for the bundled model.
        engine: Engine that runs the model, and its number format. The batch divides the threads among its workers.
        intensity: Meaning of the voxel values; None to recognise it for each scan.
        with_identity: Whether sources and patients are named in results and summary.
    """

    model: Path | None = None
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG
    intensity: IntensityKind | None = None
    with_identity: bool = False


DEFAULT_BATCH_OPTIONS = BatchOptions()


@dataclass(frozen=True)
class BatchSettings:
    """Everything besides the item itself that its results depend on.

    Attributes:
        folder: Folder of the results.
        model: Name and sha256 of the model.
        options: Options of the batch.
    """

    folder: Path
    model: ModelRef
    options: BatchOptions


class ItemRecord(StrictModel):
    """How an item ended, and from which source, model and options.

    Attributes:
        case: Name of the item.
        status: How it ended.
        reason: Why it is not done, or why files for a PACS are left out; None if all is done.
        seconds: Time from reading the scan to writing the last file.
        source: Path of the source; None unless the batch runs with identity.
        fingerprint: Fingerprint of the source: see `BatchItem`.
        intensity: The `intensity` of the batch's options.
        model: Name and sha256 of the model.
        files: Paths of the results, relative to the item's folder.
        numbers: Key numbers of the findings; None if it is not done.
    """

    case: str
    status: ItemStatus
    reason: str | None = None
    seconds: float
    source: str | None
    fingerprint: str
    intensity: IntensityKind | None
    model: ModelRef
    files: tuple[str, ...] = ()
    numbers: KeyNumbers | None = None


def key_numbers(findings: Findings) -> KeyNumbers:
    """Take the numbers of a row of the summary from a scan's findings."""
    return KeyNumbers(
        lesion_ml=findings.lesion_volume_ml,
        lung_ml=findings.lung_volume_ml,
        lesion_percent=findings.lesion_share_of_lung_percent,
        right_percent=findings.right_lung.lesion_share_of_lung_percent,
        left_percent=findings.left_lung.lesion_share_of_lung_percent,
        slices=findings.slices,
        lesion_slices=findings.lesion_slices,
        warnings=len(findings.warnings),
    )


def make_record(
    item: BatchItem,
    settings: BatchSettings,
    status: ItemStatus,
    seconds: float,
    fingerprint: str,
    reason: str | None = None,
) -> ItemRecord:
    """Make a record without results."""
    return ItemRecord(
        case=item.name,
        status=status,
        reason=reason,
        seconds=round(seconds, 2),
        source=os.fsencode(item.source).decode("utf-8", "replace") if settings.options.with_identity else None,
        fingerprint=fingerprint,
        intensity=settings.options.intensity,
        model=settings.model,
    )


def write_record(record: ItemRecord, folder: Path) -> None:
    """Write a record into the batch's folder of results.

    Raises:
        OutputError: The file cannot be written.
    """
    text = record.model_dump_json(indent=1) + "\n"
    write_atomic(folder / RECORDS / f"{record.case}.json", text.encode("utf-8"))


def read_record(folder: Path, name: str) -> ItemRecord | None:
    """Read the record of the item of this name; None if it is missing or damaged."""
    try:
        return ItemRecord.model_validate_json((folder / RECORDS / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def is_done(item: BatchItem, settings: BatchSettings) -> bool:
    """Return whether an item's results exist and were made from the same source, model and options."""
    record = read_record(settings.folder, item.name)
    return (
        record is not None
        and record.status is ItemStatus.DONE
        and (record.model.sha256, record.intensity) == (settings.model.sha256, settings.options.intensity)
        and (settings.folder / item.name / "findings.json").is_file()
        and record.fingerprint == item.fingerprint
    )


def remove_results(folder: Path, name: str) -> None:
    """Remove what an earlier attempt left of an item: record, results, partial results.

    Files that others put into the item's folder stay.

    Args:
        folder: Folder of the batch's results.
        name: Name of the item.

    Raises:
        OutputError: They cannot be removed.
    """
    record, results = read_record(folder, name), folder / name
    with output_errors(folder):
        (folder / RECORDS / f"{name}.json").unlink(missing_ok=True)
        remove_staged(results)
        for file in record.files if record else ():
            (results / file).unlink(missing_ok=True)
        for path in (results / "lesions", results):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
