"""The dispatcher under faults: whatever happens between taking a job and recording its end, no job is lost."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import HTTPException, Request
from starlette.datastructures import Headers

from groundglass.apps.service import jobs as jobs_module
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.dispatch import Dispatcher, JobEnd
from groundglass.apps.service.job_states import JobStatus
from groundglass.apps.service.jobs import MAX_ATTEMPTS, JobStore
from groundglass.apps.service.metrics import ServiceMetrics
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.service import Service
from groundglass.apps.service.sessions import COOKIE, Sessions
from groundglass.apps.service.storage import SPARE_BYTES, ServiceStorage
from groundglass.errors import OutputError
from groundglass.workers import Worker, WorkerClosedError, WorkerStartError
from helpers.factories import make_instant_job
from helpers.scripted_worker import wait_until

ONE, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ServiceStorage]:
    opened = ServiceStorage(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def jobs(storage: ServiceStorage) -> Iterator[JobStore]:
    store = JobStore(storage.database, timedelta(hours=1))
    yield store
    store.close()


@pytest.fixture
def dispatcher(jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    monkeypatch.setattr("groundglass.apps.service.dispatch.RETRY_EVERY_S", 0.2)
    running = Dispatcher(jobs, storage, ServiceMetrics(), make_instant_job, 60, 1)
    yield running
    running.close()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the dispatcher, in seconds, which a test sets."""
    time_s = [0.0]
    monkeypatch.setattr("groundglass.apps.service.dispatch.steady_s", lambda: time_s[0])
    return time_s


def fail_first(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, errors: list[Exception], after: bool) -> None:
    """Let a method raise these errors, one at each of the first calls: after it has done its work, or instead."""
    method: Callable[..., Any] = getattr(owner, name)

    def failing(*arguments: Any) -> Any:
        result = method(*arguments) if after or not errors else None
        if errors:
            raise errors.pop(0)
        return result

    monkeypatch.setattr(owner, name, failing)


ERRORS = [sqlite3.OperationalError("database is locked"), OSError(28, "No space left on device"), RuntimeError("a bug")]


@pytest.mark.parametrize("after", [False, True], ids=["instead", "afterwards"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        *(
            (JobStore, name)
            for name in ("start_next", "finish", "get", "pass_time", "expired_ids", "requeue_unprocessed")
        ),
        (ServiceMetrics, "record_job_end"),
    ],
)
@pytest.mark.thorough
def test_a_job_is_done_once_whatever_fails_meanwhile(
    dispatcher: Dispatcher, jobs: JobStore, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool
) -> None:
    jobs.add(ONE, "a scan")
    jobs.add(OTHER, "another one")
    fail_first(monkeypatch, owner, name, list(ERRORS), after)
    dispatcher.start()
    wait_until(lambda: jobs.count_by_status()[JobStatus.DONE] == 2 and not dispatcher.trouble, 20)
    monkeypatch.undo()
    assert jobs.count_by_status() == {"queued": 0, "running": 0, "done": 2, "failed": 0}


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        WorkerStartError("no worker process"),
        OutputError("lesions.nii.gz cannot be written: No space left on device; make room"),
    ],
)
def test_a_job_waits_while_no_process_can_be_started_or_no_result_be_written(
    dispatcher: Dispatcher, jobs: JobStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(ServiceStorage, "has_room", False)
    dispatcher.start()
    errors = [error] * 6
    fail_first(monkeypatch, Worker, "run", errors, after=False)
    jobs.add(ONE, "a scan")
    dispatcher.wake()
    wait_until(lambda: dispatcher.trouble.startswith("the queue is paused"))
    wait_until(lambda: jobs.count_by_status()[JobStatus.DONE] == 1, 20)
    wait_until(lambda: not dispatcher.trouble)
    assert not errors


def test_a_job_whose_results_do_not_fit_on_the_disk_fails_and_the_next_is_done(
    dispatcher: Dispatcher, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Worker.run

    def run_unless_one(worker: Worker[Any, Any], task: Path) -> Any:
        if task.name == ONE:
            raise OutputError("view/scan.nii cannot be written: No space left on device; make room")
        return run(worker, task)

    monkeypatch.setattr(Worker, "run", run_unless_one)
    jobs.add(ONE, "a large scan")
    jobs.add(OTHER, "another one")
    dispatcher.start()
    wait_until(lambda: jobs.count_by_status()[JobStatus.DONE] == 1, 20)
    failed = jobs.get(ONE)
    assert failed is not None
    assert failed.reason == "view/scan.nii cannot be written: No space left on device; make room"
    wait_until(lambda: not dispatcher.trouble)


def test_a_scan_during_which_the_server_is_stopped_in_order_is_not_to_blame(
    dispatcher: Dispatcher, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_the_end(worker: Worker[Any, Any], _: Path) -> None:
        wait_until(lambda: worker._closed)
        raise WorkerClosedError

    monkeypatch.setattr(Worker, "run", wait_for_the_end)
    jobs.add(ONE, "a scan")
    dispatcher.start()
    wait_until(lambda: jobs.count_by_status()[JobStatus.RUNNING] == 1)
    dispatcher.close()
    assert jobs.count_queued() == 1
    for _ in range(MAX_ATTEMPTS - 1):  # as if the server were killed from now on
        jobs.start_next()
        jobs.requeue_interrupted()
    assert jobs.count_queued() == 1


def test_there_is_room_if_files_can_be_written_and_the_disk_has_some(
    storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServiceStorage, "free_bytes", lambda _: SPARE_BYTES)
    assert storage.has_room
    assert not list((storage.folder / "incoming").iterdir())
    monkeypatch.setattr(ServiceStorage, "free_bytes", lambda _: SPARE_BYTES - 1)
    assert not storage.has_room
    monkeypatch.setattr(ServiceStorage, "free_bytes", lambda _: SPARE_BYTES)
    (storage.folder / "incoming").rmdir()
    (storage.folder / "incoming").touch()
    assert not storage.has_room


@pytest.mark.slow
def test_the_end_of_a_job_is_recorded_once_another_program_unlocks_the_database(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.apps.service.jobs.BUSY_S", 0.1)
    run, locked, go = Worker.run, threading.Event(), threading.Event()

    def run_under_lock(worker: Worker[Any, Any], task: Any) -> Any:
        result = run(worker, task)
        locked.set()
        assert go.wait(20)
        return result

    monkeypatch.setattr(Worker, "run", run_under_lock)
    jobs.add(ONE, "a scan")
    dispatcher.start()
    assert locked.wait(20)
    other = sqlite3.connect(storage.database, isolation_level=None)
    other.execute("begin immediate")
    go.set()
    wait_until(lambda: "OperationalError" in dispatcher.trouble, 20)
    assert jobs.count_by_status()[JobStatus.RUNNING] == 1
    other.execute("rollback")
    other.close()
    wait_until(lambda: jobs.count_by_status()[JobStatus.DONE] == 1, 20)


def test_a_job_that_is_deleted_while_the_database_fails_leaves_no_files(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ready, go = Worker.run, threading.Event(), threading.Event()

    def run_later(worker: Worker[Any, Any], task: Any) -> Any:
        ready.set()
        assert go.wait(20)
        return run(worker, task)

    monkeypatch.setattr(Worker, "run", run_later)
    storage.job_folder(ONE).path.mkdir()
    jobs.add(ONE, "a scan")
    dispatcher.start()
    assert ready.wait(20)
    assert dispatcher.remove(ONE)
    fail_first(monkeypatch, JobStore, "get", list(ERRORS), after=False)
    go.set()
    wait_until(lambda: not storage.scan_ids(), 20)


def test_a_job_is_deleted_on_a_full_disk(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = JobStore.remove

    def remove_with_room(store: JobStore, job_id: str) -> bool:
        if storage.scan_ids():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return remove(store, job_id)

    monkeypatch.setattr(JobStore, "remove", remove_with_room)
    storage.job_folder(ONE).path.mkdir()
    jobs.add(ONE, "a scan")
    assert dispatcher.remove(ONE)
    assert jobs.get(ONE) is None
    assert not storage.scan_ids()


def test_a_job_that_runs_and_cannot_be_forgotten_on_a_full_disk_does_not_run_for_ever(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    run, ready = Worker.run, threading.Event()
    waits = [True]

    def run_long(worker: Worker[Any, Any], task: Any) -> Any:
        ready.set()
        wait_until(lambda: worker._closed or not waits)
        return run(worker, task)

    monkeypatch.setattr(Worker, "run", run_long)
    storage.job_folder(ONE).path.mkdir()
    jobs.add(ONE, "a scan")
    dispatcher.start()
    assert ready.wait(20)
    waits.clear()
    fail_first(monkeypatch, JobStore, "remove", [full, full], after=False)
    with pytest.raises(sqlite3.OperationalError):
        dispatcher.remove(ONE)
    wait_until(lambda: jobs.count_by_status()[JobStatus.RUNNING] == 0 and dispatcher._current_id is None, 20)
    assert dispatcher.remove(ONE)
    assert not storage.scan_ids()


def test_a_write_waits_for_others_no_longer_than_for_another_program(
    storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "BUSY_S", 0.1)
    with closing(JobStore(storage.database, timedelta(hours=1))) as store, ThreadPoolExecutor() as pool:
        with store._write_lock:
            removing = pool.submit(store.remove, ONE)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                removing.result(20)
        assert not store.remove(ONE)


def test_a_job_keeps_its_files_if_the_database_cannot_forget_it(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.job_folder(ONE).path.mkdir()
    jobs.add(ONE, "a scan")
    fail_first(monkeypatch, JobStore, "remove", [sqlite3.OperationalError("database is locked")], after=False)
    with pytest.raises(sqlite3.OperationalError):
        dispatcher.remove(ONE)
    assert jobs.get(ONE) is not None
    assert storage.scan_ids() == [ONE]


def add_done(jobs: JobStore, job_id: str) -> None:
    jobs.add(job_id, "a scan")
    jobs.start_next()
    jobs.finish(job_id, "no lesion", ())


def test_results_are_deleted_after_the_time_for_which_they_are_kept(dispatcher: Dispatcher, jobs: JobStore) -> None:
    """The scans of this server are kept for an hour."""
    add_done(jobs, ONE)
    jobs.pass_time(1800.0)
    add_done(jobs, OTHER)
    jobs.pass_time(1799.0)
    dispatcher._sweep()
    assert jobs.ids() == {ONE, OTHER}
    jobs.pass_time(2.0)
    dispatcher._last_passed = None
    dispatcher._sweep()
    assert jobs.ids() == {OTHER}


def test_a_result_is_kept_from_its_own_end_on(dispatcher: Dispatcher, jobs: JobStore, now: list[float]) -> None:
    """The scans of this server are kept for an hour, and no time passes for them while one is processed."""
    dispatcher._sweep()
    jobs.add(ONE, "a scan that takes longer than it is kept")
    jobs.start_next()
    now[0] = 5000.0
    dispatcher._record(JobEnd(ONE, 5000.0, JobResult("no lesion", ())))
    dispatcher._sweep()
    now[0] += 3500.0
    dispatcher._sweep()
    assert jobs.ids() == {ONE}
    now[0] += 200.0
    dispatcher._sweep()
    assert not jobs.ids()


def test_results_expire_on_a_full_disk_too(
    dispatcher: Dispatcher, jobs: JobStore, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher._sweep()
    add_done(jobs, ONE)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(_: float | None) -> None:
        raise full

    monkeypatch.setattr(jobs, "pass_time", fail)
    for now[0] in (1800.0, 3500.0):
        dispatcher._sweep()
        assert jobs.ids() == {ONE}
    now[0] = 3700.0
    dispatcher._sweep()
    assert not jobs.ids()


def test_the_name_of_a_deleted_scan_is_in_no_file_of_the_database(jobs: JobStore, storage: ServiceStorage) -> None:
    jobs.add(ONE, "PLANTED_NAME.nii.gz")
    jobs.describe(ONE, None, "PLANTED_NOTE")
    jobs.remove(ONE)
    for file in storage.database.parent.glob(f"{storage.database.name}*"):
        assert b"PLANTED" not in file.read_bytes(), file.name


@pytest.mark.parametrize("hours", [24, -24, 9600])
def test_a_clock_that_is_set_deletes_no_results_also_if_the_server_starts_anew(
    dispatcher: Dispatcher, jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    add_done(jobs, ONE)
    dispatcher._sweep()
    monkeypatch.setattr(jobs_module, "datetime", clock_at(hours))
    monkeypatch.setattr("groundglass.apps.service.dispatch.SWEEP_EVERY_S", 0.0)
    dispatcher._sweep()
    with closing(JobStore(storage.database, timedelta(hours=1))) as after_a_start:
        after_a_start.pass_time(None)
        assert not after_a_start.expired_ids()
        for _ in range(25):  # a pause counts up to a twentieth
            monkeypatch.setattr(jobs_module, "datetime", clock_at(hours := hours + 2))
            after_a_start.pass_time(None)
        assert after_a_start.expired_ids() == [ONE]


@pytest.mark.parametrize("hours", [-72, 216, 9600])
def test_a_clock_that_is_set_changes_neither_the_queue_nor_who_is_signed_in(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    sessions = Sessions("a token of some length")
    cookie = Headers({"Cookie": f"{COOKIE}={sessions.start()}"})
    jobs.add(ONE, "a scan")
    monkeypatch.setattr(jobs_module, "datetime", clock_at(hours))
    monkeypatch.setattr(time, "time", lambda: datetime.now().timestamp() + 3600 * hours)
    jobs.add(OTHER, "another one")
    assert [job.id for _ in range(2) if (job := jobs.start_next())] == [ONE, OTHER]
    assert sessions.is_signed_in(cookie)


@pytest.mark.parametrize("hours", [-72, 216, 9600])
def test_a_clock_that_is_set_while_a_scan_is_processed_asks_nobody_to_wait_for_days(
    jobs: JobStore, storage: ServiceStorage, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    jobs.add(ONE, "a scan")
    jobs.start_next()
    monkeypatch.setattr(jobs_module, "datetime", clock_at(hours))
    jobs.finish(ONE, "no lesion", ())
    jobs.add(OTHER, "another one")
    service = Service(ServiceConfig(storage.folder, queue_size=1), storage, jobs, ServiceMetrics(), cast(Any, None))
    with pytest.raises(HTTPException) as refused:
        service._check_capacity(Request({"type": "http", "headers": []}), 1)
    assert 5 <= int((refused.value.headers or {})["Retry-After"]) <= 300


def test_a_database_of_an_earlier_version_keeps_the_age_of_its_results(storage: ServiceStorage) -> None:
    with closing(JobStore(storage.database, timedelta(hours=1))) as before:
        add_done(before, ONE)
        add_done(before, OTHER)
    with sqlite3.connect(storage.database) as database:
        database.execute("update jobs set finished = ? where id = ?", ("2020-01-01T00:00:00+00:00", ONE))
        database.execute("alter table jobs drop column kept_s")
    with closing(JobStore(storage.database, timedelta(hours=1))) as after:
        assert after.expired_ids() == [ONE]


def clock_at(hours: float) -> type[datetime]:
    """Return `datetime` with a clock that is ahead by some hours."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Shifted":
            return cls.fromtimestamp(datetime.now(tz).timestamp() + 3600 * hours, tz)

    return Shifted
