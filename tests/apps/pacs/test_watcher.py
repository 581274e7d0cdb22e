"""The loop of the watcher with a fake server: whose failure a failure is, and how long the pauses are."""

import errno
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from groundglass.apps.pacs import dicomweb
from groundglass.apps.pacs.access import BusyError, Credentials, open_session
from groundglass.apps.pacs.backoff import Backoff
from groundglass.apps.pacs.dicomweb import DicomWebArchive
from groundglass.apps.pacs.ledger import Ledger, SeriesArrival, SeriesEntry
from groundglass.apps.pacs.processing import (
    SegmentationResult,
    SeriesTask,
    read_instance_uid,
    segment_series,
    short_message,
)
from groundglass.apps.pacs.retrieval import RetrievalTask
from groundglass.apps.pacs.spool import Spool
from groundglass.apps.pacs.watcher import RetryPolicy, WatchCounts, Watcher
from groundglass.errors import EngineError, InputError, ModelError, OutputError, PacsError
from groundglass.files import staged_folder
from groundglass.workers import MemoryLimitError, TimeLimitError, WorkerDiedError, WorkerStartError
from helpers.fake_engine import fake_segmenter
from helpers.orthanc import series, uid_of


@dataclass
class FakePacs:
    """Source, archive and both workers in one.

    Attributes:
        arrivals: Series that a poll finds.
        is_up: Whether the server answers.
        failures: {method: the error that it raises}.
        instance_count: Number of instances that a retrieval gives.
        stated_count: Number of instances that a search states; None for that which arrived.
        is_deleted: Whether a person has deleted the series.
        stored: Study UIDs of the results that were stored.
        kept: UIDs of the results that it holds.
        segmentations: Number of series that were segmented.
    """

    arrivals: list[SeriesArrival] = field(default_factory=list)
    is_up: bool = True
    failures: dict[str, Exception] = field(default_factory=dict)
    instance_count: int = 3
    stated_count: int | None = None
    is_deleted: bool = False
    stored: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    segmentations: int = 0

    def check_connection(self) -> None:
        if not self.is_up:
            raise PacsError("down")

    def poll(self, ledger: Ledger) -> bool:
        self.check_connection()
        self.fail_as_scripted("poll")
        ledger.add_arrivals(self.arrivals, len(self.arrivals))
        return True

    def retrieve(self, study_uid: str, series_uid: str, folder: Path) -> int:
        self.fail_as_scripted("retrieve")
        return self.instance_count

    def count_instances(self, series_uid: str) -> int | None:
        if self.is_deleted:
            return None
        return self.stated_count or self.arrivals[0].instance_count

    def has_instance(self, study_uid: str, instance_uid: str) -> bool:
        return instance_uid in self.kept

    def store(self, study_uid: str, files: list[Path]) -> None:
        self.fail_as_scripted("store")
        self.stored.append(study_uid)
        self.kept |= {read_instance_uid(file) for file in files}

    def run(self, task: RetrievalTask | SeriesTask) -> int | SegmentationResult:
        if isinstance(task, RetrievalTask):
            return self.retrieve(task.study_uid, task.series_uid, task.folder)
        return self.segment(task)

    def segment(self, task: SeriesTask) -> SegmentationResult:
        self.fail_as_scripted("segment")
        self.segmentations += 1
        task.results.mkdir(mode=0o700)
        instance = Dataset()
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance.SOPClassUID, instance.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.66.4"), UID("2.25.1")
        instance.save_as(task.results / "lesions.dcm", enforce_file_format=True)
        return SegmentationResult(("2.25.1",))

    def fail_as_scripted(self, method: str) -> None:
        if method in self.failures:
            raise self.failures[method]


@dataclass
class WatcherSetUp:
    """A watcher of a fake PACS, and the lines that it writes."""

    pacs: FakePacs
    ledger: Ledger
    folder: Path
    lines: list[str]

    def watcher(self, retry_policy: RetryPolicy) -> Watcher:
        pacs: Any = self.pacs
        return Watcher(pacs, pacs, self.ledger, Spool(self.folder), pacs, pacs, retry_policy, self.lines.append)

    def run_once(self, **retry_policy: Any) -> WatchCounts:
        watcher = self.watcher(RetryPolicy(**{"poll_s": 0.0, "pause_s": 60.0, "max_tries": 3, **retry_policy}))
        watcher.run(once=True)
        return watcher.counts

    @property
    def entry(self) -> SeriesEntry:
        entry = self.ledger.get("1.2.3")
        assert entry is not None
        return entry

    def state(self) -> tuple[str, int, bool]:
        """Return state and tries of the series, and whether the spool is empty."""
        return str(self.entry.state), self.entry.tries, not list((self.folder / "spool").iterdir())


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[WatcherSetUp]:
    with closing(Ledger(tmp_path)) as ledger:
        ledger.bind_to_server("server")
        yield WatcherSetUp(FakePacs([SeriesArrival("1.2.3", "1.2", 3, 1)]), ledger, tmp_path, [])


def test_the_pauses_before_the_tries_of_a_series_grow_until_it_is_given_up(set_up: WatcherSetUp) -> None:
    set_up.pacs.failures["segment"] = TimeLimitError()
    for tries, pause_s in ((1, 60), (2, 300)):
        before = time.time()
        assert set_up.run_once(time_limit_s=7) == WatchCounts(failed=1)
        assert set_up.state() == ("waiting", tries, True)
        due = set_up.ledger.next_due_time()
        assert due is not None
        assert before + pause_s <= due <= time.time() + pause_s
        assert set_up.run_once() == WatchCounts()
        set_up.ledger.postpone(set_up.entry, 0.0)
    assert set_up.run_once(time_limit_s=7) == WatchCounts(failed=1)
    assert set_up.state() == ("left", 3, True)
    assert set_up.entry.reason == "its segmentation took more than 7 s: give it more with --time-limit"
    failure = "1.2.3: failed: its segmentation took more than 7 s: give it more with --time-limit"
    assert set_up.lines == [
        "1.2.3: 3 instances retrieved",
        f"{failure} (again in 60 s, after try 1 of 3)",
        "1.2.3: 3 instances retrieved",
        f"{failure} (again in 5 min, after try 2 of 3)",
        "1.2.3: 3 instances retrieved",
        f"{failure} (given up after try 3 of 3)",
    ]


@pytest.mark.parametrize("step", ["retrieve", "store"])
def test_a_server_that_does_not_answer_is_not_a_failure_of_the_series(set_up: WatcherSetUp, step: str) -> None:
    def go_down(*_: object) -> None:
        set_up.pacs.is_up = False
        raise PacsError("the connection failed")

    setattr(set_up.pacs, step, go_down)
    with pytest.raises(PacsError, match="the connection failed"):
        set_up.run_once()
    kept = step == "store"  # the series is not segmented again
    assert set_up.state() == ("segmented" if kept else "waiting", 0, not kept)
    delattr(set_up.pacs, step)
    set_up.pacs.is_up = True
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.state() == ("done", 0, True)
    assert set_up.pacs.segmentations == 1


def test_a_server_that_fails_with_one_series_alone_is_a_failure_of_the_series(set_up: WatcherSetUp) -> None:
    set_up.pacs.failures["store"] = PacsError("the server answers 500 to the storage of results")
    assert set_up.run_once() == WatchCounts(failed=1)
    assert set_up.state() == ("segmented", 1, False)
    set_up.pacs.failures.clear()
    set_up.ledger.postpone(set_up.entry, 0.0)
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.pacs.segmentations == 1
    assert set_up.state() == ("done", 1, True)


@pytest.mark.parametrize("step", ["retrieve", "store"])
def test_a_server_that_is_busy_for_a_night_costs_no_series(set_up: WatcherSetUp, step: str) -> None:
    set_up.pacs.failures[step] = BusyError("the server answers 503 to the storage of results")
    for _ in range(6):
        assert set_up.run_once() == WatchCounts(failed=1)
        due = set_up.ledger.next_due_time()
        assert due is not None
        assert due <= time.time() + RetryPolicy(pause_s=60.0, max_tries=3).longest_pause_s
        set_up.ledger.postpone(set_up.entry, 0.0)
    assert set_up.lines[-1].endswith("503 to the storage of results (again in 5 min, after try 2 of 3)")
    set_up.pacs.failures.clear()
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.pacs.segmentations == 1


@pytest.mark.parametrize("step", ["retrieve", "store"])
def test_nothing_is_stored_for_a_series_that_was_deleted_meanwhile_and_it_is_new_if_it_is_sent_again(
    set_up: WatcherSetUp, step: str
) -> None:
    set_up.pacs.failures[step] = PacsError("the server answers 500 to the request")
    set_up.run_once()
    set_up.ledger.postpone(set_up.entry, 0.0)
    arrivals, set_up.pacs.arrivals, set_up.pacs.is_deleted = set_up.pacs.arrivals, [], True
    if step == "store":
        set_up.pacs.failures.clear()
    assert set_up.run_once() == WatchCounts()
    assert set_up.pacs.stored == []
    assert (set_up.state()[0], set_up.state()[2]) == ("left", True)
    assert set_up.lines[-1] == "1.2.3: it is no longer in the PACS"
    set_up.pacs.failures.clear()
    set_up.pacs.arrivals, set_up.pacs.is_deleted = arrivals, False
    assert set_up.run_once() == WatchCounts(stored=1)


def test_the_results_of_a_series_that_is_given_up_are_removed_from_the_spool(set_up: WatcherSetUp) -> None:
    set_up.pacs.failures["store"] = PacsError("the server answers 500 to the storage of results")
    assert set_up.run_once(max_tries=1) == WatchCounts(failed=1)
    assert set_up.state() == ("left", 1, True)


@pytest.mark.parametrize("error", [TimeLimitError(), WorkerDiedError("signal 9")])
def test_partial_results_of_a_killed_worker_leave_the_spool(set_up: WatcherSetUp, error: Exception) -> None:
    killed = []

    def die_while_writing(task: SeriesTask) -> SegmentationResult:
        killed.append(staged_folder(task.results))  # never left, as in a process that is killed
        (killed[-1].__enter__() / "lesions.dcm").touch()
        raise error

    set_up.pacs.segment = die_while_writing  # type: ignore[method-assign]
    assert set_up.run_once() == WatchCounts(failed=1)
    assert set_up.state() == ("waiting", 1, True)


@pytest.mark.parametrize("damage", ["all", "file", "content"])
def test_results_that_are_missing_or_damaged_in_the_spool_are_made_again(set_up: WatcherSetUp, damage: str) -> None:
    set_up.pacs.failures["store"] = PacsError("the server answers 500 to the storage of results")
    set_up.run_once()
    file = Spool(set_up.folder).results("1.2.3") / "lesions.dcm"
    if damage == "content":
        file.write_bytes(b"")
    elif damage == "file":
        file.unlink()
    else:
        Spool(set_up.folder).clear("1.2.3")
    set_up.pacs.failures.clear()
    set_up.ledger.postpone(set_up.entry, 0.0)
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.pacs.segmentations == 2


def test_a_series_that_grows_before_its_results_are_stored_is_segmented_again(set_up: WatcherSetUp) -> None:
    set_up.pacs.failures["store"] = PacsError("the server answers 500 to the storage of results")
    set_up.run_once()
    set_up.pacs.failures.clear()
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", "1.2", 4, 2)]
    set_up.pacs.instance_count = 4
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.pacs.segmentations == 2
    assert set_up.pacs.stored == ["1.2"]


def test_a_retrieval_of_too_few_instances_fails(set_up: WatcherSetUp) -> None:
    set_up.pacs.instance_count = 2
    assert set_up.run_once() == WatchCounts(failed=1)
    assert set_up.entry.reason == "the server gave 2 of the series' 3 instances"
    assert set_up.pacs.segmentations == 0


def test_a_series_from_which_a_person_has_deleted_images_is_segmented_from_those_that_are_left(
    set_up: WatcherSetUp,
) -> None:
    set_up.ledger.add_arrivals(set_up.pacs.arrivals, 1)
    set_up.pacs.arrivals = []
    set_up.pacs.instance_count = set_up.pacs.stated_count = 2
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.entry.instance_count == 2


@pytest.mark.parametrize("gone", [False, True])
def test_results_of_a_series_that_was_deleted_and_sent_again_are_looked_for_and_made_again(
    set_up: WatcherSetUp, gone: bool
) -> None:
    assert set_up.run_once() == WatchCounts(stored=1)
    if gone:
        set_up.pacs.kept.clear()
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", "1.2", 3, 2)]
    assert set_up.run_once() == WatchCounts(stored=int(gone))
    assert set_up.pacs.segmentations == 1 + gone
    assert set_up.state() == ("done", 0, True)


def test_results_that_a_person_deletes_stay_deleted(set_up: WatcherSetUp) -> None:
    assert set_up.run_once() == WatchCounts(stored=1)
    set_up.pacs.kept.clear()
    assert set_up.run_once() == WatchCounts()


def test_a_search_that_fails_keeps_no_known_series_waiting(set_up: WatcherSetUp) -> None:
    set_up.ledger.add_arrivals(set_up.pacs.arrivals, 0)
    set_up.pacs.failures["poll"] = PacsError("the server answers 500 to the request for a series or study")
    with pytest.raises(PacsError, match="answers 500"):
        set_up.run_once()
    assert set_up.state() == ("done", 0, True)


def test_a_spool_that_was_removed_by_hand_is_created_again(set_up: WatcherSetUp) -> None:
    def lose_spool(ledger: Ledger) -> bool:
        (set_up.folder / "spool").rmdir()
        ledger.add_arrivals(set_up.pacs.arrivals, 1)
        return True

    set_up.pacs.poll = lose_spool  # type: ignore[method-assign]
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.entry.state == "done"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeLimitError(), "its retrieval took more than 3600 s"),
        (WorkerDiedError("signal 6"), "its retrieval: its process died twice (signal 6)"),
        (MemoryLimitError("more memory"), "its retrieval: more memory"),
        (ModelError("computes what is no number"), "its retrieval: computes what is no number"),
        (EngineError("no engine runs"), "its retrieval: no engine runs"),
    ],
)
def test_a_retrieval_that_its_process_cannot_finish_is_a_failure_of_the_series(
    set_up: WatcherSetUp, error: Exception, reason: str
) -> None:
    set_up.pacs.failures["retrieve"] = error
    assert set_up.run_once() == WatchCounts(failed=1)
    assert (set_up.entry.reason or "").startswith(reason)
    assert set_up.state() == ("waiting", 1, True)


@pytest.mark.parametrize("step", ["retrieve", "segment"])
def test_a_lack_of_processes_is_not_a_failure_of_the_series_and_the_watch_waits(
    set_up: WatcherSetUp, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up.pacs.failures[step] = WorkerStartError("no worker process could be started")

    def recover_then_stop(_: float) -> None:
        if not set_up.pacs.failures:
            raise KeyboardInterrupt
        set_up.pacs.failures.clear()

    monkeypatch.setattr("groundglass.apps.pacs.watcher.time.sleep", recover_then_stop)
    watcher = set_up.watcher(RetryPolicy())
    with pytest.raises(KeyboardInterrupt):
        watcher.run(once=False)
    assert set_up.lines[0 if step == "retrieve" else 1] == "waiting: no worker process could be started"
    assert watcher.counts == WatchCounts(stored=1)
    assert set_up.state() == ("done", 0, True)


def test_instances_that_arrive_before_the_retrieval_are_segmented_once(set_up: WatcherSetUp) -> None:
    set_up.pacs.instance_count = 4
    assert set_up.run_once() == WatchCounts(stored=1)
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", "1.2", 4, 2)]
    assert set_up.run_once() == WatchCounts()


@pytest.mark.parametrize("free_bytes", [0, 1 << 40])
def test_a_full_disk_is_not_a_failure_of_the_series_but_one_that_is_too_large_for_it_is(
    set_up: WatcherSetUp, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    instance = Dataset()
    instance.SeriesInstanceUID = UID("1.2.3")
    monkeypatch.setattr("dicomweb_client.DICOMwebClient.iter_series", lambda *_: iter([instance]))
    monkeypatch.setattr(dicomweb, "dcmwrite", full)
    archive = DicomWebArchive("http://127.0.0.1:1", open_session(Credentials()))
    monkeypatch.setattr(set_up.pacs, "retrieve", archive.retrieve)
    if free_bytes:
        assert set_up.run_once() == WatchCounts(failed=1)
        assert set_up.state() == ("waiting", 1, True)
        return
    with pytest.raises(OutputError, match=r"000001\.dcm cannot be written: No space left on device; make room"):
        set_up.run_once()
    assert set_up.state() == ("waiting", 0, True)


def test_results_stay_in_the_spool_if_storing_them_meets_a_fault_of_the_disk(set_up: WatcherSetUp) -> None:
    set_up.pacs.failures["store"] = OutputError("the ledger cannot be written")
    assert set_up.run_once() == WatchCounts(failed=1)
    assert [file.name for file in Spool(set_up.folder).results("1.2.3").iterdir()] == ["lesions.dcm"]


def test_a_lack_of_memory_and_a_spool_that_is_gone_do_not_refuse_a_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    files = series(tmp_path / "study")
    task = SeriesTask("1.2", uid_of(files), files[0].parent, tmp_path / "results")
    monkeypatch.setattr("groundglass.apps.pacs.processing.segment", fail)
    with pytest.raises(MemoryLimitError, match="it needs more memory"):
        segment_series(task, fake_segmenter())
    with pytest.raises(OutputError, match="no longer in the spool"):
        segment_series(replace(task, source=tmp_path / "gone"), fake_segmenter())


def test_an_internal_error_is_reported_without_the_message_of_a_library(
    set_up: WatcherSetUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("PLANTED^NAME is odd")

    files = series(tmp_path / "study")
    monkeypatch.setattr("groundglass.apps.pacs.processing.segment", fail)
    result = segment_series(SeriesTask("1.2", uid_of(files), files[0].parent, tmp_path / "results"), fake_segmenter())
    assert result.internal_error is not None
    assert result.internal_error.startswith("ValueError in test_watcher.py:")
    assert "PLANTED" not in result.internal_error
    monkeypatch.setattr(set_up.pacs, "segment", lambda _: result)
    assert set_up.run_once() == WatchCounts(failed=1)
    assert set_up.entry.reason == result.internal_error


def test_a_series_during_which_the_watcher_was_killed_comes_after_the_others(set_up: WatcherSetUp) -> None:
    set_up.pacs.arrivals = [SeriesArrival(f"1.2.{number}", "1.2", 3, number) for number in (3, 4, 5)]
    set_up.ledger.add_arrivals(set_up.pacs.arrivals, 5)
    set_up.ledger.mark_begun(set_up.entry)  # and the watcher was killed
    assert set_up.run_once() == WatchCounts(stored=3)
    assert [line[:5] for line in set_up.lines if "stored" in line] == ["1.2.4", "1.2.5", "1.2.3"]


@pytest.mark.parametrize("uid", ["../../instances", "1.2/3", "", "1" * 65, "1.2.3?x", "ANON-17", "..", "."])
@pytest.mark.parametrize("of_study", [True, False])
def test_a_uid_that_is_none_is_refused_with_a_line_before_any_request(
    set_up: WatcherSetUp, of_study: bool, uid: str
) -> None:
    set_up.pacs.failures = {"retrieve": AssertionError("a request was made")}
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", uid, 3, 1) if of_study else SeriesArrival(uid, "1.2", 3, 1)]
    assert set_up.run_once() == WatchCounts(refused=1)
    assert ("StudyInstanceUID" if of_study else "SeriesInstanceUID") in set_up.lines[-1]
    assert "expected numbers with dots between them, at most 64 characters" in set_up.lines[-1]
    assert set_up.ledger.retry_all() == 1
    assert set_up.run_once() == WatchCounts(refused=1)


@pytest.mark.parametrize("uid", ["1.2..3", "1.2.3.", ".1", "."])
def test_a_study_into_which_no_result_can_be_stored_is_refused_before_its_series_is_segmented(
    set_up: WatcherSetUp, uid: str
) -> None:
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", uid, 3, 1)]
    assert set_up.run_once() == WatchCounts(refused=1)
    assert set_up.pacs.segmentations == 0
    assert set_up.state() == ("refused", 0, True)
    assert "no result can be stored into such a study: give the study another in the PACS" in set_up.lines[-1]


@pytest.mark.thorough
def test_a_series_whose_images_state_another_study_than_the_server_is_refused(tmp_path: Path) -> None:
    files = series(tmp_path / "study")
    task = SeriesTask("1.2.999", uid_of(files), files[0].parent, tmp_path / "results")
    with pytest.raises(InputError, match="its images state another StudyInstanceUID than the server does"):
        segment_series(task, fake_segmenter())
    assert not task.results.exists()


def test_results_are_stored_into_a_study_whose_uid_has_leading_zeros(set_up: WatcherSetUp) -> None:
    set_up.pacs.arrivals = [SeriesArrival("1.2.3", "1.2.003", 3, 1)]
    assert set_up.run_once() == WatchCounts(stored=1)
    assert set_up.pacs.stored == ["1.2.003"]


def test_a_series_without_instances_is_refused(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    with pytest.raises(InputError, match="series holds no DICOM"):
        segment_series(SeriesTask("1.2", "1.2.3", tmp_path / "series", tmp_path / "results"), fake_segmenter())


def test_uids_in_messages_are_cut_to_their_end() -> None:
    message = short_message(ValueError("series 1.2.826.0.1.3680043.8.498.11486944512306609\n103 holds 1.5 of 2.5"))
    assert message == "series …944512306609 103 holds 1.5 of 2.5"


def test_pauses_for_a_server_grow_and_each_reason_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr("groundglass.apps.pacs.backoff.time.sleep", slept.append)
    backoff = Backoff(lines.append)
    backoff.reset()
    for message in ("down", "down", "down", "denied", "down", "down", "down", "down"):
        backoff.wait(PacsError(message))
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert lines == ["waiting: down", "waiting: denied", "waiting: down"]
    backoff.reset()
    backoff.reset()
    assert lines[3:] == ["resumed after 0 s"]
    backoff.wait(PacsError("down"))
    assert slept[-1] == 1


def test_a_continuous_watch_waits_for_the_server(set_up: WatcherSetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up.pacs.is_up = False
    pauses: list[float] = []

    def come_up_later(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            set_up.pacs.is_up = True
        if len(pauses) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("groundglass.apps.pacs.watcher.time.sleep", come_up_later)
    watcher = set_up.watcher(RetryPolicy())
    with pytest.raises(KeyboardInterrupt):
        watcher.run(once=False)
    assert pauses[:2] == [1, 2]
    assert 0 < pauses[2] <= 10
    assert set_up.lines[0] == "waiting: down"
    assert set_up.lines[1:3] == ["1.2.3: 3 instances retrieved", set_up.lines[2]]
    assert "resumed after 0 s" in set_up.lines
    assert watcher.counts == WatchCounts(stored=1)


@pytest.mark.parametrize("jump_s", [-400 * 86400.0, -3600.0, 3600.0, 400 * 86400.0])
def test_a_clock_that_is_set_while_the_server_is_down_delays_no_series(
    jump_s: float, set_up: WatcherSetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_s, slept = [0.0], []
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + ahead_s[0])
    set_up.pacs.failures["store"] = PacsError("down")

    def set_clock(pause_s: float) -> None:
        slept.append(pause_s)
        assert len(slept) < 3, "the series waits"
        ahead_s[0] += jump_s
        set_up.pacs.is_up = True
        set_up.pacs.failures.clear()

    def go_down(study_uid: str, files: list[Path]) -> None:
        set_up.pacs.is_up = "store" not in set_up.pacs.failures
        FakePacs.store(set_up.pacs, study_uid, files)

    monkeypatch.setattr(set_up.pacs, "store", go_down)
    monkeypatch.setattr(time, "sleep", set_clock)
    watcher = set_up.watcher(RetryPolicy(poll_s=0.0))
    with pytest.raises(AssertionError, match="the series waits"):  # nothing is left to be done
        watcher.run(once=False)
    assert watcher.counts == WatchCounts(stored=1)
    assert slept[0] == 1.0
    assert set_up.state() == ("done", 0, True)
    assert set_up.pacs.segmentations == 1
