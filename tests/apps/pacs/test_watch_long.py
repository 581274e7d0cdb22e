"""The watch of a real Orthanc over minutes: a hundred series in a row, and kills at any moment."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from helpers.fake_watch import StartWatcher, fake_worker_factory, is_spool_empty, ledger_rows
from helpers.orthanc import OrthancServer, series
from helpers.scripted_worker import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("credentials"), pytest.mark.timeout(900)]


def copies(files: list[Path], folder: Path, count: int) -> list[list[Path]]:
    """Copy a series, each time into a study of its own."""
    instances = [pydicom.dcmread(file) for file in files]
    all_files = []
    for number in range(count):
        target = folder / f"{number:03}"
        target.mkdir(parents=True)
        study, uid = generate_uid(), generate_uid()
        for instance in instances:
            instance.StudyInstanceUID, instance.SeriesInstanceUID = study, uid
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            instance.save_as(target / f"{instance.InstanceNumber}.dcm", enforce_file_format=True)
        all_files.append(sorted(target.iterdir()))
    return all_files


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_memory_stays_flat_over_a_hundred_series(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for files in copies(series(tmp_path / "one"), tmp_path / "many", 100):
        orthanc.stow(files)
    running = start_watcher(fake_worker_factory(tmp_path / "scripts"))
    memory = []
    for count in (10, 40, 70, 100):
        wait_until(lambda count=count: running.stored >= count, 400)  # type: ignore[misc]
        workers = subprocess.check_output(["pgrep", "-P", str(running.process.pid)], text=True).split()
        memory.append((count, memory_mib(running.process.pid), sum(memory_mib(int(pid)) for pid in workers)))
    with capsys.disabled():
        for count, watcher, workers_mib in memory:
            print(f"\n{count} series: watcher {watcher:.0f} MiB, workers {workers_mib:.0f} MiB", end="")  # noqa: T201
    assert memory[-1][1] < memory[0][1] + 10
    assert memory[-1][2] < memory[0][2] + 20
    assert sorted(orthanc.modalities()) == ["CT"] * 100 + ["SEG"] * 100 + ["SR"] * 100
    assert {state for state, _, _ in ledger_rows(tmp_path / "watch").values()} == {"done"}
    wait_until(lambda: is_spool_empty(tmp_path / "watch"))


def test_kills_of_watcher_and_server_lose_no_result_and_store_none_twice(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    generator = random.Random(7)
    unsent = copies(series(tmp_path / "one"), tmp_path / "many", 6)
    factory = fake_worker_factory(tmp_path / "scripts")
    kills = 0

    def states() -> set[str]:
        return {state for state, _, _ in ledger_rows(tmp_path / "watch").values()}

    while unsent or not factory.begun or states() != {"done"}:
        if unsent:
            orthanc.stow(unsent.pop())
        running = start_watcher(factory)
        time.sleep(generator.uniform(0.5, 4.0 + 0.2 * kills))  # longer and longer, for a slow machine
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        kills += 1
        if kills % 3 == 0:
            orthanc.stop()
            orthanc.start()
        assert kills < 100, running.output[-2000:]
    assert kills >= 6
    assert sorted(orthanc.modalities()) == ["CT"] * 6 + ["SEG"] * 6 + ["SR"] * 6
    assert orthanc.segmented_series() == set(ledger_rows(tmp_path / "watch"))
    assert all(tries == 0 for _, tries, _ in ledger_rows(tmp_path / "watch").values())
