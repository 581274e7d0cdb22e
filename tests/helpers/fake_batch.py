"""A batch's worker factory for tests: quick, without a model, and each scan is a script that its worker follows."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.processing import process_item
from groundglass.apps.batch.records import (
    BatchSettings,
    ItemRecord,
    ItemStatus,
    make_record,
    remove_results,
    write_record,
)
from groundglass.files import staged_folder
from helpers.fake_engine import fake_segmenter
from helpers.scripted_worker import run_script


@dataclass(frozen=True)
class FakeBatchWorkerFactory:
    """Follows the script that a source holds (see `run_script`) while it writes a result, then writes a record."""

    settings: BatchSettings

    def __call__(self) -> Callable[[BatchItem], ItemRecord]:
        return self.process_item

    def process_item(self, item: BatchItem) -> ItemRecord:
        remove_results(self.settings.folder, item.name)
        with staged_folder(self.settings.folder / item.name) as staging:
            (staging / "findings.json").write_text("{}")
            run_script(item.source.read_text())
        record = make_record(item, self.settings, ItemStatus.DONE, 0.0, item.fingerprint)
        record = record.model_copy(update={"files": ("findings.json",)})
        write_record(record, self.settings.folder)
        return record


@dataclass(frozen=True)
class GreyBandBatchWorkerFactory:
    """Processes items as a batch does, with a segmenter that needs no model."""

    settings: BatchSettings

    def __call__(self) -> Callable[[BatchItem], ItemRecord]:
        return partial(process_item, settings=self.settings, segmenter=fake_segmenter())


def write_scripts(folder: Path, **scripts: str) -> Path:
    """Write a source for each script, called after the keyword; return the folder."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / f"{name}.nii").write_text(script)
    return folder


def summary_rows(folder: Path) -> dict[str, dict[str, str]]:
    """Read `summary.csv` as {case: row}."""
    with (folder / "summary.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}
