"""The loop with a made-up server: what is whose fault, and how long the pauses are."""

import errno
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from groundglass.apps.pacs import dicomweb
from groundglass.apps.pacs.access import Credentials, open_session
from groundglass.apps.pacs.dicomweb import DicomWeb
from groundglass.apps.pacs.ledger import Arrival, Ledger, SeriesEntry
from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, plain, segment_series
from groundglass.apps.pacs.spool import Spool
from groundglass.apps.pacs.watcher import Backoff, RetryPolicy, WatchCounts, Watcher
from groundglass.errors import InputError, OutputError, PacsError
from groundglass.workers import TimeLimitError
from helpers.fake_engine import made_up_segmenter
from helpers.orthanc import series, uid_of


@dataclass
class MadeUpServer:
    """Source, archive and worker in one; fails as it is told."""

    ledger: Ledger
    news: list[Arrival] = field(default_factory=list)
    up: bool = True
    fails: dict[str, Exception] = field(default_factory=dict)
    gives: int = 3
    stored: list[str] = field(default_factory=list)
    asked: int = 0

    def reach(self) -> None:
        if not self.up:
            raise PacsError("away")

    def look(self, ledger: Ledger) -> bool:
        self.reach()
        ledger.take(self.news, len(self.news))
        return True

    def retrieve(self, study_uid: str, series_uid: str, folder: Path) -> int:
        self._fail("retrieve")
        return self.gives

    def has(self, study_uid: str, instance_uid: str) -> bool:
        return False

    def store(self, study_uid: str, files: list[Path]) -> None:
        self._fail("store")
        self.stored.append(study_uid)

    def ask(self, task: SeriesTask) -> SegmentationResult:
        self._fail("ask")
        self.asked += 1
        task.results.mkdir(mode=0o700)
        instance = Dataset()
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance.SOPClassUID, instance.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.66.4"), UID("2.25.1")
        instance.save_as(task.results / "lesions.dcm", enforce_file_format=True)
        return SegmentationResult(("2.25.1",))

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]


@dataclass
class House:
    server: MadeUpServer
    ledger: Ledger
    folder: Path
    lines: list[str]

    def once(self, **retry_policy: Any) -> WatchCounts:
        server: Any = self.server
        paces = RetryPolicy(**{"poll_s": 0.0, "pause_s": 60.0, "tries": 3, **retry_policy})
        watcher = Watcher(server, server, self.ledger, Spool(self.folder), server, paces, self.lines.append)
        watcher.run(once=True)
        return watcher.counts

    @property
    def entry(self) -> SeriesEntry:
        entry = self.ledger.get("1.2.3")
        assert entry is not None
        return entry

    def state(self) -> tuple[str, int, bool]:
        """State and tries of the series, and whether the spool is empty."""
        return str(self.entry.state), self.entry.tries, not list((self.folder / "spool").iterdir())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.belong("server")
        yield House(MadeUpServer(ledger, [Arrival("1.2.3", "1.2", 3, 1)]), ledger, tmp_path, [])


def test_the_pauses_of_a_series_grow_until_it_is_left(house: House) -> None:
    house.server.fails["ask"] = TimeLimitError()
    for tries, pause_s in ((1, 60), (2, 300)):
        before = time.time()
        assert house.once(time_limit_s=7) == WatchCounts(failed=1)
        assert house.state() == ("waiting", tries, True)
        due = house.ledger.next_due()
        assert due is not None
        assert before + pause_s <= due <= time.time() + pause_s
        assert house.once() == WatchCounts()
        house.ledger.postpone(house.entry, 0.0)
    assert house.once(time_limit_s=7) == WatchCounts(failed=1)
    assert house.state() == ("left", 3, True)
    assert house.entry.reason == "took more than 7 s: give it more with --time-limit"
    assert house.lines == [
        "1.2.3: 3 instances retrieved",
        "1.2.3: failed: took more than 7 s: give it more with --time-limit (again in 60 s, after try 1 of 3)",
        "1.2.3: 3 instances retrieved",
        "1.2.3: failed: took more than 7 s: give it more with --time-limit (again in 5 min, after try 2 of 3)",
        "1.2.3: 3 instances retrieved",
        "1.2.3: failed: took more than 7 s: give it more with --time-limit (left after try 3 of 3)",
    ]


@pytest.mark.parametrize("step", ["retrieve", "store"])
def test_a_server_that_fails_altogether_is_no_failure_of_the_series(house: House, step: str) -> None:
    def go_away(*_: object) -> None:
        house.server.up = False
        raise PacsError("the connection failed")

    setattr(house.server, step, go_away)
    with pytest.raises(PacsError, match="the connection failed"):
        house.once()
    kept = step == "store"  # what was segmented is not done again
    assert house.state() == ("segmented" if kept else "waiting", 0, not kept)
    delattr(house.server, step)
    house.server.up = True
    assert house.once() == WatchCounts(stored=1)
    assert house.state() == ("done", 0, True)
    assert house.server.asked == 1


def test_a_server_that_fails_with_one_series_alone_is_its_failure(house: House) -> None:
    house.server.fails["store"] = PacsError("the server answers 500 to the storing of results")
    assert house.once() == WatchCounts(failed=1)
    assert house.state() == ("segmented", 1, False)
    house.server.fails.clear()
    house.ledger.postpone(house.entry, 0.0)
    assert house.once() == WatchCounts(stored=1)
    assert house.server.asked == 1
    assert house.state() == ("done", 1, True)


def test_results_that_are_left_leave_the_spool(house: House) -> None:
    house.server.fails["store"] = PacsError("the server answers 500 to the storing of results")
    assert house.once(tries=1) == WatchCounts(failed=1)
    assert house.state() == ("left", 1, True)


@pytest.mark.parametrize("damage", ["all", "file", "content"])
def test_results_that_somebody_took_away_are_made_again(house: House, damage: str) -> None:
    house.server.fails["store"] = PacsError("the server answers 500 to the storing of results")
    house.once()
    file = Spool(house.folder).results("1.2.3") / "lesions.dcm"
    if damage == "content":
        file.write_bytes(b"")
    elif damage == "file":
        file.unlink()
    else:
        Spool(house.folder).clear("1.2.3")
    house.server.fails.clear()
    house.ledger.postpone(house.entry, 0.0)
    assert house.once() == WatchCounts(stored=1)
    assert house.server.asked == 2


def test_a_series_that_grew_while_its_results_waited_is_segmented_anew(house: House) -> None:
    house.server.fails["store"] = PacsError("the server answers 500 to the storing of results")
    house.once()
    house.server.fails.clear()
    house.server.news = [Arrival("1.2.3", "1.2", 4, 2)]
    house.server.gives = 4
    assert house.once() == WatchCounts(stored=1)
    assert house.server.asked == 2
    assert house.server.stored == ["1.2"]


def test_fewer_instances_than_there_are_make_no_scan(house: House) -> None:
    house.server.gives = 2
    assert house.once() == WatchCounts(failed=1)
    assert house.entry.reason == "the server gave 2 of the series' 3 instances"
    assert house.server.asked == 0


def test_more_instances_than_were_known_are_taken_and_not_done_twice(house: House) -> None:
    house.server.gives = 4
    assert house.once() == WatchCounts(stored=1)
    house.server.news = [Arrival("1.2.3", "1.2", 4, 2)]
    assert house.once() == WatchCounts()


def test_a_full_disk_is_no_failure_of_the_series(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = DicomWeb("http://127.0.0.1:1", open_session(Credentials()))
    monkeypatch.setattr(archive._client, "iter_series", lambda *_: iter([None]))
    monkeypatch.setattr(dicomweb, "dcmwrite", full)
    monkeypatch.setattr(house.server, "retrieve", archive.retrieve)
    with pytest.raises(OutputError, match="the spool cannot be written: No space left on device; make room"):
        house.once()
    assert house.state() == ("waiting", 0, True)


def test_a_fault_is_told_without_what_a_library_says(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ValueError("PLANTED^NAME is odd")

    files = series(tmp_path / "study")
    monkeypatch.setattr("groundglass.apps.pacs.processing.segment", fault)
    made = segment_series(SeriesTask(uid_of(files), files[0].parent, tmp_path / "results"), made_up_segmenter())
    assert made.fault is not None
    assert made.fault.startswith("ValueError in test_loop.py:")
    assert "PLANTED" not in made.fault
    monkeypatch.setattr(house.server, "ask", lambda _: made)
    assert house.once() == WatchCounts(failed=1)
    assert house.entry.reason == made.fault


def test_a_series_that_the_watcher_itself_died_of_does_not_hold_up_the_others(house: House) -> None:
    house.server.news = [Arrival(f"1.2.{number}", "1.2", 3, number) for number in (3, 4, 5)]
    house.ledger.take(house.server.news, 5)
    house.ledger.begin(house.entry)  # and never came to an end
    assert house.once() == WatchCounts(stored=3)
    assert [line[:5] for line in house.lines if "stored" in line] == ["1.2.4", "1.2.5", "1.2.3"]


def test_an_empty_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    with pytest.raises(InputError, match="series holds no DICOM"):
        segment_series(SeriesTask("1.2.3", tmp_path / "series", tmp_path / "results"), made_up_segmenter())


def test_uids_in_messages_are_cut_short() -> None:
    told = plain(ValueError("series 1.2.826.0.1.3680043.8.498.11486944512306609\n103 holds 1.5 of 2.5"))
    assert told == "series …944512306609 103 holds 1.5 of 2.5"


def test_pauses_for_a_server_grow_and_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr("groundglass.apps.pacs.watcher.time.sleep", slept.append)
    backoff = Backoff(lines.append)
    backoff.over()
    for message in ("away", "away", "away", "denied", "away", "away", "away", "away"):
        backoff.wait(PacsError(message))
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert lines == ["waiting: away", "waiting: denied", "waiting: away"]
    backoff.over()
    backoff.over()
    assert lines[3:] == ["going on after 0 s"]
    backoff.wait(PacsError("away"))
    assert slept[-1] == 1


def test_the_service_waits_where_one_call_would_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.server.up = False
    pauses: list[float] = []

    def come_back(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            house.server.up = True
        if len(pauses) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("groundglass.apps.pacs.watcher.time.sleep", come_back)
    server: Any = house.server
    watcher = Watcher(server, server, house.ledger, Spool(house.folder), server, RetryPolicy(), house.lines.append)
    with pytest.raises(KeyboardInterrupt):
        watcher.run(once=False)
    assert pauses[:2] == [1, 2]
    assert 0 < pauses[2] <= 10
    assert house.lines[0] == "waiting: away"
    assert house.lines[1:3] == ["1.2.3: 3 instances retrieved", house.lines[2]]
    assert "going on after 0 s" in house.lines
    assert watcher.counts == WatchCounts(stored=1)
