"""The watcher beside a real Orthanc."""

import io
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicom_phantom import BIRTH, NAME, NUMBER
from groundglass.analysis import segment
from groundglass.errors import ConfigError, PacsError
from groundglass.inference.segmenter import Segmenter
from groundglass.pacs.dicomweb import DicomWeb
from groundglass.pacs.watch import Pace, Tally, Wish, watch
from groundglass.scan.reader import read_scan
from orthanc_server import PASSWORD, USER, OrthancServer, series, small_chest, uid_of
from pacs_stand_ins import PACE, Obedient, Running, as_user, grey_band, obedient
from stand_ins import alive, pids, until

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
PLANTED = re.compile(f"{re.escape(NAME)}|{NUMBER}|{BIRTH}|{PASSWORD}")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDGLASS_PACS_USER", USER)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)


@pytest.fixture
def started(orthanc: OrthancServer, tmp_path: Path) -> Iterator[Callable[[Obedient], Running]]:
    """Starts watchers in processes of their own; all of them end with the test."""
    running: list[Running] = []

    def start(opener: Obedient) -> Running:
        running.append(Running(orthanc.url, tmp_path / "watch", opener.orders))
        return running[-1]

    yield start
    for each in running:
        each.end()


def once(orthanc: OrthancServer, folder: Path, opener: Obedient, pace: Pace = PACE, **wish: Any) -> tuple[Tally, str]:
    """What became of what is there, and what was said."""
    lines: list[str] = []
    url = orthanc.url + ("/dicom-web" if wish.get("dicomweb") else "")
    return watch(Wish(url, folder, **wish), pace, True, lines.append, opener), "\n".join(lines)


def rows(folder: Path) -> dict[str, tuple[str, int, str]]:
    """{UID: (state, tries, reason)} as the ledger's file has them."""
    with sqlite3.connect(folder / "watch.sqlite") as db:
        found = db.execute("SELECT series_uid, state, tries, coalesce(reason, '') FROM series").fetchall()
    return {uid: (state, tries, reason) for uid, state, tries, reason in found}


def is_empty(folder: Path) -> bool:
    return not list((folder / "spool").iterdir())


def check_results(orthanc: OrthancServer, source: Path, segmenter: Segmenter) -> None:
    """One Segmentation and one report are in the study, and the mask is the one that `segment` gives."""
    assert orthanc.modalities() == ["CT", "SEG", "SR"]
    assert len(orthanc.get("/studies")) == 1
    (stored,), (report,) = orthanc.instances("SEG"), orthanc.instances("SR")
    scan = read_scan(source)
    assert scan.series is not None
    expected = segment(scan, segmenter).lesions.voxels
    seg = hd.seg.segread(io.BytesIO(stored))
    uids = [header.SOPInstanceUID for header in scan.series.headers]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)[..., 0]
    np.testing.assert_array_equal(pixels, expected)
    assert expected.any()
    assert seg.StudyInstanceUID == scan.series.headers[0].StudyInstanceUID
    sr = pydicom.dcmread(io.BytesIO(report))
    assert (sr.StudyInstanceUID, sr.PatientID) == (seg.StudyInstanceUID, NUMBER)
    assert seg.SOPInstanceUID in str(sr.CurrentRequestedProcedureEvidenceSequence)


@pytest.mark.parametrize("dicomweb", [False, True], ids=["storescu-changes", "stow-qido"])
def test_a_series_gets_its_results_once(orthanc: OrthancServer, tmp_path: Path, dicomweb: bool) -> None:
    files, opener = series(tmp_path / "study"), obedient(tmp_path / "orders")
    if dicomweb:
        orthanc.stow(files)
    else:
        orthanc.send(tmp_path / "study")
        orthanc.wait_until_stable(1)
    tally, said = once(orthanc, tmp_path / "watch", opener, dicomweb=dicomweb)
    assert tally == Tally(stored=1)
    check_results(orthanc, tmp_path / "study", grey_band())

    orthanc.wait_until_stable(3)  # the results too
    again, more = once(orthanc, tmp_path / "watch", opener, dicomweb=dicomweb)
    assert again == Tally()  # neither on the series again nor on its own results
    assert opener.begun == [uid_of(files)]
    assert not PLANTED.search(said + more)
    assert uid_of(files) not in said
    assert uid_of(files)[-12:] in said

    # With all memory lost it makes the same results, and does not store them again.
    assert once(orthanc, tmp_path / "forgetful", opener)[0] == Tally(stored=1)
    assert len(opener.begun) == 2
    assert orthanc.modalities() == ["CT", "SEG", "SR"]
    for path in (tmp_path / "watch").rglob("*"):
        assert not PLANTED.search(path.read_bytes().decode("latin-1") if path.is_file() else path.name)
    assert is_empty(tmp_path / "watch")


def test_killed_in_the_middle_it_goes_on(
    orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path
) -> None:
    files = series(tmp_path / "study")
    opener = obedient(tmp_path / "orders", all=f"hang once {tmp_path / 'pid'}")
    first = started(opener)
    orthanc.send(tmp_path / "study")
    worker, owner = pids(tmp_path / "pid")
    assert owner == first.process.pid
    spool = tmp_path / "watch" / "spool"
    assert list(spool.rglob("*.dcm"))
    for path in (tmp_path / "watch", spool, *spool.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "watch" / "watch.sqlite").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="another groundglass watch works in"):
        once(orthanc, tmp_path / "watch", opener)

    os.kill(owner, signal.SIGKILL)
    first.process.wait()
    until(lambda: not alive(worker), 10)
    second = started(opener)
    until(lambda: second.stored == 1)
    check_results(orthanc, tmp_path / "study", grey_band())
    assert opener.begun == [uid_of(files)] * 2
    assert rows(tmp_path / "watch") == {uid_of(files): ("done", 0, "")}
    until(lambda: is_empty(tmp_path / "watch"))


def test_killed_before_the_results_are_stored_it_stores_what_it_had(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the first of two results was stored already, it stores the other one alone."""
    files, opener = series(tmp_path / "study"), obedient(tmp_path / "orders")
    orthanc.stow(files)
    orthanc.wait_until_stable(1)
    whole = DicomWeb.store
    stored: list[list[str]] = []

    def die(self: DicomWeb, study_uid: str, paths: list[Path]) -> None:
        whole(self, study_uid, [path for path in paths if path.name == "lesions.dcm"])
        raise KeyboardInterrupt

    def note(self: DicomWeb, study_uid: str, paths: list[Path]) -> None:
        stored.append([path.name for path in paths])
        whole(self, study_uid, paths)

    monkeypatch.setattr(DicomWeb, "store", die)
    with pytest.raises(KeyboardInterrupt):
        once(orthanc, tmp_path / "watch", opener)
    assert rows(tmp_path / "watch")[uid_of(files)][0] == "segmented"
    assert not is_empty(tmp_path / "watch")
    assert orthanc.modalities() == ["CT", "SEG"]
    monkeypatch.setattr(DicomWeb, "store", note)
    assert once(orthanc, tmp_path / "watch", opener)[0] == Tally(stored=1)
    assert stored == [["findings.dcm"]]
    assert opener.begun == [uid_of(files)]
    check_results(orthanc, tmp_path / "study", grey_band())
    assert is_empty(tmp_path / "watch")


def test_orthanc_restarted_in_the_middle_is_no_failure(
    orthanc: OrthancServer, started: Callable[[Obedient], Running], tmp_path: Path
) -> None:
    files = series(tmp_path / "study")
    opener = obedient(tmp_path / "orders", all=f"until {tmp_path / 'go'}")
    orthanc.send(tmp_path / "study")
    running = started(opener)
    until(lambda: bool(opener.begun))
    orthanc.stop()
    (tmp_path / "go").touch()
    until(lambda: "waiting: the connection failed on a search for an instance (Connection refused)" in running.said)
    orthanc.start()
    until(lambda: running.stored == 1)
    assert "going on after" in running.said
    check_results(orthanc, tmp_path / "study", grey_band())
    assert rows(tmp_path / "watch") == {uid_of(files): ("done", 0, "")}
    assert opener.begun == [uid_of(files)]

    series(tmp_path / "later")
    orthanc.send(tmp_path / "later")
    until(lambda: running.stored == 2)
    assert orthanc.modalities() == ["CT", "CT", "SEG", "SEG", "SR", "SR"]


def test_a_series_that_orthanc_never_called_stable_is_found(
    start_orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    orthanc = start_orthanc(stable_age_s=60)
    orthanc.stow(series(tmp_path / "study"))
    opener = obedient(tmp_path / "orders")
    assert once(orthanc, tmp_path / "watch", opener)[0] == Tally()  # it may still grow
    orthanc.stop()
    orthanc.start()
    assert once(orthanc, tmp_path / "watch", opener)[0] == Tally(stored=1)
    assert orthanc.stable == 0


def test_of_several_at_once_each_gets_its_own_and_one_that_fails_is_tried_and_left(
    orthanc: OrthancServer, tmp_path: Path
) -> None:
    good, other, bad, slow = (series(tmp_path / name) for name in ("good", "other", "bad", "slow"))
    orders = {uid_of(bad): "die", uid_of(slow): f"hang {tmp_path / 'pid'}"}
    opener = obedient(tmp_path / "orders", **orders)
    for files in (bad, slow, good, other):
        orthanc.stow(files)
    orthanc.wait_until_stable(4)
    pace = Pace(poll_s=0.2, time_limit_s=3, pause_s=0.1, tries=2)
    tally, said = once(orthanc, tmp_path / "watch", opener, pace)
    assert (tally.stored, tally.refused) == (2, 0)
    begun = time.monotonic()
    while time.monotonic() < begun + 60 and {rows(tmp_path / "watch")[uid_of(each)][0] for each in (bad, slow)} != {
        "left"
    }:
        said += once(orthanc, tmp_path / "watch", opener, pace)[1]
    found = rows(tmp_path / "watch")
    assert found[uid_of(bad)][:2] == found[uid_of(slow)][:2] == ("left", 2)
    assert "its process died twice (signal 9)" in found[uid_of(bad)][2]
    assert "took more than 3 s: give it more with --time-limit" in found[uid_of(slow)][2]
    assert re.search(r"failed: its process .* \(again in 0 s, after try 1 of 2\)", said)
    assert re.search(r"failed: its process .* \(left after try 2 of 2\)", said)
    assert {found[uid_of(each)][0] for each in (good, other)} == {"done"}
    referenced = {
        pydicom.dcmread(io.BytesIO(each)).ReferencedSeriesSequence[0].SeriesInstanceUID
        for each in orthanc.instances("SEG")
    }
    assert referenced == {uid_of(good), uid_of(other)}
    assert is_empty(tmp_path / "watch")

    for each in (bad, slow):
        (tmp_path / "orders" / uid_of(each)).unlink()
    assert once(orthanc, tmp_path / "watch", opener)[0] == Tally()
    assert once(orthanc, tmp_path / "watch", opener, again=True)[0] == Tally(stored=2)


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
    tally, said = once(orthanc, tmp_path / "watch", opener)
    assert tally == Tally(refused=3)
    assert uid_of(mr) not in rows(tmp_path / "watch")
    found = rows(tmp_path / "watch")
    assert {state for state, _, _ in found.values()} == {"refused"}
    assert "series lacks 1 slice (behind slice 3 of 7" in found[uid_of(gap)][2]
    assert "the series is no CT (localizer)" in found[uid_of(localizer)][2]
    assert "no CT in" in found[uid_of(body)][2] or "no lung" in found[uid_of(body)][2]
    assert once(orthanc, tmp_path / "watch", opener)[0] == Tally()

    orthanc.stow([middle])
    until(lambda: once(orthanc, tmp_path / "watch", opener)[0] == Tally(stored=1), 20)
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
    tally, said = once(orthanc, tmp_path / "watch", obedient(tmp_path / "orders"), Pace(pause_s=60))
    assert (tally.stored, tally.failed) == (1, 1)
    assert "again in 60 s, after try 1 of 5" in said
    assert rows(tmp_path / "watch")[uid_of(lost)][:2] == ("waiting", 1)
    assert "the server" in rows(tmp_path / "watch")[uid_of(lost)][2]


def test_a_server_that_is_away_or_refuses_is_told_in_one_line(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = obedient(tmp_path / "orders")
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", "wrong-word")
    with pytest.raises(PacsError, match=r"401 to the question what changed: .*, credentials"):
        once(orthanc, tmp_path / "watch", opener)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)
    with pytest.raises(PacsError, match=r"400 to a search for series; .*--dicomweb"):
        watch(Wish(orthanc.url, tmp_path / "web", dicomweb=True), PACE, True, opener=opener)
    with pytest.raises(ConfigError, match="remembers Orthanc http"):
        once(orthanc, tmp_path / "watch", opener, dicomweb=True)
    orthanc.stop()
    with pytest.raises(PacsError, match=r"the connection failed on the question what changed \(Connection refused\)"):
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


def test_the_command_with_the_bundled_model(orthanc: OrthancServer, tmp_path: Path) -> None:
    files = series(tmp_path / "study")
    orthanc.send(tmp_path / "study")
    orthanc.wait_until_stable(1)
    command = [sys.executable, "-c", "from groundglass.cli import main; main()", "watch", orthanc.url, "--once"]
    done = subprocess.run([*command, "-o", tmp_path / "watch"], capture_output=True, text=True, env=as_user())
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"watching {orthanc.url}; .*/watch knows no series yet\n"
        rf"…{uid_of(files)[-12:]}: 8 instances retrieved\n"
        rf"…{uid_of(files)[-12:]}: results stored, \d+\.\d s\n"
        r"1 stored, 0 refused, 0 failed\n",
        done.stdout,
    )
    check_results(orthanc, tmp_path / "study", Segmenter.load())
    assert is_empty(tmp_path / "watch")
