"""What takes minutes beside a real Orthanc: a hundred series in a row, and kills at any moment."""

import io
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from helpers.fake_batch import until
from helpers.fake_watch import Obedient, Running, is_empty, obedient, rows
from helpers.orthanc import OrthancServer, series

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("credentials"), pytest.mark.timeout(900)]


def copies(files: list[Path], folder: Path, count: int) -> list[list[Path]]:
    """The same series again and again, each in a study of its own."""
    instances = [pydicom.dcmread(file) for file in files]
    made = []
    for number in range(count):
        place = folder / f"{number:03}"
        place.mkdir(parents=True)
        study, uid = generate_uid(), generate_uid()
        for instance in instances:
            instance.StudyInstanceUID, instance.SeriesInstanceUID = study, uid
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            instance.save_as(place / f"{instance.InstanceNumber}.dcm", enforce_file_format=True)
        made.append(sorted(place.iterdir()))
    return made


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_hundred_series_in_a_row_with_flat_memory(
    orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for files in copies(series(tmp_path / "one"), tmp_path / "many", 100):
        orthanc.stow(files)
    running = started(obedient(tmp_path / "orders"))
    seen = []
    for count in (10, 40, 70, 100):
        until(lambda count=count: running.stored >= count, 400)  # type: ignore[misc]
        child = subprocess.check_output(["pgrep", "-P", str(running.process.pid)], text=True)
        seen.append((count, memory_mib(running.process.pid), memory_mib(int(child))))
    with capsys.disabled():
        for count, watcher, worker in seen:
            print(f"\n{count} series: watcher {watcher:.0f} MiB, worker {worker:.0f} MiB", end="")  # noqa: T201
    assert seen[-1][1] < seen[0][1] + 10
    assert seen[-1][2] < seen[0][2] + 20
    assert sorted(orthanc.modalities()) == ["CT"] * 100 + ["SEG"] * 100 + ["SR"] * 100
    assert {state for state, _, _ in rows(tmp_path / "watch").values()} == {"done"}
    until(lambda: is_empty(tmp_path / "watch"))


def test_killed_again_and_again_it_loses_and_doubles_nothing(
    orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path
) -> None:
    """The server, too, is killed at times."""
    chance = random.Random(7)
    sent = copies(series(tmp_path / "one"), tmp_path / "many", 6)
    opener = obedient(tmp_path / "orders")
    kills = 0
    while len(opener.begun) == 0 or {state for state, _, _ in rows(tmp_path / "watch").values()} != {"done"} or sent:
        if sent:
            orthanc.stow(sent.pop())
        running = started(opener)
        time.sleep(chance.uniform(0.5, 4.0 + 0.2 * kills))  # longer and longer, for a slow machine
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        kills += 1
        if kills % 3 == 0:
            orthanc.stop()
            orthanc.start()
        assert kills < 100, running.said[-2000:]
    assert kills >= 6
    assert sorted(orthanc.modalities()) == ["CT"] * 6 + ["SEG"] * 6 + ["SR"] * 6
    segmented = {
        pydicom.dcmread(io.BytesIO(each)).ReferencedSeriesSequence[0].SeriesInstanceUID
        for each in orthanc.instances("SEG")
    }
    assert segmented == set(rows(tmp_path / "watch"))
    assert all(tries == 0 for _, tries, _ in rows(tmp_path / "watch").values())
