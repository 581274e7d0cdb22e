"""The `groundglass serve` of `soak.py`: it can be killed, its disk filled, and its clock set (by `set_clock.c`)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.dicom_phantom import write_series
from helpers.orthanc import free_port

SHAPE = (10, 72, 96)
DISK_BYTES, SPARE_BYTES = 3 << 30, 64 << 10


@dataclass
class Disk:
    """The file system of the server; `can_fill` if it is one of its own."""

    folder: Path
    can_fill: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill it inside `with`, but for some KiB."""
        filler = self.folder / "filler"
        size = shutil.disk_usage(self.folder).free
        with filler.open("wb") as file:
            while size > SPARE_BYTES:
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                    continue
                size //= 2
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def open_disk(folder: Path) -> Iterator[Disk]:
    """Mount a small file system in a file, if that is allowed."""
    image, point = folder / "disk.img", folder / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    commands = (["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(point)])
    try:
        can_fill = all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)
    except FileNotFoundError:
        can_fill = False
    try:
        yield Disk(point, can_fill)
    finally:
        if can_fill:
            subprocess.run(["umount", "-l", str(point)], check=True)


def compile_clock(folder: Path) -> Path | None:
    """Compile the library that sets the clock of a process; None without a compiler."""
    library, source = folder / "set_clock.so", Path(__file__).with_name("set_clock.c")
    with suppress(FileNotFoundError):
        if subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]).returncode == 0:
            return library
    return None


@dataclass
class Server:
    """The server, which can be killed and started again; its clock can be set unless `clock_library` is None."""

    disk: Disk
    by_threshold: bool
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    workers: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended_before: int = 0  # jobs that had ended when the server was started last

    def __post_init__(self) -> None:
        self.store, self.clock = self.disk.folder / "store", self.disk.folder.parent / "clock"
        self.set_clock(0)
        self.clock_library = compile_clock(self.clock.parent)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.ended_before = sum(job[1] in ("done", "failed") for job in self.rows())
        log = (self.disk.folder.parent / "log").open("ab")
        program = [__file__] if self.by_threshold else ["-m", "groundglass"]
        options = ["-o", str(self.store), "--queue", "16", "--time-limit", "600", "--threads", "1"]
        command = [sys.executable, *program, "serve", "--port", str(self.port), *options]
        clock = {"LD_PRELOAD": str(self.clock_library), "CLOCK_FILE": str(self.clock)} if self.clock_library else {}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | clock)
        while True:
            assert self.process.poll() is None, (self.disk.folder.parent / "log").read_text()[-2000:]
            with suppress(httpx.HTTPError):
                self.http.get("/healthz")
                return
            time.sleep(0.1)

    def set_clock(self, ahead_s: int) -> None:
        """Set the clock of the server, of its worker and of its decoder."""
        unfinished = self.clock.with_suffix(".part")
        unfinished.write_text(str(ahead_s))
        unfinished.replace(self.clock)

    def rows(self) -> list[tuple[str, str]]:
        """Read id and status of all jobs from the database."""
        if not (self.store / "jobs.sqlite").exists():
            return []
        with sqlite3.connect(self.store / "jobs.sqlite", timeout=60) as database:
            return database.execute("select id, status from jobs").fetchall()

    def note_workers(self) -> list[int]:
        """Return the process ids of its worker and of the worker's decoder."""
        assert self.process is not None
        found: list[int] = []
        parents = [self.process.pid]
        while parents:
            done = subprocess.run(["pgrep", "-P", str(parents.pop())], capture_output=True, text=True)
            found += map(int, done.stdout.split())
            parents += map(int, done.stdout.split())
        self.workers |= set(found)
        return found

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process is not None
        self.note_workers()
        self.process.kill()
        self.process.wait()


def write_scans(folder: Path) -> dict[str, bytes]:
    """Return {kind: content of a file}."""
    scans, phantom = {}, chest_phantom(shape=SHAPE).scan
    for number in range(3):
        noise = np.random.default_rng(number).integers(-40, 40, SHAPE).astype(np.int16)
        path = folder / f"{number}.nii.gz"
        nifti.write_scan(Scan(phantom.values + noise, phantom.geometry), path)
        scans[f"nifti-{number}.nii.gz"] = path.read_bytes()
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        for file in write_series(phantom, folder / "series"):
            archive.write(file, file.name)
    scans["dicom.zip"] = (folder / "series.zip").read_bytes()
    scans["damaged.nii.gz"] = scans["nifti-0.nii.gz"][:2000]
    return scans


def run_server_with_threshold() -> None:
    """Run the command with a threshold in place of the networks."""
    from groundglass.apps.service import service
    from groundglass.cli import main as run_command
    from helpers.threshold_jobs import ThresholdFactory

    setattr(service, "ServiceWorkerFactory", lambda *options: ThresholdFactory(options))  # noqa: B010
    run_command()


if __name__ == "__main__":
    run_server_with_threshold()
