"""The service inside the test process, for states that a real server is hard to bring into, such as a full disk."""

import asyncio
import errno
import io
import json
import logging
import os
import resource
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.dispatch import Dispatcher
from groundglass.apps.service.job_states import JobStatus, ResultFile
from groundglass.apps.service.jobs import MAX_ATTEMPTS, JobStore
from groundglass.apps.service.metrics import ServiceMetrics
from groundglass.apps.service.processing import ServiceWorkerFactory, process_job
from groundglass.apps.service.routes.jobs import job_changes
from groundglass.apps.service.serve import NamelessFormatter
from groundglass.apps.service.service import Service
from groundglass.apps.service.storage import JobFolder, ServiceStorage
from groundglass.apps.service.upload import Upload
from groundglass.errors import FormatError, OutputError
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.segmenter import Segmenter
from groundglass.scan.phantom import Phantom
from helpers.dicom_phantom import NUMBER, write_series
from helpers.scripted_worker import wait_until


class IdleDispatcher:
    """A dispatcher that processes nothing."""

    is_alive = True
    trouble = ""

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    storage, jobs = ServiceStorage(tmp_path), JobStore(tmp_path / "jobs.sqlite", timedelta(hours=1))
    config = ServiceConfig(tmp_path, queue_size=3)
    yield Service(config, storage, jobs, ServiceMetrics(), cast(Dispatcher, IdleDispatcher()))
    jobs.close()
    storage.close()


class Client:
    """Sends requests to the application without a network."""

    def __init__(self, service: Service) -> None:
        self._app = build(service)

    def get(self, path: str) -> httpx.Response:
        return self._send("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._send("POST", path, **options)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **options)

        return anyio.run(send)


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service)


FULL = sqlite3.OperationalError("database or disk is full")
FULL.sqlite_errorcode = sqlite3.SQLITE_FULL
LOCKED = sqlite3.OperationalError("database is locked")
LOCKED.sqlite_errorcode = sqlite3.SQLITE_BUSY
FILE = {"files": ("ct.nii", b"something")}


def test_a_full_disk_is_507_and_leaves_no_files(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServiceStorage, "free_bytes", lambda _: 1 << 20)
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["detail"]
    ready = client.get("/readyz")
    assert (ready.status_code, ready.text) == (503, "the disk is full")
    monkeypatch.undo()

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("groundglass.apps.service.upload.put_in_order", no_room)
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["detail"]
    assert service.free_slots == 3
    assert not list((service.storage.folder / "incoming").iterdir())
    assert client.get("/api/jobs").json() == []


def test_a_client_that_stalls_loses_its_slot(service: Service, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.apps.service.upload.STALL_S", 0.1)
    monkeypatch.setattr("groundglass.apps.service.service.DRAIN_S", 0.1)

    async def stalling() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'
        await anyio.sleep(30)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/scans", content=stalling(), headers=headers)
    assert (answer.status_code, answer.json()) == (
        408,
        {"detail": "less than 1 MiB arrived within 0.1 s: send it again faster"},
    )
    assert service.free_slots == 3
    assert not list((service.storage.folder / "incoming").iterdir())


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (LOCKED, 503, "database is in use by another program: try again"),
        (sqlite3.DatabaseError("malformed"), 503, r"database cannot be used (malformed): ask its administrator"),
        (sqlite3.OperationalError("readonly database"), 503, r"database cannot be used (readonly database)"),
        (FULL, 507, "disk is full"),
    ],
    ids=["locked", "damaged", "read-only", "full"],
)
@pytest.mark.parametrize("method", ["add", "get", "count_queued"])
def test_a_database_that_fails_is_a_clear_answer_and_leaves_no_files(
    service: Service,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    error: sqlite3.Error,
    status: int,
    reason: str,
    method: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(JobStore, method, fail)
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]
    if method == "get":
        assert client.get(f"/api/jobs/{'0' * 32}").status_code == status
    monkeypatch.undo()
    assert service.free_slots == 3
    assert not service.storage.scan_ids()
    assert not list((service.storage.folder / "incoming").iterdir())
    assert client.get("/api/jobs").json() == []


def record_later(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let a scan that is being recorded set the first event, and wait for the second."""
    add, ready, go = JobStore.add, threading.Event(), threading.Event()

    def add_later(*arguments: Any) -> Any:
        ready.set()
        assert go.wait(20)
        return add(*arguments)

    monkeypatch.setattr(JobStore, "add", add_later)
    return ready, go


def test_the_server_answers_while_the_database_is_locked(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, go = record_later(monkeypatch)

    async def post_and_ask() -> tuple[int, str]:
        transport = httpx.ASGITransport(build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as both:
            answers: list[httpx.Response] = []

            async def post() -> None:
                answers.append(await both.post("/api/scans", files=FILE))

            async with anyio.create_task_group() as group:
                group.start_soon(post)
                await run_sync(ready.wait, 20)
                health = (await both.get("/healthz")).text
                go.set()
            return answers[0].status_code, health

    assert anyio.run(post_and_ask) == (202, "ok")


def test_a_scan_that_is_recorded_while_the_server_ends_keeps_its_files(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, go = record_later(monkeypatch)

    async def post_and_end() -> None:
        transport = httpx.ASGITransport(build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            request = asyncio.create_task(client.post("/api/scans", files=FILE))
            await run_sync(ready.wait, 20)
            request.cancel()  # as uvicorn does, some seconds after it was told to end
            with suppress(asyncio.CancelledError):
                await request
            go.set()

    unfinished = service.storage.create_incoming("b" * 32).path
    anyio.run(post_and_end)
    wait_until(lambda: bool(service.jobs.ids()))
    assert service.jobs.ids() == set(service.storage.scan_ids())
    assert all(service.storage.job_folder(job_id).scan.is_file() for job_id in service.jobs.ids())
    service.close()
    assert not unfinished.exists()


@pytest.mark.thorough
def test_a_mask_is_measured_by_the_classes_of_its_model_also_if_the_server_has_another_one_since(
    service: Service, client: Client, phantom: Phantom, class_bands: Segmenter
) -> None:
    folder = service.storage.job_folder("a" * 32)
    write_series(phantom.scan, folder.scan)
    service.jobs.add("a" * 32, "a scan")
    result = process_job(folder.path, class_bands, 3000)
    service.jobs.finish("a" * 32, result.summary, result.files)
    drawn = (folder.view / "lesions.nii.gz").read_bytes()
    answer = client.post(f"/api/jobs/{'a' * 32}/corrections", content=drawn)
    correction = service.storage.job_folder(answer.json()["id"])
    turned = ("lesion", *reversed(class_bands.card.classes[1:]))
    other_card = class_bands.card.model_copy(update={"name": "another", "classes": turned})
    process_job(correction.path, Segmenter(other_card, class_bands.engine), 3000)
    before, after = (json.loads((each.results / "findings.json").read_text()) for each in (folder, correction))
    assert len({each["volume_ml"] for each in before["classes"]}) == 2
    assert (after["classes"], after["model"]) == (before["classes"], before["model"])
    assert after["corrected_by_hand"]
    assert correction.read_patient() == NUMBER
    correction.card.write_text('{"name": "of another version"}')
    with pytest.raises(FormatError, match="is of another version of groundglass: send the scan again"):
        process_job(correction.path, class_bands, 3000)


def test_a_correction_of_a_scan_that_is_gone_is_404(service: Service, client: Client) -> None:
    service.jobs.add("a" * 32, "a scan")
    service.jobs.finish("a" * 32, "no lesion", ())
    answer = client.post(f"/api/jobs/{'a' * 32}/corrections", content=b"a mask")
    assert (answer.status_code, "is gone" in answer.json()["detail"]) == (404, True)
    assert client.get(f"/api/jobs/{'a' * 32}/findings").status_code == 404
    assert client.get(f"/api/jobs/{'a' * 32}/view/scan.nii").status_code == 404
    assert service.free_slots == 3


def add_series(service: Service) -> Path:
    """A job that is done, of a folder of three files in which two series were found."""
    folder = service.storage.job_folder("a" * 32)
    folder.scan.mkdir(parents=True)
    for number in range(3):
        (folder.scan / f"{number:06}").touch()
    found = {"description": "", "kernel": "", "modality": "CT", "slices": 2, "slice_distance_mm": None, "axial": True}
    listed = [found | {"label": label, "chosen": False, "rejection_reason": None} for label in ("1", "2")]
    folder.series.write_text(json.dumps(listed))
    service.jobs.add("a" * 32, "a scan")
    service.jobs.finish("a" * 32, "no lesion", ())
    return folder.scan


@pytest.mark.parametrize(("path", "body"), [("corrections", {"content": b"x"}), ("series", {"json": {"series": "2"}})])
def test_of_a_scan_that_is_deleted_while_it_is_linked_no_part_becomes_a_job(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    scan, link = add_series(service), Path.hardlink_to

    def link_while_it_is_deleted(target: Path, source: Path) -> None:
        link(target, source)
        service.jobs.remove("a" * 32)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", link_while_it_is_deleted)
        assert client.post(f"/api/jobs/{'a' * 32}/{path}", **body).status_code == 404
    assert (service.jobs.all(), service.free_slots) == ([], 3)
    assert list(service.storage.scan_times()) == [scan.parent.name]


def test_a_scan_that_cannot_be_linked_for_lack_of_room_is_507_with_the_reason(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_series(service)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    answer = client.post(f"/api/jobs/{'a' * 32}/corrections", content=b"a mask")
    assert (answer.status_code, "No space left" in answer.json()["detail"]) == (507, True)


@pytest.mark.parametrize("path", ["findings", "files/findings.json", "view/scan.nii"])
def test_a_file_that_is_deleted_while_it_is_asked_for_is_404(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    service.jobs.add("a" * 32, "a scan")
    service.jobs.finish("a" * 32, "no lesion", [ResultFile(name="findings.json", bytes=2)])
    monkeypatch.setattr("groundglass.apps.service.routes.results._existing", lambda path: path)
    answer = client.get(f"/api/jobs/{'a' * 32}/{path}")
    assert (answer.status_code, "is gone" in answer.json()["detail"]) == (404, True)


def test_the_events_of_a_job_end_when_the_client_signs_out(service: Service) -> None:
    service.jobs.add("a" * 32, "a scan")
    signed_in = [True, True, False]

    async def receive() -> list[str]:
        return [event async for event in job_changes(service, "a" * 32, lambda: signed_in.pop(0))]

    (event,) = anyio.run(receive)
    assert '"queued"' in event


@pytest.mark.parametrize(("others", "pause_s"), [(0, 0.25), (199, 2.0)])
def test_clients_that_follow_jobs_look_for_changes_a_hundred_times_a_second_at_most(
    service: Service, monkeypatch: pytest.MonkeyPatch, others: int, pause_s: float
) -> None:
    service.jobs.add("a" * 32, "a scan")
    service.followers = others
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        service.jobs.remove("a" * 32)  # which ends the events

    async def follow() -> None:
        async for _ in job_changes(service, "a" * 32, lambda: True):
            pass

    monkeypatch.setattr("groundglass.apps.service.routes.jobs.anyio.sleep", sleep)
    anyio.run(follow)
    assert pauses == [pause_s]
    assert service.followers == others


def test_a_job_that_is_deleted_while_all_are_listed_does_not_end_the_list(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.jobs.add("a" * 32, "a scan")
    service.jobs.start_next()
    listed = service.jobs.all()
    service.jobs.remove("a" * 32)
    monkeypatch.setattr(service.jobs, "all", lambda: listed)
    answer = client.get("/api/jobs")
    assert (answer.status_code, [job["status"] for job in answer.json()]) == (200, ["running"])


def test_a_change_of_results_that_are_gone_or_of_another_version_is_refused(service: Service, client: Client) -> None:
    for job_id in ("a" * 32, "b" * 32):
        service.jobs.add(job_id, "a scan")
        service.jobs.finish(job_id, "no lesion", ())
    answer = client.get(f"/api/jobs/{'a' * 32}/change?other={'b' * 32}")
    assert (answer.status_code, "is gone" in answer.json()["detail"]) == (404, True)
    for job_id in ("a" * 32, "b" * 32):
        results = service.storage.job_folder(job_id).results
        results.mkdir(parents=True)
        (results / "findings.json").write_text('{"schema": 0}')
    answer = client.get(f"/api/jobs/{'a' * 32}/change?other={'b' * 32}")
    assert (answer.status_code, "another version" in answer.json()["detail"]) == (409, True)


def test_a_list_of_series_of_another_version_offers_no_choice(service: Service, client: Client) -> None:
    service.jobs.add("a" * 32, "a scan")
    folder = service.storage.job_folder("a" * 32)
    folder.path.mkdir()
    folder.series.write_text('[{"label": "2", "colour": "unknown"}]')
    answer = client.get(f"/api/jobs/{'a' * 32}/series")
    assert (answer.status_code, answer.json()) == (200, [])


def test_the_files_of_an_upload_that_breaks_off_are_removed_beside_the_answers_to_others(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed_in, remove = list[threading.Thread](), ServiceStorage.remove

    def remove_and_note(*arguments: Any) -> None:
        removed_in.append(threading.current_thread())
        remove(*arguments)

    async def broken(*_: object) -> None:
        raise ClientDisconnect

    monkeypatch.setattr(ServiceStorage, "remove", remove_and_note)
    monkeypatch.setattr("groundglass.apps.service.routes.scans.receive", broken)
    assert client.post("/api/scans", files=FILE).status_code == 400
    assert removed_in != [threading.main_thread()]  # in which the others are answered
    assert not list((service.storage.folder / "incoming").iterdir())


@pytest.mark.parametrize("length", [0, 1, 70, 256, 5000])
def test_any_boundary_is_accepted_or_400(client: Client, length: int) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={'x' * length}"}
    assert client.post("/api/scans", content=b"nonsense", headers=headers).status_code == 400


@pytest.mark.parametrize(
    "parameter", ["boundary*=utf-99''x", "boundary*=utf-8''%ff%fe", "boundary*=x", "boundary=\xff"]
)
def test_odd_parameters_of_a_form_are_400(client: Client, parameter: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; {parameter}".encode("latin-1")}
    assert client.post("/api/scans", content=b"nonsense", headers=headers).status_code == 400


def test_a_full_queue_is_429_with_a_time_to_retry(client: Client) -> None:
    accepted = [client.post("/api/scans", files=FILE).json() for _ in range(3)]
    assert [job["position"] for job in accepted] == [1, 2, 3]
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "30"
    assert client.get("/readyz").status_code == 503
    assert client.get("/api/limits").json()["free"] == 0


def test_a_server_whose_queue_has_stopped_is_not_ready(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").text == "ok"
    monkeypatch.setattr(IdleDispatcher, "trouble", "the queue is paused: OperationalError in jobs.py:1")
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, IdleDispatcher.trouble)
    monkeypatch.setattr(IdleDispatcher, "is_alive", False)
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, "the queue has stopped")


def test_a_scan_that_ends_the_server_several_times_fails(service: Service) -> None:
    jobs = service.jobs
    jobs.add("a" * 32, "bad")
    jobs.add("b" * 32, "good")
    for _ in range(MAX_ATTEMPTS - 1):
        started = jobs.start_next()
        assert started is not None
        assert started.label == "bad"
        jobs.requeue_interrupted()
        assert jobs.get("a" * 32) == started.model_copy(update={"status": JobStatus.QUEUED, "position": 1})
    assert jobs.start_next() is not None
    jobs.requeue_interrupted()
    failed = jobs.get("a" * 32)
    assert failed is not None
    assert failed.status is JobStatus.FAILED
    assert failed.reason == f"the server ended {MAX_ATTEMPTS} times while it processed this scan"
    following = jobs.start_next()
    assert following is not None
    assert following.label == "good"


def test_no_job_starts_twice(service: Service) -> None:
    for number in range(40):
        service.jobs.add(f"{number:032x}", "a scan")
    started: list[str] = []

    def start_all() -> None:
        while (job := service.jobs.start_next()) is not None:
            started.append(job.id)

    threads = [threading.Thread(target=start_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [f"{number:032x}" for number in range(40)]


def test_only_the_owner_can_read_the_names_of_scans(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    storage = ServiceStorage(tmp_path)
    jobs = JobStore(storage.database, timedelta(hours=1))
    jobs.add("a" * 32, "a name")
    assert {path.name for path in tmp_path.glob("jobs.sqlite*")} == {
        f"jobs.sqlite{suffix}" for suffix in ("", "-shm", "-wal")
    }
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077] == []
    jobs.close()
    storage.close()


@pytest.mark.parametrize("lost", ["removed", "emptied", "recreated", "damaged"])
def test_scans_without_their_database_are_kept_and_the_server_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    config = ServiceConfig(tmp_path)
    service = Service.open(config)
    for number in range(3):
        service.storage.job_folder(f"{number:032x}").path.mkdir()
        service.jobs.add(f"{number:032x}", "a scan")
    service.close()
    for path in tmp_path.glob("jobs.sqlite*"):
        path.unlink()
    if lost == "emptied":
        (tmp_path / "jobs.sqlite").touch()
    elif lost == "damaged":
        (tmp_path / "jobs.sqlite").write_bytes(b"no database " * 1000)
    elif lost == "recreated":
        JobStore(tmp_path / "jobs.sqlite", timedelta(hours=1)).close()
    for _ in range(2):  # the first try must not make the second one succeed
        with pytest.raises(OutputError, match="restore it from a backup"):
            Service.open(config)
    assert len(list((tmp_path / "scans").iterdir())) == 3


def test_scans_that_an_older_copy_of_the_database_does_not_know_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    service = Service.open(ServiceConfig(tmp_path))
    service.jobs.pass_time(None)
    service.close()
    accepted = tmp_path / "scans" / ("a" * 32)
    accepted.mkdir()
    hours_later = time.time() + 2 * 3600
    os.utime(accepted, (hours_later, hours_later))
    for _ in range(2):
        with pytest.raises(OutputError, match=r"1 scan lies in the folder, but jobs\.sqlite is an older copy"):
            Service.open(ServiceConfig(tmp_path))
    assert accepted.exists()


@pytest.mark.parametrize("method", ["add", "remove"])
def test_a_server_that_is_killed_beside_the_database_starts_again_though_its_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A scan that is not recorded yet, or no more, is none that an older copy of the database does not know."""
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    service = Service.open(ServiceConfig(tmp_path))
    with monkeypatch.context() as patch:

        class KilledError(BaseException):
            pass

        def killed(jobs: JobStore, *arguments: Any) -> Any:
            if method == "remove":
                remove(jobs, *arguments)
            raise KilledError

        remove = JobStore.remove
        service.storage.create_incoming("a" * 32).scan.touch()
        if method == "remove":
            service.enqueue("a" * 32, Upload("a scan", 0))
        patch.setattr(JobStore, method, killed)
        adding = partial(service.enqueue, "a" * 32, Upload("a scan", 0))
        with pytest.raises(KilledError):
            (adding if method == "add" else partial(service.dispatcher.remove, "a" * 32))()
        patch.setattr("groundglass.apps.service.jobs._now", lambda: "2020-01-01T00:00:00+00:00")
        service.jobs.pass_time(0)
    assert service.storage.scan_ids() == ["a" * 32]
    service.close()
    service = Service.open(ServiceConfig(tmp_path))
    assert not service.storage.scan_ids()
    service.close()


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_server_that_is_killed_while_it_removes_files_starts_again_though_its_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    class KilledError(BaseException):
        pass

    remove, kills = shutil.rmtree, [KilledError]

    def remove_one_file(folder: Path, **options: Any) -> None:
        if kills and folder.is_dir():
            (folder / "scan").unlink()
            raise kills.pop()
        remove(folder, **options)

    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    service = Service.open(ServiceConfig(tmp_path))
    service.storage.create_incoming("a" * 32).scan.touch()
    monkeypatch.setattr(shutil, "rmtree", remove_one_file)
    if is_recorded:
        service.enqueue("a" * 32, Upload("a scan", 0))
        with pytest.raises(KilledError):
            service.dispatcher.remove("a" * 32)
    else:
        service.storage.accept("a" * 32)
    with monkeypatch.context() as patch:
        patch.setattr("groundglass.apps.service.jobs._now", lambda: "2020-01-01T00:00:00+00:00")
        service.jobs.pass_time(0)
    service.close()
    if not is_recorded:
        with pytest.raises(KilledError):
            Service.open(ServiceConfig(tmp_path))
    service = Service.open(ServiceConfig(tmp_path))
    assert not service.storage.scan_ids()
    assert not list((tmp_path / "incoming").iterdir())
    service.close()


def test_a_job_whose_folder_cannot_be_dated_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may belong to another user after a backup was restored."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    service = Service.open(ServiceConfig(tmp_path))
    service.storage.create_incoming("a" * 32).scan.touch()
    service.enqueue("a" * 32, Upload("a scan", 0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refuse)
        assert service.dispatcher.remove("a" * 32)
    assert not service.storage.scan_ids()
    service.close()


def test_a_name_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.write_name("Case 8")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OutputError):
            folder.write_name("Case 9")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.read_name() == "Case 8"
    JobFolder(tmp_path / "deleted").write_name("Case 9")
    assert not (tmp_path / "deleted").exists()


def test_a_scan_that_is_recorded_is_dated_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    service, before_s = Service.open(ServiceConfig(tmp_path)), time.time() - 60
    service.storage.create_incoming("a" * 32).scan.touch()
    service.enqueue("a" * 32, Upload("a scan", 0))
    assert service.storage.scan_times()["a" * 32] > before_s
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "remove", fail)
        with pytest.raises(sqlite3.OperationalError):
            service.dispatcher.remove("a" * 32)
    assert service.storage.scan_times()["a" * 32] > before_s
    service.close()


@pytest.mark.parametrize(
    ("code", "hint"), [(sqlite3.SQLITE_BUSY, "end the other program"), (sqlite3.SQLITE_FULL, "make room")]
)
@pytest.mark.parametrize("method", ["adopt", "requeue_interrupted", "ids"])
def test_a_server_that_cannot_start_for_its_database_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, code: int, hint: str
) -> None:
    error = sqlite3.OperationalError("database is locked or full")
    error.sqlite_errorcode = code

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(JobStore, method, fail)
    with pytest.raises(OutputError, match=rf"jobs\.sqlite cannot be used: .*; {hint}"):
        Service.open(ServiceConfig(tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    Service.open(ServiceConfig(tmp_path)).close()


@pytest.mark.parametrize("lost", ["removed", "replaced"])
def test_no_scan_is_accepted_into_a_database_that_was_removed_or_replaced_meanwhile(
    service: Service, client: Client, tmp_path: Path, lost: str
) -> None:
    database = tmp_path / "jobs.sqlite"
    if lost == "replaced":
        shutil.copy(database, tmp_path / "copy")
        (tmp_path / "copy").replace(database)
    else:
        database.unlink()
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 503
    assert "jobs.sqlite was removed or replaced while the server was running" in answer.json()["detail"]
    assert not list((tmp_path / "scans").iterdir())
    with pytest.raises(sqlite3.OperationalError, match="was removed or replaced"):  # the queue pauses, and says why
        service.jobs.start_next()


def test_a_database_of_a_newer_version_is_refused_and_kept_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        database.executescript("create table jobs (id text); pragma user_version = 2")
    before = (tmp_path / "jobs.sqlite").read_bytes()
    with pytest.raises(OutputError, match=r"jobs\.sqlite is of a newer version of groundglass: use that one"):
        Service.open(ServiceConfig(tmp_path))
    assert (tmp_path / "jobs.sqlite").read_bytes() == before


def test_the_log_says_where_an_error_was_raised_and_no_names(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("Meyer^Anna") from KeyError("Anna")

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(NamelessFormatter("%(message)s"))
    monkeypatch.setattr(service.jobs, "all", fail)
    try:
        client.get("/api/jobs")
    except ValueError as error:  # as uvicorn logs it
        handler.handle(
            logging.makeLogRecord(
                {"msg": "failed\nfuture: Anna", "exc_info": (type(error), error, error.__traceback__)}
            )
        )
    assert stream.getvalue().startswith("failed\nValueError in test_service.py:")
    assert " from jobs.py:" in stream.getvalue()
    assert "Anna" not in stream.getvalue()


def test_what_an_interrupted_server_left_is_removed_also_if_all_jobs_were_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    Service.open(ServiceConfig(tmp_path)).close()
    (tmp_path / "scans" / ("a" * 32)).mkdir()  # of an upload that was moved there but not recorded
    (tmp_path / "scans" / ".DS_Store").touch()  # of a file manager: no scan
    os.utime(tmp_path / "scans" / ".DS_Store", (2**32, 2**32))
    service = Service.open(ServiceConfig(tmp_path))
    assert not service.storage.scan_ids()
    assert not (tmp_path / "scans" / ("a" * 32)).exists()
    service.close()


@pytest.mark.parametrize("folder", ["incoming", "scans"])
def test_what_others_keep_in_folders_of_these_names_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """As where the scanner of a hospital sends its images to `incoming`, and the server is started above it."""
    monkeypatch.setattr(Dispatcher, "start", lambda _: None)
    images = tmp_path / folder / "study 1" / "1.dcm"
    images.parent.mkdir(parents=True)
    images.write_text("mine")
    for _ in range(2):
        service = Service.open(ServiceConfig(tmp_path))
        assert not service.storage.scan_ids()
        service.close()
    assert images.read_text() == "mine"


def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    for name in ("", "scans", "incoming"):
        folder = tmp_path / f"store-{name}"
        ServiceStorage(folder).close()
        (folder / name).chmod(0o777)
        with pytest.raises(OutputError, match="chmod 700"):
            ServiceStorage(folder)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; name another folder with -o"):
        ServiceStorage(tmp_path / "file")


@pytest.mark.slow
def test_an_error_in_writing_results_does_not_name_the_folder(tmp_path: Path, scan_file: Path) -> None:
    shutil.copyfile(scan_file, tmp_path / "scan")
    (tmp_path / "results").touch()
    process = ServiceWorkerFactory(None, EngineConfig(), max_slices=100)()
    with pytest.raises(OutputError, match=r"^results cannot be written: ") as raised:
        process(tmp_path)
    assert str(tmp_path) not in str(raised.value)
    assert not (tmp_path / "view").exists()


def test_an_error_of_the_machine_is_not_blamed_on_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "/of/a/patient")

    monkeypatch.setattr("groundglass.apps.service.processing.read_uploaded_scan", fail)
    with pytest.raises(OutputError, match=r"^the scan cannot be processed: Too many open files$"):
        process_job(tmp_path, cast(Segmenter, None), 100)
