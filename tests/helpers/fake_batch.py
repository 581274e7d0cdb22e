"""What does a case in the tests of the batch itself: quick, without a model, and as bad as its source orders."""

import csv
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.records import (
    BatchSettings,
    CaseRecord,
    CaseStatus,
    forget,
    record_of,
    write_record,
)
from groundglass.files import staged_folder
from groundglass.workers import Worker


@dataclass(frozen=True)
class Obedient:
    """Does what the text of a source says, then writes a result and a record.

    `die`: the process dies each time; `die once FILE`: the first time; `hang FILE`: it waits for ever, with its pid and
    its owner's in FILE; `hang once FILE`: the first time. Anything else is done at once.
    """

    settings: BatchSettings

    def __call__(self) -> Callable[[BatchItem], CaseRecord]:
        return self.do

    def do(self, case: BatchItem) -> CaseRecord:
        forget(self.settings.folder, case.name)
        with staged_folder(self.settings.folder / case.name) as staging:
            (staging / "findings.json").write_text("{}")
            obey(case.source.read_text())
        record = record_of(case, self.settings, CaseStatus.DONE, 0.0, case.fingerprint, None)
        record = record.model_copy(update={"files": ("findings.json",)})
        write_record(record, self.settings.folder)
        return record


def obey(order: str) -> str:
    """Do as told; what was told."""
    told, _, place = order.partition(" ")
    if place.startswith("once "):
        place = place.removeprefix("once ")
        if Path(place).exists():
            return order
    if told == "die":
        if place:
            Path(place).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if told == "hang":
        beside = Path(f"{place}-")
        beside.write_text(f"{os.getpid()} {os.getppid()}")
        beside.replace(place)
        time.sleep(600)
    return order


def open_obey() -> Callable[[str], str]:
    return obey


def orders(folder: Path, **told: str) -> Path:
    """Sources for `Obedient`."""
    folder.mkdir()
    for name, order in told.items():
        (folder / f"{name}.nii").write_text(order)
    return folder


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def worker(time_limit_s: float = 60.0) -> Worker[str, str]:
    return Worker(open_obey, time_limit_s, 1)


def pids(place: Path) -> tuple[int, int]:
    """The pid of a process that hangs, and its owner's, as soon as it does."""
    until(place.exists)
    own, owner = place.read_text().split()
    return int(own), int(owner)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def until(true: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
