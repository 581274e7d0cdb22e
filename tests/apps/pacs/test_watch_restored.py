"""The watch of a real Orthanc that lost some of what it held, and of one that another watcher watches too."""

import shutil
import signal
from pathlib import Path

import pytest

from groundglass.apps.pacs.watcher import WatchCounts
from helpers.fake_watch import StartWatcher, WatcherProcess, fake_worker_factory, ledger_rows, watch_once
from helpers.orthanc import OrthancServer, series, uid_of
from helpers.scripted_worker import wait_until

pytestmark = [pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom"), pytest.mark.usefixtures("credentials")]


@pytest.mark.slow
def test_after_a_restored_backup_no_change_is_missed_and_lost_results_are_made_again(
    orthanc: OrthancServer, tmp_path: Path
) -> None:
    def send(name: str) -> str:
        files = series(tmp_path / name)
        orthanc.stow(files)
        return uid_of(files)

    factory = fake_worker_factory(tmp_path / "scripts")
    kept = send("kept")
    orthanc.wait_until_stable(1)
    orthanc.stop(signal.SIGTERM)
    shutil.copytree(orthanc.folder / "db", tmp_path / "backup")
    orthanc.start()
    lost = send("lost")
    orthanc.wait_until_stable(2)
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=2)
    orthanc.stop(signal.SIGTERM)
    shutil.rmtree(orthanc.folder / "db")
    shutil.copytree(tmp_path / "backup", orthanc.folder / "db")
    orthanc.start()
    new = {send(f"new-{number}") for number in range(2)}  # as many changes as are missing, and more
    orthanc.wait_until_stable(3)
    counts, output = watch_once(orthanc, tmp_path / "watch", factory)
    assert counts == WatchCounts(stored=3)
    assert f"…{kept[-12:]}: its results are not in the PACS, and are made again" in output
    assert orthanc.segmented_series() == {kept, *new}
    orthanc.stow(sorted((tmp_path / "lost").rglob("*.dcm")))
    orthanc.wait_until_stable(10)  # 4 series of images, 3 of SEG, 3 of SR
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)
    assert orthanc.segmented_series() == {kept, lost, *new}
    assert orthanc.modalities() == ["CT"] * 4 + ["SEG"] * 4 + ["SR"] * 4


@pytest.mark.slow
def test_a_study_that_is_deleted_and_sent_again_gets_its_results_and_a_deleted_result_stays_deleted(
    orthanc: OrthancServer, tmp_path: Path
) -> None:
    files, factory = series(tmp_path / "study"), fake_worker_factory(tmp_path / "scripts")
    orthanc.stow(files)
    orthanc.wait_until_stable(1)
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)
    orthanc.wait_until_stable(3)
    (found,) = [each["ID"] for each in orthanc.get("/series", expand="") if each["MainDicomTags"]["Modality"] == "SEG"]
    orthanc.delete(f"/series/{found}")
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts()
    assert orthanc.modalities() == ["CT", "SR"]
    (study,) = orthanc.get("/studies")
    orthanc.delete(f"/studies/{study}")
    orthanc.stow(files)
    orthanc.wait_until_stable(1)
    assert watch_once(orthanc, tmp_path / "watch", factory)[0] == WatchCounts(stored=1)
    assert orthanc.modalities() == ["CT", "SEG", "SR"]


@pytest.mark.slow
def test_a_study_that_is_deleted_while_it_is_segmented_is_not_created_anew(
    orthanc: OrthancServer, start_watcher: StartWatcher, tmp_path: Path
) -> None:
    files = series(tmp_path / "study")
    factory = fake_worker_factory(tmp_path / "scripts", all=f"until {tmp_path / 'go'}")
    orthanc.stow(files)
    watcher = start_watcher(factory)
    wait_until(lambda: bool(factory.begun), 200)
    (study,) = orthanc.get("/studies")
    orthanc.delete(f"/studies/{study}")
    (tmp_path / "go").touch()
    wait_until(lambda: "no longer in the PACS" in watcher.output, 200)
    assert orthanc.get("/studies") == []
    orthanc.stow(files)
    wait_until(lambda: watcher.stored == 1, 200)
    assert orthanc.modalities() == ["CT", "SEG", "SR"]


@pytest.mark.slow
def test_two_watchers_with_a_folder_each_store_each_result_once(orthanc: OrthancServer, tmp_path: Path) -> None:
    files, factory = series(tmp_path / "study"), fake_worker_factory(tmp_path / "scripts")
    watchers = [WatcherProcess(orthanc.url, tmp_path / name, factory.scripts) for name in ("one", "another")]
    try:
        orthanc.stow(files)
        for watcher in watchers:
            wait_until(lambda watcher=watcher: watcher.stored == 1, 200)  # type: ignore[misc]
    finally:
        for watcher in watchers:
            watcher.kill()
    for name in ("one", "another"):
        assert ledger_rows(tmp_path / name) == {uid_of(files): ("done", 0, "")}
    assert [len(orthanc.instances(modality)) for modality in ("CT", "SEG", "SR")] == [len(files), 1, 1]


def test_the_requests_that_a_restored_database_is_known_by_are_those_of_orthanc(orthanc: OrthancServer) -> None:
    """Orthanc gives changes from the one after `since` on, and its last number where there are none."""
    assert orthanc.get("/changes", since="7", limit="5") == {"Changes": [], "Done": True, "Last": 0}
