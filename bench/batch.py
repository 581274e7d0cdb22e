"""Measure the throughput of a batch by the number of workers, and its memory over many scans, on phantoms.

python bench/batch.py throughput [--scans 8] [--rounds 2] [--workers 1 --workers 2]
python bench/batch.py memory [--scans 200] [--growth-mib MIB]     exit code 1 if memory grows more after the warm-up
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from groundglass.apps.batch.processing import BatchWorkerFactory
from groundglass.apps.batch.records import ItemStatus
from groundglass.apps.batch.run import BatchProgress, plan_batch, run_batch
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from groundglass.workers import available_cores

SMALL, LARGE = (12, 96, 128), (48, 288, 352)  # (z, y, x)
UNIQUE_PHANTOMS = 4  # the other scans are copies of these
WARM_UP_SCANS = 20


def make_scans(folder: Path, count: int, shape: tuple[int, int, int]) -> Path:
    source = folder / "scans"
    source.mkdir()
    for number in range(count):
        path = source / f"{number}.nii.gz"
        if number < UNIQUE_PHANTOMS:
            nifti.write_scan(chest_phantom(number, shape).scan, path)
        else:
            shutil.copy(source / f"{number % UNIQUE_PHANTOMS}.nii.gz", path)
    return source


def throughput(folder: Path, scans: int, rounds: int, workers: list[int]) -> None:
    source = make_scans(folder, scans, LARGE)
    shape = " x ".join(map(str, LARGE))
    print(f"{scans} phantoms of {shape}, {available_cores()} cores, load {os.getloadavg()[0]:.1f} before")
    rates: dict[int, list[float]] = {count: [] for count in workers}
    for number in range(rounds):
        for count in workers:  # in turns, so that other load on the machine affects all counts alike
            planned = plan_batch(str(source), folder / f"out-{number}-{count}")
            progress, begun = BatchProgress(planned), time.perf_counter()
            run_batch(planned, progress, count)
            seconds = time.perf_counter() - begun
            assert not progress.failed
            rates[count].append(3600 * scans / seconds)
            print(
                f"round {number + 1}, workers {count}: {seconds:.1f} s, {rates[count][-1]:.0f} scans an hour",
                flush=True,
            )
    for count in workers:
        mean = np.mean(rates[count])
        print(f"workers {count}: {mean:.0f} scans an hour, {mean / np.mean(rates[workers[0]]):.2f} times the first")


def memory(folder: Path, scans: int, growth_mib: float | None) -> int:
    source = make_scans(folder, scans, SMALL)
    planned = plan_batch(str(source), folder / "out")
    process_item = BatchWorkerFactory(planned.settings, available_cores())()
    resident = []
    for item in planned.items:
        assert process_item(item).status is ItemStatus.DONE
        resident.append(resident_mib())
    warm = min(WARM_UP_SCANS, scans // 2)
    growth = resident[-1] - resident[warm]
    print(
        f"{scans} scans in one process: {resident[0]:.0f} MiB after the first, {resident[warm]:.0f} after "
        f"{warm + 1}, {resident[-1]:.0f} after the last, {max(resident):.0f} at most; growth {growth:.1f} MiB"
    )
    return int(growth_mib is not None and growth > growth_mib)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=("throughput", "memory"))
    parser.add_argument("--scans", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--growth-mib", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="groundglass-") as folder:
        if arguments.measure == "memory":
            return memory(Path(folder), arguments.scans or 200, arguments.growth_mib)
        throughput(Path(folder), arguments.scans or 8, arguments.rounds, arguments.workers or [1, 2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
