"""Records of how the items of a batch ended.

Each item has a small file of its own, which is written atomically: shards and machines never write the same file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from groundglass.apps.batch.items import BatchItem
from groundglass.files import one_at_a_time, output_errors, remove_staged, write_atomic
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig, EngineName, Precision
from groundglass.report.findings import Findings, ModelRef
from groundglass.report.results_folder import RESULT_NAMES
from groundglass.scan.kinds import IntensityKind
from groundglass.strict_model import StrictModel

RECORDS = "records"
FINDINGS = "findings.json"


class ItemStatus(StrEnum):
    """How the processing of an item ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"


class KeyNumbers(StrictModel):
    """Key numbers of a scan's findings, under the names of the summary's columns; None is unknown.

    Attributes:
        lesion_ml: Volume of all lesions.
        lesion_ml_low: Lower end of its interval.
        lesion_ml_high: Upper end of its interval.
        lung_ml: Volume of both lungs, lesions included.
        lesion_percent: Lesion in % of the lung.
        lesion_percent_low: Lower end of its interval.
        lesion_percent_high: Upper end of its interval.
        extent: The share in words.
        right_percent: Lesion in % of the right lung.
        left_percent: Lesion in % of the left lung.
        right_upper_percent: Lesion in % of the upper zone of the right lung.
        right_middle_percent: Lesion in % of the middle zone of the right lung.
        right_lower_percent: Lesion in % of the lower zone of the right lung.
        left_upper_percent: Lesion in % of the upper zone of the left lung.
        left_middle_percent: Lesion in % of the middle zone of the left lung.
        left_lower_percent: Lesion in % of the lower zone of the left lung.
        ground_glass_ml: Volume of ground glass, by a model with classes.
        consolidation_ml: Volume of consolidation, by a model with classes.
        lesion_hu: Mean HU of the lesions.
        lung_hu: Mean HU of the lung without lesions.
        hyperinflated_percent: Share of the lung that is hyperinflated.
        normally_aerated_percent: Share of the lung that is normally aerated.
        poorly_aerated_percent: Share of the lung that is poorly aerated.
        not_aerated_percent: Share of the lung that is not aerated.
        lesions: Number of lesions.
        largest_lesion_ml: Volume of the largest lesion.
        largest_lesion_where: Side and zone of the largest lesion.
        largest_lesion_image: Number of the image that shows most of it, as viewers count.
        slices: Number of slices.
        lesion_slices: Number of slices with lesion.
        slice_thickness_mm: Thickness of the slices, as DICOM states it.
        slice_distance_mm: Distance of neighbouring slices.
        kernel: Convolution kernel, as DICOM states it.
        intensity: Meaning of the scan's numbers.
        warnings: The warnings of the findings.
    """

    lesion_ml: float | None
    lesion_ml_low: float | None
    lesion_ml_high: float | None
    lung_ml: float | None
    lesion_percent: float | None
    lesion_percent_low: float | None
    lesion_percent_high: float | None
    extent: str | None
    right_percent: float | None
    left_percent: float | None
    right_upper_percent: float | None
    right_middle_percent: float | None
    right_lower_percent: float | None
    left_upper_percent: float | None
    left_middle_percent: float | None
    left_lower_percent: float | None
    ground_glass_ml: float | None
    consolidation_ml: float | None
    lesion_hu: float | None
    lung_hu: float | None
    hyperinflated_percent: float | None
    normally_aerated_percent: float | None
    poorly_aerated_percent: float | None
    not_aerated_percent: float | None
    lesions: int
    largest_lesion_ml: float | None
    largest_lesion_where: str | None
    largest_lesion_image: int | None
    slices: int
    lesion_slices: int
    slice_thickness_mm: float | None
    slice_distance_mm: float | None
    kernel: str | None
    intensity: str
    warnings: str


@dataclass(frozen=True)
class BatchOptions:
    """Options of a batch, the same for every item.

    Attributes:
        model: ONNX file; None for the bundled model.
        engine: Engine that runs the model, and its number format. The batch divides the threads among its workers.
        intensity: Meaning of the voxel values; None to recognise it for each scan.
        with_identity: Whether patients are named in findings, preview and report.
        pseudonyms: Whether nothing but `key.csv` names a source or a patient.
    """

    model: Path | None = None
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG
    intensity: IntensityKind | None = None
    with_identity: bool = False
    pseudonyms: bool = False


DEFAULT_BATCH_OPTIONS = BatchOptions()


@dataclass(frozen=True)
class BatchSettings:
    """Everything besides the item itself that its results depend on.

    Attributes:
        folder: Folder of the results.
        model: Name and sha256 of the model.
        options: Options of the batch.
        rules: Hash of what the results depend on in the model's card: see `ModelCard.rules`.
        version: Version of groundglass.
    """

    folder: Path
    model: ModelRef
    options: BatchOptions
    rules: str = ""
    version: str = field(default_factory=lambda: version("groundglass"))


class ItemRecord(StrictModel):
    """How an item ended, and from which source, model and options.

    Attributes:
        case: Name of the item.
        status: How it ended.
        reason: Why it is not done, or why files for a PACS are left out; None if all is done.
        seconds: Time from reading the scan to writing the last file.
        source: Path of the source; None in a batch with pseudonyms.
        fingerprint: Fingerprint of the source: see `BatchItem`.
        intensity: The `intensity` of the batch's options.
        engine: The engine that the batch's options ask for.
        precision: The number format that they ask for.
        with_identity: Whether its results may name the patient.
        rules: Hash of what its results follow from in the model's card: see `ModelCard.rules`.
        version: Version of groundglass.
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
    engine: EngineName | None = None  # these five are missing in records of earlier versions
    precision: Precision | None = None
    with_identity: bool = False
    rules: str = ""
    version: str = ""
    model: ModelRef
    files: tuple[str, ...] = ()
    numbers: KeyNumbers | None = None


def key_numbers(findings: Findings) -> KeyNumbers:
    """Take the numbers of a row of the summary from a scan's findings."""
    ml_low, ml_high = findings.lesion_volume_interval_ml or (None, None)
    percent_low, percent_high = findings.lesion_share_interval_percent or (None, None)
    zones = {f"{zone.side}_{zone.third}_percent": zone.lesion_share_of_lung_percent for zone in findings.zones or ()}
    bands = {
        f"{band.name.replace(' ', '_')}_percent": band.share_of_lung_percent for band in findings.density_bands or ()
    }
    classes = {f"{each.name.replace('-', '_')}_ml": each.volume_ml for each in findings.classes}
    largest = findings.largest_lesions[0] if findings.largest_lesions else None
    where = " ".join(word for word in (largest.side, largest.zone) if word) if largest else ""
    known = {
        "lesion_ml": findings.lesion_volume_ml,
        "lesion_ml_low": ml_low,
        "lesion_ml_high": ml_high,
        "lung_ml": findings.lung_volume_ml,
        "lesion_percent": findings.lesion_share_of_lung_percent,
        "lesion_percent_low": percent_low,
        "lesion_percent_high": percent_high,
        "extent": findings.extent.name if findings.extent else None,
        "right_percent": findings.right_lung.lesion_share_of_lung_percent,
        "left_percent": findings.left_lung.lesion_share_of_lung_percent,
        "lesion_hu": findings.mean_intensity.lesion_hu,
        "lung_hu": findings.mean_intensity.lung_hu,
        "lesions": findings.lesion_count,
        "largest_lesion_ml": largest.volume_ml if largest else None,
        "largest_lesion_where": where or None,
        "largest_lesion_image": findings.input.image_numbers[largest.slice] if largest else None,
        "slices": findings.slices,
        "lesion_slices": findings.lesion_slices,
        "slice_thickness_mm": findings.input.slice_thickness_mm,
        "slice_distance_mm": findings.input.slice_distance_mm,
        "kernel": findings.input.kernel,
        "intensity": findings.intensity.kind,
        "warnings": "; ".join(findings.warnings),
    }
    others = {name: value for name, value in (zones | bands | classes).items() if name in KeyNumbers.model_fields}
    return KeyNumbers.model_validate(dict.fromkeys(KeyNumbers.model_fields) | others | known)


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
        source=os.fsencode(item.source).decode("utf-8", "replace") if not settings.options.pseudonyms else None,
        fingerprint=fingerprint,
        intensity=settings.options.intensity,
        engine=settings.options.engine.engine,
        precision=settings.options.engine.precision,
        with_identity=settings.options.with_identity,
        rules=settings.rules,
        version=settings.version,
        model=settings.model,
    )


@contextmanager
def item_lock(folder: Path, name: str) -> Iterator[None]:
    """Let other processes wait that write, or remove, results and record of the same item.

    Two batches at once may have one output folder and other options: a record stays that of the results beside it.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder / RECORDS / f".{name}.lock"
    with ExitStack() as held:
        with output_errors(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            held.enter_context(one_at_a_time(path))
        yield


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
    """Return whether an item's results exist and were made from the same source, version, model and options."""
    record = read_record(settings.folder, item.name)
    return (
        record is not None
        and record.status is ItemStatus.DONE
        and is_made_alike(record, settings)
        and (settings.folder / item.name / FINDINGS).is_file()
        and record.fingerprint == item.fingerprint
    )


def is_made_alike(record: ItemRecord, settings: BatchSettings) -> bool:
    """Return whether a record is of the same version, model and options."""
    options, made = settings.options, (record.version, record.model.sha256, record.rules)
    return made == (settings.version, settings.model.sha256, settings.rules) and (
        (record.intensity, record.with_identity, record.engine, record.precision)
        == (options.intensity, options.with_identity, options.engine.engine, options.engine.precision)
    )


def remove_results(folder: Path, name: str) -> None:
    """Remove what an earlier attempt left of an item: record, results, partial results.

    Files that others put into the item's folder stay. Findings go first, without which no item is done, and the record
    last, which lists the others. Results without a record are of a process that was killed before it wrote one.

    Args:
        folder: Folder of the batch's results.
        name: Name of the item.

    Raises:
        OutputError: They cannot be removed.
    """
    record, results = read_record(folder, name), folder / name
    with output_errors(folder):
        remove_staged(results)
        if record is None and (results / FINDINGS).is_file():
            _remove_unrecorded(results)
        for file in (FINDINGS, *(record.files if record else ())):
            if ".." not in Path(file).parts and not Path(file).is_absolute():  # whoever wrote the record
                (results / file).unlink(missing_ok=True)
        for path in (results / "lesions", results):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        (folder / RECORDS / f"{name}.json").unlink(missing_ok=True)


def _remove_unrecorded(results: Path) -> None:
    """Remove a result, its findings last: a process that is killed meanwhile leaves nothing that is of no result."""
    for name in sorted(RESULT_NAMES, key=lambda name: name == FINDINGS):
        path = results / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
