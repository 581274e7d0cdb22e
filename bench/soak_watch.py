"""Kill `watch` a hundred times beside a real Orthanc: no result may be stored twice, lost, or differ.

    python bench/soak_watch.py [--series 30] [--kills 100] [--minutes 60] [--seed 0] [--threshold]

Needs Orthanc and its DICOMweb plugin (Debian: orthanc orthanc-dicomweb). Series arrive all the time; every fifth time
Orthanc is killed too, and every seventh time the processes of the watcher before it. The exit code is 1 if a claim does
not hold at the end. With `--threshold` a threshold takes the place of the network, for a machine that is busy
otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from groundglass.inference.open_model import open_model
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.report.dicom_results import SEG_FILE
from groundglass.scan.phantom import chest_phantom

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.fake_engine import fake_segmenter
from helpers.fake_watch import environment_with_credentials, is_spool_empty, ledger_rows
from helpers.orthanc import OrthancServer, series
from helpers.scripted_worker import is_alive, wait_until

LAST_S = 3600.0  # for the watcher that is left alone


def copy_series(files: list[Path], folder: Path) -> list[Path]:
    """Copy a series into a study of its own."""
    folder.mkdir(parents=True)
    study, uid = generate_uid(), generate_uid()
    for number, file in enumerate(files):
        instance = pydicom.dcmread(file)
        instance.StudyInstanceUID, instance.SeriesInstanceUID = study, uid
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        instance.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


class WatchProcess:
    """`groundglass watch` in a process of its own."""

    def __init__(self, url: str, folder: Path, by_threshold: bool) -> None:
        self.log = folder.with_suffix(".log")
        arguments = [url, str(folder), str(folder.parent)]
        stand_in = ["-c", f"from helpers.fake_watch import main; main(*{arguments!r})"]
        command = stand_in if by_threshold else ["-m", "groundglass", "watch", url, "-o", str(folder), "--poll", "1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment_with_credentials() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdout=log,
                stderr=log,
            )

    def children(self) -> list[int]:
        """Return the process ids of its workers."""
        done = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return list(map(int, done.stdout.split()))

    def wait_until_it_watches(self) -> None:
        """Wait until it has written its first line, two minutes at most."""
        before, until = self.log.stat().st_size, time.monotonic() + 120.0
        while self.log.stat().st_size == before and time.monotonic() < until:
            time.sleep(0.1)

    def kill(self) -> list[int]:
        """Kill it, and return the process ids of its workers."""
        workers = self.children()
        self.process.kill()
        self.process.wait()
        return workers


def undisturbed_mask(folder: Path, by_threshold: bool) -> NDArray[np.uint8]:
    """Return the Segmentation's frames that a run gets which nobody disturbs."""
    results = segment(read_scan(folder), fake_segmenter() if by_threshold else open_model()).dicom_results
    return pydicom.dcmread(BytesIO(results.files[SEG_FILE])).pixel_array


def disturb(orthanc: OrthancServer, folder: Path, unsent: list[list[Path]], options: Namespace) -> list[list[int]]:
    """Kill the watcher again and again, then leave one alone until every series is done.

    Returns:
        For each kill the process ids of the watcher's workers.
    """
    generator, total, kills = random.Random(options.seed), len(unsent), list[list[int]]()
    until = time.monotonic() + 60 * options.minutes
    while len(kills) < options.kills and time.monotonic() < until:
        watcher = WatchProcess(orthanc.url, folder, options.threshold)
        for _ in range(1 + len(unsent) // (options.kills - len(kills))):
            if unsent:
                orthanc.stow(unsent.pop())
        if len(kills) % 4:  # else it may be killed while it starts
            watcher.wait_until_it_watches()
        time.sleep(generator.uniform(0.0, 6.0))
        if len(kills) % 7 == 6:
            for pid in watcher.children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(generator.uniform(0.5, 5.0))
        kills.append(watcher.kill())
        if len(kills) % 5 == 0:
            orthanc.stop()
            orthanc.start()
    for files in unsent:
        orthanc.stow(files)
    watcher = WatchProcess(orthanc.url, folder, options.threshold)
    wait_until(lambda: [state for state, _, _ in ledger_rows(folder).values()] == ["done"] * total, LAST_S)
    wait_until(lambda: is_spool_empty(folder))
    kills.append(watcher.kill())
    return kills


def judge(orthanc: OrthancServer, folder: Path, total: int, expected: NDArray[np.uint8]) -> list[str]:
    """Return what does not hold at the end."""
    wrong = []
    rows = ledger_rows(folder)
    if Counter(state for state, _, _ in rows.values()) != {"done": total}:
        wrong.append(f"the ledger: {Counter((state, reason) for state, _, reason in rows.values())}")
    counts = Counter(orthanc.modalities())
    if counts != {"CT": total, "SEG": total, "SR": total}:
        wrong.append(f"Orthanc holds {dict(counts)}")
    if orthanc.segmented_series() != rows.keys():
        wrong.append("a series without its Segmentation, or a Segmentation of none")
    masks = [pydicom.dcmread(BytesIO(content)).pixel_array for content in orthanc.instances("SEG")]
    if not all(np.array_equal(mask, expected) for mask in masks):
        wrong.append("a Segmentation is another one than that of an undisturbed run")
    return wrong


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=30)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no more is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, orthanc = Path(name) / "watch", OrthancServer(Path(name) / "orthanc")
        files = series(Path(name) / "one", chest_phantom(shape=(8, 64, 80)).scan)
        expected = undisturbed_mask(files[0].parent, options.threshold)
        unsent = [copy_series(files, Path(name) / "many" / str(number)) for number in range(options.series)]
        orthanc.start()
        started = time.monotonic()
        try:
            kills = disturb(orthanc, folder, unsent, options)
            time.sleep(2.0)
            wrong = judge(orthanc, folder, options.series, expected)
            wrong += [f"worker {pid} outlives its watcher" for workers in kills for pid in workers if is_alive(pid)]
            tries = sum(tries for _, tries, _ in ledger_rows(folder).values())
        finally:
            orthanc.stop()
        number = len(kills) - 1
        print(f"{options.series} series, seed {options.seed}: {number} kills of watch, {number // 5} of Orthanc")
        print(f"{time.monotonic() - started:.0f} s, {tries} failed tries")
        print("\n".join(wrong) or "nothing lost, nothing stored twice")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
