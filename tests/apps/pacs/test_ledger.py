"""The ledger, the spool, and the lock on their folder."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from groundglass.apps.pacs.ledger import ChangeMark, Ledger, SeriesArrival, State, short_uid
from groundglass.apps.pacs.spool import Spool, lock_watch_folder
from groundglass.errors import ConfigError, OutputError

LONGEST_PAUSE_S = 7500.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.bind_to_server("Orthanc http://pacs")
        yield ledger


def state(ledger: Ledger, uid: str) -> State:
    entry = ledger.get(uid)
    assert entry is not None
    return entry.state


def end_as(ledger: Ledger, state: str) -> None:
    entry = ledger.next_entry(0.0, LONGEST_PAUSE_S)
    assert entry is not None
    if state == "done":
        ledger.mark_segmented(entry, entry.instance_count, ("2.25.1", "2.25.2"))
        ledger.mark_done(entry)
    elif state == "refused":
        ledger.mark_refused(entry, "no lung")
    else:
        ledger.mark_failed(entry, "too slow", None)


@pytest.mark.parametrize(
    ("before", "instances", "stamp", "after"),
    [
        ("done", 10, 5, "done"),
        ("done", 10, 6, "waiting"),  # stable once more, with the same instances: its results are looked for
        ("done", 11, 6, "waiting"),
        ("done", 9, 6, "waiting"),
        ("refused", 10, 5, "refused"),
        ("refused", 10, 6, "waiting"),
        ("refused", 9, 6, "waiting"),
        ("left", 10, 5, "left"),
        ("left", 10, 6, "waiting"),
        ("left", 12, 6, "waiting"),
    ],
)
def test_a_series_is_processed_again_if_it_has_grown_or_if_it_failed_and_has_changed(
    ledger: Ledger, before: str, instances: int, stamp: int, after: str
) -> None:
    ledger.add_arrivals([SeriesArrival("1.2.3", "1.2", 10, 5)], 5)
    end_as(ledger, before)
    ledger.add_arrivals([SeriesArrival("1.2.3", "1.2", instances, stamp)], 6)
    assert state(ledger, "1.2.3") == after
    entry = ledger.next_entry(0.0, LONGEST_PAUSE_S)
    assert (entry is not None) == (after == "waiting")
    assert entry is None or (entry.tries, entry.instance_count) == (0, instances)


def test_the_series_that_is_due_longest_is_next_and_postponed_series_come_last(ledger: Ledger) -> None:
    ledger.add_arrivals([SeriesArrival(f"1.2.{i}", "1.2", 3, i) for i in range(3)], 3)
    first = ledger.next_entry(100.0, LONGEST_PAUSE_S)
    assert first is not None
    ledger.postpone(first, 50.0)
    second = ledger.next_entry(100.0, LONGEST_PAUSE_S)
    assert second is not None
    assert (first.series_uid, second.series_uid) == ("1.2.0", "1.2.1")
    ledger.mark_failed(second, "too slow", 1000.0)
    third = ledger.next_entry(100.0, LONGEST_PAUSE_S)
    assert third is not None
    ledger.mark_done(third)
    assert [ledger.next_entry(now, LONGEST_PAUSE_S).series_uid for now in (60.0, 999.0)] == ["1.2.0"] * 2  # type: ignore[union-attr]
    ledger.mark_done(first)
    assert ledger.next_entry(999.0, LONGEST_PAUSE_S) is None
    assert ledger.next_due_time() == 1000.0


def test_a_series_that_failed_while_the_clock_was_ahead_is_due_when_it_has_been_set_back(ledger: Ledger) -> None:
    ledger.add_arrivals([SeriesArrival("1.2.3", "1.2", 3, 1)], 1)
    entry = ledger.get("1.2.3")
    assert entry is not None
    ledger.mark_failed(entry, "too slow", 50_000.0)
    entry = ledger.get("1.2.3")
    assert ledger.next_entry(49_999.0, LONGEST_PAUSE_S) is None
    assert ledger.next_entry(100.0, LONGEST_PAUSE_S) == entry


def test_a_series_that_never_failed_is_due_whatever_the_clock_says(ledger: Ledger) -> None:
    ledger.add_arrivals([SeriesArrival("1.2.3", "1.2", 3, 1)], 1)
    entry = ledger.get("1.2.3")
    assert entry is not None
    ledger.postpone(entry, 50_000.0)
    assert ledger.next_entry(49_999.0, LONGEST_PAUSE_S) == entry


def test_a_ledger_of_another_server_or_version_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.bind_to_server("Orthanc http://pacs")
    with pytest.raises(ConfigError, match="belongs to Orthanc http://pacs, expected DICOMweb http://pacs"):
        ledger.bind_to_server("DICOMweb http://pacs")
    with closing(sqlite3.connect(tmp_path / "watch.sqlite")) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigError, match="is of version 7, expected 1"):
        Ledger(tmp_path)


def test_a_ledger_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.bind_to_server("server")
        ledger.add_arrivals([], 7)
    with closing(sqlite3.connect(tmp_path / "watch.sqlite")) as db:
        db.executescript("ALTER TABLE polling DROP COLUMN last_number; ALTER TABLE polling DROP COLUMN last_digest")
    with closing(Ledger(tmp_path)) as ledger:
        assert (ledger.bookmark, ledger.last_change) == (7, ChangeMark())


def test_a_ledger_that_another_program_uses_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **_: connect(file, timeout=0.0))
    with closing(Ledger(tmp_path)) as ledger, closing(connect(tmp_path / "watch.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="database is locked; end the other program that uses it"):
            ledger.bind_to_server("server")


def test_a_damaged_ledger_is_reported_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "watch.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match="cannot be used: file is not a database"):
        Ledger(tmp_path)


def test_a_folder_is_locked_until_the_process_that_locked_it_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from groundglass.apps.pacs.spool import lock_watch_folder\n"
        "with lock_watch_folder(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="another groundglass watch uses"), lock_watch_folder(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with lock_watch_folder(tmp_path):
        pass


def test_the_spool_keeps_only_results_that_are_to_be_stored(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open(keep=())
    for uid in ("1.2.3", "1.2.4"):
        (spool.create_source(uid) / "000001.dcm").touch()
        spool.results(uid).mkdir()
        (spool.results(uid) / "lesions.dcm").touch()
    (tmp_path / "spool").chmod(0o755)
    spool.open(keep=["1.2.3"])
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert spool.results("1.2.3").is_dir()
    assert not spool.results("1.2.4").exists()
    spool.clear("1.2.3", keep_results=True)
    assert [path.name for path in (tmp_path / "spool").rglob("*.dcm")] == ["lesions.dcm"]
    spool.clear("1.2.3")
    spool.clear("1.2.3")
    assert not list((tmp_path / "spool").iterdir())


def test_what_a_file_manager_leaves_in_the_spool_of_a_series_is_removed_and_links_are_not_followed(
    tmp_path: Path,
) -> None:
    spool, outside = Spool(tmp_path), tmp_path / "outside"
    spool.open(keep=())
    (outside / "kept").mkdir(parents=True)
    folder = spool.create_source("1.2.3").parent
    (folder / ".DS_Store").touch()
    (folder / "link").symlink_to(outside)
    spool.clear("1.2.3")
    assert not list((tmp_path / "spool").iterdir())
    assert (outside / "kept").exists()


def test_what_others_put_into_a_folder_of_the_name_of_the_spool_stays(tmp_path: Path) -> None:
    mine = tmp_path / "spool" / "jobs of the printer" / "1"
    mine.parent.mkdir(parents=True)
    mine.touch()
    (tmp_path / "spool" / ".DS_Store").touch()
    spool = Spool(tmp_path)
    spool.open(keep=())
    spool.create_source("1.2.3")
    spool.open(keep=())
    assert mine.exists()
    assert {path.name for path in (tmp_path / "spool").iterdir()} == {".DS_Store", "jobs of the printer"}


def kill_while_writing(results: Path) -> None:
    """Write results into the spool in a process that is killed before they are complete."""
    code = (
        "import os, signal, sys; from pathlib import Path; from groundglass.files import staged_folder\n"
        "with staged_folder(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'lesions.dcm').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_partial_results_of_a_killed_worker_are_removed_from_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open(keep=())

    def partial_results() -> list[Path]:
        return list((tmp_path / "spool").rglob(".groundglass-*"))

    for uid in ("1.2.3", "1.2.4", "1.2.5"):
        spool.create_source(uid)
        kill_while_writing(spool.results(uid))
        assert not spool.results(uid).exists()
    assert len(partial_results()) == 3
    spool.results("1.2.3").mkdir()  # the second try of the worker succeeded
    spool.clear("1.2.3", keep_results=True)
    assert spool.results("1.2.3").is_dir()
    spool.create_source("1.2.4")
    assert len(partial_results()) == 1
    spool.open(keep=["1.2.3", "1.2.4"])
    assert not partial_results()
    assert spool.results("1.2.3").is_dir()


def test_a_folder_that_cannot_be_written_is_reported_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; make room"), lock_watch_folder(tmp_path / "file"):
        pass


def test_a_label_is_the_end_of_a_uid() -> None:
    assert short_uid("1.2.826.0.1.3680043.8.498.123456789") == "…98.123456789"[-13:]
    assert short_uid("1.2\n.3") == "1.2?.3"
