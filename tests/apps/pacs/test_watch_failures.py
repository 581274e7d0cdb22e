"""What fails beside a real Orthanc: a series, the server, the watcher itself."""

import io
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import RetryPolicy, WatchCounts
from groundglass.errors import ConfigError, PacsError
from helpers.dicom_phantom import BIRTH, NAME, NUMBER
from helpers.fake_batch import alive, pids, until
from helpers.fake_watch import PACE, Obedient, Running, is_empty, obedient, once, rows
from helpers.orthanc import PASSWORD, OrthancServer, series, small_chest, uid_of

pytestmark = [pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"), pytest.mark.usefixtures("credentials")]
PLANTED = re.compile(f"{re.escape(NAME)}|{NUMBER}|{BIRTH}|{PASSWORD}")


@pytest.mark.slow
def test_of_several_at_once_each_gets_its_own_and_one_that_fails_is_tried_and_left(
    orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path
) -> None:
    good, other, bad = (series(tmp_path / "studies" / name) for name in ("good", "other", "bad"))
    opener = obedient(tmp_path / "orders", **{uid_of(bad): "die"})
    orthanc.send(tmp_path / "studies")
    running = started(opener)
    until(lambda: "left after try 2 of 2" in running.said)
    until(lambda: running.stored == 2)
    assert re.findall(r"process died twice \(signal 9\).* \((.*)\)", running.said) == [
        "again in 0 s, after try 1 of 2",
        "left after try 2 of 2",
    ]
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(10)
    found = rows(tmp_path / "watch")
    assert found[uid_of(bad)][:2] == ("left", 2)
    assert "its process died twice (signal 9): out of memory, or a crash on this series" in found[uid_of(bad)][2]
    assert {found[uid_of(each)][0] for each in (good, other)} == {"done"}
    referenced = {
        pydicom.dcmread(io.BytesIO(each)).ReferencedSeriesSequence[0].SeriesInstanceUID
        for each in orthanc.instances("SEG")
    }
    assert referenced == {uid_of(good), uid_of(other)}
    assert is_empty(tmp_path / "watch")

    (tmp_path / "orders" / uid_of(bad)).unlink()
    assert once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts()
    assert once(orthanc, tmp_path / "watch", opener, again=True)[0] == WatchCounts(stored=1)


def test_what_is_refused_is_tried_again_when_it_changes(orthanc: OrthancServer, tmp_path: Path) -> None:
    scan = small_chest()
    gap = series(tmp_path / "gap")
    localizer = series(tmp_path / "localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    body = series(tmp_path / "body", type(scan)(np.full_like(scan.values, 40), scan.geometry))
    mr = series(tmp_path / "mr", Modality="MR")
    middle = next(file for file in gap if pydicom.dcmread(file).InstanceNumber == 4)
    for files in (localizer, body, mr, [file for file in gap if file != middle]):
        orthanc.stow(files)
    orthanc.wait_until_stable(4)
    opener = obedient(tmp_path / "orders")
    counts, said = once(orthanc, tmp_path / "watch", opener)
    assert counts == WatchCounts(refused=3)
    assert uid_of(mr) not in rows(tmp_path / "watch")
    found = rows(tmp_path / "watch")
    assert {state for state, _, _ in found.values()} == {"refused"}
    assert "series lacks 1 slice (behind slice 3 of 7" in found[uid_of(gap)][2]
    assert "the series is no CT (localizer)" in found[uid_of(localizer)][2]
    assert "no CT in" in found[uid_of(body)][2] or "no lung" in found[uid_of(body)][2]
    assert once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts()

    orthanc.stow([middle])
    until(lambda: once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts(stored=1), 20)
    assert rows(tmp_path / "watch")[uid_of(gap)][0] == "done"
    assert len(opener.begun) == 4
    assert not PLANTED.search(said)


def test_a_series_that_the_server_cannot_give_fails_and_the_next_is_done(
    start_orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    orthanc = start_orthanc(settings={"MaximumStorageCacheSize": 0})
    lost, good = series(tmp_path / "lost"), series(tmp_path / "good")
    orthanc.stow(lost)
    for path in (orthanc.folder / "db").rglob("*"):
        if path.is_file() and len(path.name) == 36 and path.stat().st_size > 2000:
            path.unlink()  # a disk that loses files
    orthanc.stow(good)
    orthanc.wait_until_stable(2)
    counts, said = once(orthanc, tmp_path / "watch", obedient(tmp_path / "orders"), RetryPolicy(pause_s=60))
    assert (counts.stored, counts.failed) == (1, 1)
    assert "again in 60 s, after try 1 of 5" in said
    assert rows(tmp_path / "watch")[uid_of(lost)][:2] == ("waiting", 1)
    assert "the server" in rows(tmp_path / "watch")[uid_of(lost)][2]


def test_a_server_that_is_away_or_refuses_is_told_in_one_line(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = obedient(tmp_path / "orders")
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", "wrong-word")
    with pytest.raises(PacsError, match=r"401 to a search for a study: .*the credentials"):
        once(orthanc, tmp_path / "watch", opener)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)
    with pytest.raises(PacsError, match=r"40\d to a search for a study.*--dicomweb"):
        watch(WatchOptions(orthanc.url, tmp_path / "web", dicomweb=True), PACE, True, opener=opener)
    with pytest.raises(ConfigError, match="remembers Orthanc http"):
        once(orthanc, tmp_path / "watch", opener, dicomweb=True)
    orthanc.stop()
    with pytest.raises(PacsError, match=r"the connection failed on a search for a study \(Connection refused\)"):
        once(orthanc, tmp_path / "watch", opener)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_leaves_nothing(
    which: signal.Signals, orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path
) -> None:
    opener = obedient(tmp_path / "orders", all=f"hang {tmp_path / 'pid'}")
    orthanc.stow(series(tmp_path / "study"))
    running = started(opener)
    if which is signal.SIGINT:  # while the worker works
        worker, _ = pids(tmp_path / "pid")
    else:  # while the server does not answer
        until(lambda: "watching" in running.said)
        orthanc.signal(signal.SIGSTOP)
        time.sleep(0.5)
        worker = 0
    running.process.send_signal(which)
    begun = time.monotonic()
    assert running.process.wait(10) == 0
    assert time.monotonic() - begun < 2
    orthanc.signal(signal.SIGCONT)
    assert running.said.endswith("stopped\n")
    assert is_empty(tmp_path / "watch")
    assert not worker or not alive(worker)
