"""What is remembered, and who may share it."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from groundglass.apps.pacs.ledger import Arrival, Ledger, State, short
from groundglass.apps.pacs.spool import Spool, lock
from groundglass.errors import ConfigError, OutputError


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path)) as each:
        each.belong("Orthanc http://pacs")
        yield each


def state(ledger: Ledger, uid: str) -> State:
    entry = ledger.get(uid)
    assert entry is not None
    return entry.state


def end(ledger: Ledger, how: str) -> None:
    entry = ledger.due(0.0)
    assert entry is not None
    if how == "done":
        ledger.segmented(entry, entry.instances, ("2.25.1", "2.25.2"))
        ledger.done(entry)
    elif how == "refused":
        ledger.refused(entry, "no lung")
    else:
        ledger.failed(entry, "too slow", None)


@pytest.mark.parametrize(
    ("before", "instances", "stamp", "after"),
    [
        ("done", 10, 5, "done"),
        ("done", 10, 6, "done"),  # stable once more, but nothing came
        ("done", 11, 6, "waiting"),
        ("done", 9, 6, "done"),
        ("refused", 10, 5, "refused"),
        ("refused", 10, 6, "waiting"),
        ("refused", 9, 6, "waiting"),
        ("left", 10, 5, "left"),
        ("left", 10, 6, "waiting"),
        ("left", 12, 6, "waiting"),
    ],
)
def test_a_series_is_done_anew_when_it_grew_or_failed_and_changed(
    ledger: Ledger, before: str, instances: int, stamp: int, after: str
) -> None:
    ledger.take([Arrival("1.2.3", "1.2", 10, 5)], 5)
    end(ledger, before)
    ledger.take([Arrival("1.2.3", "1.2", instances, stamp)], 6)
    assert state(ledger, "1.2.3") == after
    entry = ledger.due(0.0)
    assert (entry is not None) == (after == "waiting")
    assert entry is None or (entry.tries, entry.instances) == (0, instances)


def test_the_longest_waiting_is_next_and_what_is_postponed_goes_behind(ledger: Ledger) -> None:
    ledger.take([Arrival(f"1.2.{i}", "1.2", 3, i) for i in range(3)], 3)
    first = ledger.due(100.0)
    assert first is not None
    ledger.postpone(first, 50.0)
    second = ledger.due(100.0)
    assert second is not None
    assert (first.series_uid, second.series_uid) == ("1.2.0", "1.2.1")
    ledger.failed(second, "too slow", 1000.0)
    third = ledger.due(100.0)
    assert third is not None
    ledger.done(third)
    assert [ledger.due(now).series_uid for now in (60.0, 999.0)] == ["1.2.0"] * 2  # type: ignore[union-attr]
    ledger.done(first)
    assert ledger.due(999.0) is None
    assert ledger.next_due() == 1000.0


@pytest.mark.parametrize("uid", ["../../instances", "1.2/3", "", "1" * 65, "1.2.3?x"])
def test_what_is_no_uid_never_gets_into_a_url(ledger: Ledger, uid: str) -> None:
    ledger.take([Arrival(uid, "1.2", 3, 1), Arrival("1.2.9", uid, 3, 2)], 2)
    assert ledger.due(1e12) is None
    assert state(ledger, uid) == state(ledger, "1.2.9") == "refused"


def test_a_folder_belongs_to_a_server_and_a_version(ledger: Ledger, tmp_path: Path) -> None:
    ledger.belong("Orthanc http://pacs")
    with pytest.raises(ConfigError, match="remembers Orthanc http://pacs, expected DICOMweb http://pacs"):
        ledger.belong("DICOMweb http://pacs")
    with closing(sqlite3.connect(tmp_path / "watch.sqlite")) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigError, match="is of version 7, expected 1"):
        Ledger(tmp_path)


def test_what_is_damaged_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "watch.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match="cannot be used: file is not a database"):
        Ledger(tmp_path)


def test_one_watcher_for_each_folder_until_it_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from groundglass.apps.pacs.spool import lock\n"
        "with lock(Path(sys.argv[1])): print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(ConfigError, match="another groundglass watch works in"), lock(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with lock(tmp_path):
        pass


def test_the_spool_keeps_only_what_is_to_be_stored(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open(kept=())
    for uid in ("1.2.3", "1.2.4"):
        (spool.source(uid) / "000001.dcm").touch()
        spool.results(uid).mkdir()
        (spool.results(uid) / "lesions.dcm").touch()
    (tmp_path / "spool").chmod(0o755)
    spool.open(kept=["1.2.3"])
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert spool.results("1.2.3").is_dir()
    assert not spool.results("1.2.4").exists()
    spool.clear("1.2.3", keep_results=True)
    assert [path.name for path in (tmp_path / "spool").rglob("*.dcm")] == ["lesions.dcm"]
    spool.clear("1.2.3")
    spool.clear("1.2.3")
    assert not list((tmp_path / "spool").iterdir())


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; make room"), lock(tmp_path / "file"):
        pass


def test_a_label_is_a_uids_end() -> None:
    assert short("1.2.826.0.1.3680043.8.498.123456789") == "…98.123456789"[-13:]
    assert short("1.2\n.3") == "1.2?.3"
