"""The watch of a real Orthanc."""

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

from groundglass.apps.pacs.dicomweb import DicomWebArchive
from groundglass.apps.pacs.watcher import WatchCounts
from groundglass.errors import ConfigError
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from helpers.dicom_phantom import BIRTH, NAME, NUMBER
from helpers.fake_engine import fake_segmenter
from helpers.fake_watch import (
    StartWatcher,
    environment_with_credentials,
    fake_worker_factory,
    is_spool_empty,
    ledger_rows,
    watch_once,
)
from helpers.orthanc import PASSWORD, OrthancServer, series, uid_of
from helpers.scripted_worker import hanging_pids, is_alive, wait_until

pytestmark = [pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"), pytest.mark.usefixtures("credentials")]
PLANTED = re.compile(f"{re.escape(NAME)}|{NUMBER}|{BIRTH}|{PASSWORD}")


def check_results(orthanc: OrthancServer, source: Path, segmenter: Segmenter) -> None:
    """Check that the study holds one Segmentation and one report, and that the mask is the one of `segment`."""
    assert orthanc.modalities() == ["CT", "SEG", "SR"]
    assert len(orthanc.get("/studies")) == 1
    (stored,), (report,) = orthanc.instances("SEG"), orthanc.instances("SR")
    scan = read_scan(source)
    assert scan.series is not None
    expected = segment(scan, segmenter).lesions.voxels
    seg = hd.seg.segread(io.BytesIO(stored))
    uids = [header.SOPInstanceUID for header in scan.series.headers]
    classes = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    pixels = classes.any(axis=-1)
    np.testing.assert_array_equal(pixels, expected)
    assert expected.any()
    assert seg.StudyInstanceUID == scan.series.headers[0].StudyInstanceUID
    sr = pydicom.dcmread(io.BytesIO(report))
    assert (sr.StudyInstanceUID, sr.PatientID) == (seg.StudyInstanceUID, NUMBER)
    assert seg.SOPInstanceUID in str(sr.CurrentRequestedProcedureEvidenceSequence)


@pytest.mark.parametrize("dicomweb", [False, True], ids=["storescu-changes", "stow-qido"])
def test_a_series_is_segmented_and_its_results_stored_once(
    orthanc: OrthancServer, tmp_path: Path, dicomweb: bool
) -> None:
    files, factory = series(tmp_path / "study"), fake_worker_factory(tmp_path / "scripts")
    if dicomweb:
        orthanc.stow(files)
    else:
        orthanc.send(tmp_path / "study")
        orthanc.wait_until_stable(1)
    later, early = date(2020, 3, 2), date(2020, 3, 1)
    assert watch_once(orthanc, tmp_path / "later", factory, dicomweb=dicomweb, since=later)[0] == WatchCounts()
    counts, output = watch_once(orthanc, tmp_path / "watch", factory, dicomweb=dicomweb, since=early)
    assert counts == WatchCounts(stored=1)
    check_results(orthanc, tmp_path / "study", fake_segmenter())

    orthanc.wait_until_stable(3)  # the results too
    again, more_output = watch_once(orthanc, tmp_path / "watch", factory, dicomweb=dicomweb)
    assert again == WatchCounts()  # neither for the series nor for its results, which are series too
    assert factory.begun == [uid_of(files)]
    assert not PLANTED.search(output + more_output)
    assert uid_of(files) not in output
    assert uid_of(files)[-12:] in output

    # Without the ledger it makes the same results, and does not store them again.
    assert watch_once(orthanc, tmp_path / "without ledger", factory)[0] == WatchCounts(stored=1)
    assert len(factory.begun) == 2
    assert orthanc.modalities() == ["CT", "SEG", "SR"]
    for path in (tmp_path / "watch").rglob("*"):
        assert not PLANTED.search(path.read_bytes().decode("latin-1") if path.is_file() else path.name)
    assert is_spool_empty(tmp_path / "watch")


@pytest.mark.slow
def test_a_watcher_that_is_killed_while_it_segments_starts_the_series_again(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    files = series(tmp_path / "study")
    factory = fake_worker_factory(tmp_path / "scripts", all=f"hang once {tmp_path / 'pid'}")
    first = start_watcher(factory)
    orthanc.send(tmp_path / "study")
    worker, owner = hanging_pids(tmp_path / "pid")
    assert owner == first.process.pid
    spool = tmp_path / "watch" / "spool"
    assert list(spool.rglob("*.dcm"))
    for path in (tmp_path / "watch", spool, *spool.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "watch" / "watch.sqlite").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="another groundglass watch uses"):
        watch_once(orthanc, tmp_path / "watch", factory)

    os.kill(owner, signal.SIGKILL)
    first.process.wait()
    wait_until(lambda: not is_alive(worker), 10)
    second = start_watcher(factory)
    wait_until(lambda: second.stored == 1)
    check_results(orthanc, tmp_path / "study", fake_segmenter())
    assert factory.begun == [uid_of(files)] * 2
    assert ledger_rows(tmp_path / "watch") == {uid_of(files): ("done", 0, "")}
    wait_until(lambda: is_spool_empty(tmp_path / "watch"))


@pytest.mark.slow
def test_a_watcher_that_is_killed_while_it_stores_completes_the_storage(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the two results, the one that was stored before is not stored again."""
    files, factory = series(tmp_path / "study"), fake_worker_factory(tmp_path / "scripts")
    orthanc.stow(files)
    orthanc.wait_until_stable(1)
    store = DicomWebArchive.store
    stored: list[list[str]] = []

    def store_one_and_die(self: DicomWebArchive, study_uid: str, paths: list[Path]) -> None:
        store(self, study_uid, [path for path in paths if path.name == "lesions.dcm"])
        raise KeyboardInterrupt

    def store_and_note(self: DicomWebArchive, study_uid: str, paths: list[Path]) -> None:
        stored.append([path.name for path in paths])
        store(self, study_uid, paths)

    monkeypatch.setattr(DicomWebArchive, "store", store_one_and_die)
    with pytest.raises(KeyboardInterrupt):
        watch_once(orthanc, tmp_path / "watch", factory)
    assert ledger_rows(tmp_path / "watch")[uid_of(files)][0] == "segmented"
    assert not is_spool_empty(tmp_path / "watch")
    assert orthanc.modalities() == ["CT", "SEG"]
    monkeypatch.setattr(DicomWebArchive, "store", store_and_note)
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)
    assert stored == [["findings.dcm"]]
    assert factory.begun == [uid_of(files)]
    check_results(orthanc, tmp_path / "study", fake_segmenter())
    assert is_spool_empty(tmp_path / "watch")


@pytest.mark.slow
def test_a_restart_of_orthanc_is_not_a_failure_of_the_series(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    files = series(tmp_path / "study")
    factory = fake_worker_factory(tmp_path / "scripts", all=f"until {tmp_path / 'go'}")
    orthanc.send(tmp_path / "study")
    running = start_watcher(factory)
    wait_until(lambda: bool(factory.begun))
    orthanc.stop()
    (tmp_path / "go").touch()
    message = "waiting: the connection failed during a search for an instance (Connection refused)"
    wait_until(lambda: message in running.output)
    orthanc.start()
    wait_until(lambda: running.stored == 1)
    wait_until(lambda: "resumed after" in running.output, 5)
    check_results(orthanc, tmp_path / "study", fake_segmenter())
    assert ledger_rows(tmp_path / "watch") == {uid_of(files): ("done", 0, "")}
    assert factory.begun == [uid_of(files)]

    series(tmp_path / "later")
    orthanc.send(tmp_path / "later")
    wait_until(lambda: running.stored == 2)
    assert orthanc.modalities() == ["CT", "CT", "SEG", "SEG", "SR", "SR"]


@pytest.mark.slow
def test_a_series_that_orthanc_never_logged_as_stable_is_found_after_its_restart(
    start_orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    orthanc = start_orthanc(stable_age_s=60)
    orthanc.stow(series(tmp_path / "study"))
    factory = fake_worker_factory(tmp_path / "scripts")
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts()  # it may still grow
    orthanc.stop()
    orthanc.start()
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)
    assert orthanc.stable == 0


@pytest.mark.slow
def test_the_command_with_the_bundled_model(orthanc: OrthancServer, tmp_path: Path) -> None:
    files = series(tmp_path / "study", PatientBirthDate=f"no date {NAME}", PatientAge="PLANTED", OperatorsName=NAME)
    orthanc.send(tmp_path / "study")  # such values make pydicom warn, and quote them
    orthanc.wait_until_stable(1)
    command = [sys.executable, "-c", "from groundglass.cli import main; main()", "watch", orthanc.url, "--once"]
    arguments, environment = [*command, "-o", str(tmp_path / "watch")], environment_with_credentials()
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"watching {orthanc.url}; .*/watch knows no series yet\n"
        rf"…{uid_of(files)[-12:]}: 8 instances retrieved\n"
        rf"…{uid_of(files)[-12:]}: series 2 \(8 slices [\d.]+ mm apart\) segmented\n"
        rf"…{uid_of(files)[-12:]}: results stored, \d+\.\d s\n"
        r"1 stored, 0 refused, 0 failed\n",
        done.stdout,
    )
    check_results(orthanc, tmp_path / "study", open_model())
    assert is_spool_empty(tmp_path / "watch")
