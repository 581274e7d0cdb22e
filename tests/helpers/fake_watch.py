"""What segments in the tests of the watcher: quick, without a model, and as bad as an order tells; and its process."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, segment_series
from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import RetryPolicy, WatchCounts
from groundglass.inference.segmenter import Segmenter
from helpers.fake_batch import obey, until
from helpers.fake_engine import made_up_segmenter
from helpers.orthanc import PASSWORD, USER, OrthancServer


@dataclass(frozen=True)
class Obedient:
    """Segments by grey values, after it has done what the file `UID`, or else `all`, in `orders` says.

    `until FILE`: waits until there is such a file; or what `obey` knows. `begun` lists the series, one a line.
    """

    orders: Path

    def __call__(self) -> Callable[[SeriesTask], SegmentationResult]:
        return partial(self.do, segmenter=made_up_segmenter())

    def do(self, task: SeriesTask, segmenter: Segmenter) -> SegmentationResult:
        with (self.orders / "begun").open("a") as log:
            log.write(f"{task.series_uid}\n")
        for name in (task.series_uid, "all"):
            if (self.orders / name).exists():
                order = (self.orders / name).read_text()
                if order.startswith("until "):
                    until(Path(order.removeprefix("until ")).exists)
                else:
                    obey(order)
                break
        return segment_series(task, segmenter)

    @property
    def begun(self) -> list[str]:
        log = self.orders / "begun"
        return log.read_text().split() if log.exists() else []


def obedient(folder: Path, **told: str) -> Obedient:
    folder.mkdir()
    for name, order in told.items():
        (folder / name).write_text(order)
    return Obedient(folder)


PACE = RetryPolicy(poll_s=0.2, time_limit_s=60, pause_s=0.3, tries=2)


def main(url: str, folder: str, orders: str) -> None:
    """The watcher in a process of its own."""
    try:
        watch(WatchOptions(url, Path(folder)), PACE, on_message=on_message, opener=Obedient(Path(orders)))
    except KeyboardInterrupt:
        on_message("stopped")


def on_message(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Running:
    """A watcher's process, and the lines that it says."""

    def __init__(self, url: str, folder: Path, orders: Path) -> None:
        words = [url, str(folder), str(orders)]
        self.log = folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from pacs_stand_ins import main; main(*{words!r})"],
                env={**as_user(), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdout=log,
                stderr=log,
            )

    @property
    def stored(self) -> int:
        return self.said.count("results stored")

    @property
    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def as_user() -> dict[str, str]:
    """An environment with the credentials of the test's Orthanc."""
    return {**os.environ, "GROUNDGLASS_PACS_USER": USER, "GROUNDGLASS_PACS_PASSWORD": PASSWORD}


def once(
    orthanc: OrthancServer, folder: Path, opener: Obedient, retry_policy: RetryPolicy = PACE, **options: Any
) -> tuple[WatchCounts, str]:
    """What became of what is there, and what was said."""
    lines: list[str] = []
    url = orthanc.url + ("/dicom-web" if options.get("dicomweb") else "")
    return watch(WatchOptions(url, folder, **options), retry_policy, True, lines.append, opener), "\n".join(lines)


def rows(folder: Path) -> dict[str, tuple[str, int, str]]:
    """{UID: (state, tries, reason)} as the ledger's file has them."""
    with sqlite3.connect(folder / "watch.sqlite") as db:
        found = db.execute("SELECT series_uid, state, tries, coalesce(reason, '') FROM series").fetchall()
    return {uid: (state, tries, reason) for uid, state, tries, reason in found}


def is_empty(folder: Path) -> bool:
    return not list((folder / "spool").iterdir())
