"""Failures in the watch of a real Orthanc: of a series, of the server, of the watcher itself."""

import io
import re
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from groundglass.apps.pacs.access import Credentials
from groundglass.apps.pacs.retrieval import RetrievalTask, RetrieverFactory
from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import RetryPolicy, WatchCounts
from groundglass.errors import ConfigError, PacsError
from groundglass.workers import MemoryLimitError, Worker
from helpers.dicom_phantom import BIRTH, NAME, NUMBER
from helpers.fake_watch import (
    QUICK_RETRIES,
    StartWatcher,
    fake_worker_factory,
    is_spool_empty,
    ledger_rows,
    watch_once,
)
from helpers.orthanc import PASSWORD, OrthancServer, series, small_chest, uid_of
from helpers.scripted_worker import hanging_pids, is_alive, wait_until

pytestmark = [pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"), pytest.mark.usefixtures("credentials")]
PLANTED = re.compile(f"{re.escape(NAME)}|{NUMBER}|{BIRTH}|{PASSWORD}")


def test_what_the_server_sends_is_parsed_in_another_process(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("parsed in the process of the watcher")

    orthanc.stow(series(tmp_path / "study"))
    orthanc.wait_until_stable(1)
    monkeypatch.setattr("dicomweb_client.DICOMwebClient.iter_series", refuse)
    factory = fake_worker_factory(tmp_path / "scripts")
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)


@pytest.mark.thorough
def test_an_image_that_takes_too_much_memory_costs_its_series_alone(serve: Callable[..., str], tmp_path: Path) -> None:
    image = pydicom.dcmread(series(tmp_path / "study")[0])
    image.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    image.PixelData = bytes(256 << 20)
    body = io.BytesIO()
    image.save_as(body, enforce_file_format=True)
    assert len(body.getvalue()) < 1 << 20
    url = serve(lambda *_: (200, body.getvalue()))
    retriever = Worker(RetrieverFactory(url, Credentials(), None), 60, 1, memory_bytes=250 << 20)
    with closing(retriever), pytest.raises(MemoryLimitError):
        retriever.run(RetrievalTask("1.2", "1.2.3", tmp_path))


@pytest.mark.slow
def test_a_series_that_crashes_the_worker_is_given_up_and_the_others_get_their_results(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    good, other, bad = (series(tmp_path / "studies" / name) for name in ("good", "other", "bad"))
    factory = fake_worker_factory(tmp_path / "scripts", **{uid_of(bad): "die"})
    orthanc.send(tmp_path / "studies")
    running = start_watcher(factory)
    wait_until(lambda: "given up after try 2 of 2" in running.output)
    wait_until(lambda: running.stored == 2)
    assert re.findall(r"process died twice \(signal 9\).* \((.*)\)", running.output) == [
        "again in 0 s, after try 1 of 2",
        "given up after try 2 of 2",
    ]
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(10)
    found = ledger_rows(tmp_path / "watch")
    assert found[uid_of(bad)][:2] == ("left", 2)
    assert (
        "its segmentation: its process died twice (signal 9): out of memory, or a crash on this series"
        in found[uid_of(bad)][2]
    )
    assert {found[uid_of(files)][0] for files in (good, other)} == {"done"}
    assert orthanc.segmented_series() == {uid_of(good), uid_of(other)}
    assert is_spool_empty(tmp_path / "watch")

    (tmp_path / "scripts" / uid_of(bad)).unlink()
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts()
    assert watch_once(orthanc, tmp_path / "watch", factory, again=True)[0] == WatchCounts(stored=1)


@pytest.mark.slow
def test_a_refused_series_is_tried_again_when_it_changes(orthanc: OrthancServer, tmp_path: Path) -> None:
    scan = small_chest()
    gap = series(tmp_path / "gap")
    localizer = series(tmp_path / "localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    body = series(tmp_path / "body", type(scan)(np.full_like(scan.values, 40), scan.geometry))
    mr = series(tmp_path / "mr", Modality="MR")
    middle = next(file for file in gap if pydicom.dcmread(file).InstanceNumber == 4)
    for files in (localizer, body, mr, [file for file in gap if file != middle]):
        orthanc.stow(files)
    orthanc.wait_until_stable(4)
    factory = fake_worker_factory(tmp_path / "scripts")
    counts, output = watch_once(orthanc, tmp_path / "watch", factory)
    assert counts == WatchCounts(refused=3)
    assert uid_of(mr) not in ledger_rows(tmp_path / "watch")
    found = ledger_rows(tmp_path / "watch")
    assert {state for state, _, _ in found.values()} == {"refused"}
    assert "series lacks 1 slice (behind slice 3 of 7" in found[uid_of(gap)][2]
    assert "the series is no CT (localizer)" in found[uid_of(localizer)][2]
    assert "not a CT in HU" in found[uid_of(body)][2]
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts()

    orthanc.stow([middle])
    wait_until(lambda: watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1), 20)
    assert ledger_rows(tmp_path / "watch")[uid_of(gap)][0] == "done"
    assert len(factory.begun) == 4
    assert not PLANTED.search(output)


@pytest.mark.parametrize("dicomweb", [False, True], ids=["changes", "qido"])
@pytest.mark.parametrize(
    ("uid", "reason"),
    [
        (b"1.2..3", "its StudyInstanceUID is no UID, expected numbers with dots between them"),
        (b"ANON-17", "its StudyInstanceUID is no UID, expected numbers with dots between them"),
        (b"1.2.20200301.007", None),
    ],
)
def test_a_study_whose_uid_is_none_is_refused_and_one_with_leading_zeros_gets_its_results(
    orthanc: OrthancServer, tmp_path: Path, uid: bytes, reason: str | None, dicomweb: bool
) -> None:
    files, factory = series(tmp_path / "study"), fake_worker_factory(tmp_path / "scripts")
    for file in files:
        data = pydicom.dcmread(file)
        padded = uid + bytes(len(uid) % 2)
        data[0x0020000D] = RawDataElement(Tag(0x0020000D), "UI", len(padded), padded, 0, False, True)
        data.save_as(file)
    orthanc.stow(files)
    orthanc.wait_until_stable(1)
    counts, output = watch_once(orthanc, tmp_path / "watch", factory, dicomweb=dicomweb)
    assert len(orthanc.get("/studies")) == 1
    if reason is None:
        assert counts == WatchCounts(stored=1)
        assert orthanc.modalities() == ["CT", "SEG", "SR"]
        assert "StudyInstanceUID is a UID that DICOM does not allow" in output
    else:
        assert counts == WatchCounts(refused=1)
        assert f"refused: {reason}" in output
        assert factory.begun == []
        assert orthanc.modalities() == ["CT"]


@pytest.mark.slow
@pytest.mark.parametrize("dicomweb", [False, True], ids=["changes", "qido"])
def test_images_whose_uids_are_none_are_refused_and_those_with_leading_zeros_get_their_results(
    orthanc: OrthancServer, tmp_path: Path, dicomweb: bool
) -> None:
    uids = {}
    for name, start, end in (("zeros", "1.2.0", ""), ("dots", "1.2..7", ""), ("end", "1.2.9", "."), ("text", "A-", "")):
        files = series(tmp_path / name)
        uids[uid_of(files)] = name
        for number, file in enumerate(files):
            data, uid = pydicom.dcmread(file), f"{start}{number}{end}"
            padded = uid.encode() + bytes(len(uid) % 2)
            data[0x00080018] = RawDataElement(Tag(0x00080018), "UI", len(padded), padded, 0, False, True)
            data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)
            data.save_as(file)
        orthanc.stow(files)
    orthanc.wait_until_stable(4)
    factory = fake_worker_factory(tmp_path / "scripts")
    counts, output = watch_once(orthanc, tmp_path / "watch", factory, dicomweb=dicomweb)
    assert counts == WatchCounts(stored=1, refused=3)
    states = {uids[uid]: state for uid, (state, _, _) in ledger_rows(tmp_path / "watch").items()}
    assert states == {"zeros": "done", "dots": "refused", "end": "refused", "text": "refused"}
    assert output.count("8 of 8 instances state a SOPInstanceUID that is no legal UID") == 3
    assert orthanc.modalities() == ["CT"] * 4 + ["SEG", "SR"]


def test_a_series_that_the_server_cannot_read_fails_and_the_next_is_done(
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
    factory = fake_worker_factory(tmp_path / "scripts")
    counts, output = watch_once(orthanc, tmp_path / "watch", factory, RetryPolicy(pause_s=60))
    assert (counts.stored, counts.failed) == (1, 1)
    assert "again in 60 s, after try 1 of 5" in output
    assert ledger_rows(tmp_path / "watch")[uid_of(lost)][:2] == ("waiting", 1)
    assert "the server" in ledger_rows(tmp_path / "watch")[uid_of(lost)][2]


def test_a_server_that_is_down_or_refuses_is_reported_on_one_line(
    orthanc: OrthancServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = fake_worker_factory(tmp_path / "scripts")
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", "wrong-word")
    with pytest.raises(PacsError, match=r"401 to a search for a study: .*the credentials"):
        watch_once(orthanc, tmp_path / "watch", factory)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)
    with pytest.raises(PacsError, match=r"40\d to a search for a study.*--dicomweb"):
        watch(WatchOptions(orthanc.url, tmp_path / "web", dicomweb=True), QUICK_RETRIES, True, worker_factory=factory)
    with pytest.raises(ConfigError, match="belongs to Orthanc http"):
        watch_once(orthanc, tmp_path / "watch", factory, dicomweb=True)
    orthanc.stop()
    with pytest.raises(PacsError, match=r"the connection failed during a search for a study \(Connection refused\)"):
        watch_once(orthanc, tmp_path / "watch", factory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_watch_within_two_seconds_and_leaves_nothing(
    number: signal.Signals, orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    factory = fake_worker_factory(tmp_path / "scripts", all=f"hang {tmp_path / 'pid'}")
    orthanc.stow(series(tmp_path / "study"))
    running = start_watcher(factory)
    if number is signal.SIGINT:  # while the worker works
        worker, _ = hanging_pids(tmp_path / "pid")
    else:  # while the server does not answer
        wait_until(lambda: "watching" in running.output)
        orthanc.signal(signal.SIGSTOP)
        time.sleep(0.5)
        worker = 0
    running.process.send_signal(number)
    begun = time.monotonic()
    assert running.process.wait(10) == 0
    assert time.monotonic() - begun < 2
    orthanc.signal(signal.SIGCONT)
    assert running.output.endswith("stopped\n")
    assert is_spool_empty(tmp_path / "watch")
    assert not worker or not is_alive(worker)
