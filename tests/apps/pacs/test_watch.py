"""The watcher beside a real Orthanc."""

import io
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from groundglass.apps.pacs.dicomweb import DicomWeb
from groundglass.apps.pacs.watcher import WatchCounts
from groundglass.errors import ConfigError
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from helpers.dicom_phantom import BIRTH, NAME, NUMBER
from helpers.fake_batch import alive, pids, until
from helpers.fake_engine import made_up_segmenter
from helpers.fake_watch import Obedient, Running, as_user, is_empty, obedient, once, rows
from helpers.orthanc import PASSWORD, OrthancServer, series, uid_of

pytestmark = [pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"), pytest.mark.usefixtures("credentials")]
PLANTED = re.compile(f"{re.escape(NAME)}|{NUMBER}|{BIRTH}|{PASSWORD}")


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
    later, early = date(2020, 3, 2), date(2020, 3, 1)
    assert once(orthanc, tmp_path / "later", opener, dicomweb=dicomweb, since=later)[0] == WatchCounts()
    counts, said = once(orthanc, tmp_path / "watch", opener, dicomweb=dicomweb, since=early)
    assert counts == WatchCounts(stored=1)
    check_results(orthanc, tmp_path / "study", made_up_segmenter())

    orthanc.wait_until_stable(3)  # the results too
    again, more = once(orthanc, tmp_path / "watch", opener, dicomweb=dicomweb)
    assert again == WatchCounts()  # neither on the series again nor on its own results
    assert opener.begun == [uid_of(files)]
    assert not PLANTED.search(said + more)
    assert uid_of(files) not in said
    assert uid_of(files)[-12:] in said

    # With all memory lost it makes the same results, and does not store them again.
    assert once(orthanc, tmp_path / "forgetful", opener)[0] == WatchCounts(stored=1)
    assert len(opener.begun) == 2
    assert orthanc.modalities() == ["CT", "SEG", "SR"]
    for path in (tmp_path / "watch").rglob("*"):
        assert not PLANTED.search(path.read_bytes().decode("latin-1") if path.is_file() else path.name)
    assert is_empty(tmp_path / "watch")


@pytest.mark.slow
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
    check_results(orthanc, tmp_path / "study", made_up_segmenter())
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
    assert once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts(stored=1)
    assert stored == [["findings.dcm"]]
    assert opener.begun == [uid_of(files)]
    check_results(orthanc, tmp_path / "study", made_up_segmenter())
    assert is_empty(tmp_path / "watch")


@pytest.mark.slow
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
    until(lambda: "going on after" in running.said, 5)
    check_results(orthanc, tmp_path / "study", made_up_segmenter())
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
    assert once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts()  # it may still grow
    orthanc.stop()
    orthanc.start()
    assert once(orthanc, tmp_path / "watch", opener)[0] == WatchCounts(stored=1)
    assert orthanc.stable == 0


def test_the_command_with_the_bundled_model(orthanc: OrthancServer, tmp_path: Path) -> None:
    files = series(tmp_path / "study", PatientBirthDate=f"no date {NAME}", PatientAge="PLANTED", OperatorsName=NAME)
    orthanc.send(tmp_path / "study")  # such values make pydicom warn, and quote them
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
    check_results(orthanc, tmp_path / "study", open_model())
    assert is_empty(tmp_path / "watch")
