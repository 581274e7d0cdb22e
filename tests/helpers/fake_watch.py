"""A watch's worker factory for tests: quick, without a model, and scripted; and a watcher in a process of its own."""

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
from helpers.fake_engine import fake_segmenter
from helpers.orthanc import PASSWORD, USER, OrthancServer
from helpers.scripted_worker import run_script, wait_until

QUICK_RETRIES = RetryPolicy(poll_s=0.2, time_limit_s=60, pause_s=0.3, max_tries=2)


@dataclass(frozen=True)
class FakeWatchWorkerFactory:
    """Segments by grey values, after it has followed the script in the file `UID`, or else `all`, of a folder.

    `until FILE` waits until FILE exists; for other scripts see `run_script`.
    """

    scripts: Path

    def __call__(self) -> Callable[[SeriesTask], SegmentationResult]:
        return partial(self.segment, segmenter=fake_segmenter())

    def segment(self, task: SeriesTask, segmenter: Segmenter) -> SegmentationResult:
        with (self.scripts / "begun").open("a") as log:
            log.write(f"{task.series_uid}\n")
        for name in (task.series_uid, "all"):
            if (self.scripts / name).exists():
                script = (self.scripts / name).read_text()
                if script.startswith("until "):
                    wait_until(Path(script.removeprefix("until ")).exists)
                else:
                    run_script(script)
                break
        return segment_series(task, segmenter)

    @property
    def begun(self) -> list[str]:
        """UIDs of the series that were begun, in order."""
        log = self.scripts / "begun"
        return log.read_text().split() if log.exists() else []


def fake_worker_factory(folder: Path, **scripts: str) -> FakeWatchWorkerFactory:
    """Write scripts into a new folder, under a series UID or `all`, and make a factory that follows them."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(script)
    return FakeWatchWorkerFactory(folder)


def main(url: str, folder: str, scripts: str) -> None:
    """Run a watcher until it is interrupted, in a process of its own."""
    factory = FakeWatchWorkerFactory(Path(scripts))
    try:
        watch(WatchOptions(url, Path(folder)), QUICK_RETRIES, on_message=write_line, worker_factory=factory)
    except KeyboardInterrupt:
        write_line("stopped")


def write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class WatcherProcess:
    """The process of a watcher, and the lines that it wrote."""

    def __init__(self, url: str, folder: Path, scripts: Path) -> None:
        arguments = [url, str(folder), str(scripts)]
        python_path = os.pathsep.join(path for path in sys.path if path)
        self.log = folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from helpers.fake_watch import main; main(*{arguments!r})"],
                env={**environment_with_credentials(), "PYTHONPATH": python_path},
                stdout=log,
                stderr=log,
            )

    @property
    def stored(self) -> int:
        """Number of series whose results were stored."""
        return self.output.count("results stored")

    @property
    def output(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


StartWatcher = Callable[[FakeWatchWorkerFactory], WatcherProcess]


def environment_with_credentials() -> dict[str, str]:
    """Return the environment with the credentials of the test's Orthanc."""
    return {**os.environ, "GROUNDGLASS_PACS_USER": USER, "GROUNDGLASS_PACS_PASSWORD": PASSWORD}


def watch_once(
    orthanc: OrthancServer,
    folder: Path,
    factory: FakeWatchWorkerFactory,
    retry_policy: RetryPolicy = QUICK_RETRIES,
    **options: Any,
) -> tuple[WatchCounts, str]:
    """Process the series that are there; return how they ended, and the messages."""
    lines: list[str] = []
    url = orthanc.url + ("/dicom-web" if options.get("dicomweb") else "")
    counts = watch(WatchOptions(url, folder, **options), retry_policy, True, lines.append, factory)
    return counts, "\n".join(lines)


def ledger_rows(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Read the ledger's file as {series UID: (state, tries, reason)}."""
    with sqlite3.connect(folder / "watch.sqlite") as db:
        found = db.execute("SELECT series_uid, state, tries, coalesce(reason, '') FROM series").fetchall()
    return {uid: (state, tries, reason) for uid, state, tries, reason in found}


def is_spool_empty(folder: Path) -> bool:
    return not list((folder / "spool").iterdir())
