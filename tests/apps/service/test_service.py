"""The service in this process, where a real one cannot be brought into the state: a full disk, a queue that stands."""

import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.dispatch import Dispatcher
from groundglass.apps.service.jobs import TRIES, Jobs, JobStatus
from groundglass.apps.service.metrics import Metrics
from groundglass.apps.service.service import Service
from groundglass.apps.service.storage import ServiceStorage
from groundglass.errors import OutputError


class Standing:
    """A dispatcher that does nothing."""

    is_alive = True

    def wake(self) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    place, jobs = ServiceStorage(tmp_path), Jobs(tmp_path / "jobs.sqlite", timedelta(hours=1))
    config = ServiceConfig(tmp_path, queue=3)
    yield Service(config, place, jobs, Metrics(), cast(Dispatcher, Standing()))
    jobs.close()
    place.close()


class Client:
    """Asks the application without a network."""

    def __init__(self, service: Service) -> None:
        self._app = build(service)

    def get(self, path: str) -> httpx.Response:
        return self._ask("GET", path)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self._ask("POST", path, **more)

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **more)

        return anyio.run(ask)


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service)


FILE = {"files": ("ct.nii", b"something")}


def test_a_full_disk_is_507_and_leaves_nothing(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServiceStorage, "free_bytes", lambda _: 1 << 20)
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["detail"]
    monkeypatch.undo()

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("groundglass.apps.service.upload._put_in_order", no_room)
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["detail"]
    assert service.free == 3
    assert not list((service.place.folder / "incoming").iterdir())
    assert client.get("/api/jobs").json() == []


def test_a_sender_that_stalls_loses_its_place(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.apps.service.upload.STALL_S", 0.1)
    monkeypatch.setattr("groundglass.apps.service.service.DRAIN_S", 0.1)

    async def stalling() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'
        await anyio.sleep(30)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/scans", content=stalling(), headers=headers)
    assert (answer.status_code, answer.json()) == (408, {"detail": "nothing came for 0.1 s: send it again"})
    assert service.free == 3
    assert not list((service.place.folder / "incoming").iterdir())


def test_the_queue_is_bounded_and_says_when_to_come_again(client: Client) -> None:
    accepted = [client.post("/api/scans", files=FILE).json() for _ in range(3)]
    assert [job["position"] for job in accepted] == [1, 2, 3]
    answer = client.post("/api/scans", files=FILE)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "30"
    assert client.get("/readyz").status_code == 503
    assert client.get("/api/limits").json()["free"] == 0


def test_a_queue_that_has_stopped_is_not_ready(
    service: Service, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").text == "ok"
    monkeypatch.setattr(Standing, "is_alive", False)
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, "the queue has stopped")


def test_what_ended_the_server_several_times_is_given_up(service: Service) -> None:
    jobs = service.jobs
    jobs.add("a" * 32, "bad")
    jobs.add("b" * 32, "good")
    for _ in range(TRIES - 1):
        taken = jobs.take()
        assert taken is not None
        assert taken.label == "bad"
        jobs.recover()
        assert jobs.get("a" * 32) == taken.model_copy(update={"status": JobStatus.QUEUED, "position": 1})
    assert jobs.take() is not None
    jobs.recover()
    given_up = jobs.get("a" * 32)
    assert given_up is not None
    assert given_up.status is JobStatus.FAILED
    assert given_up.reason == f"the server ended {TRIES} times during this scan"
    following = jobs.take()
    assert following is not None
    assert following.label == "good"


def test_no_job_is_taken_twice(service: Service) -> None:
    for number in range(40):
        service.jobs.add(f"{number:032x}", "a scan")
    taken: list[str] = []

    def take() -> None:
        while (job := service.jobs.take()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"{number:032x}" for number in range(40)]


def test_what_scans_were_called_is_for_the_owner_in_anyones_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    place = ServiceStorage(tmp_path)
    jobs = Jobs(place.database, timedelta(hours=1))
    jobs.add("a" * 32, "a name")
    assert {path.name for path in tmp_path.glob("jobs.sqlite*")} == {
        f"jobs.sqlite{end}" for end in ("", "-shm", "-wal")
    }
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077] == []
    jobs.close()
    place.close()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: .*; name another with -o"):
        ServiceStorage(tmp_path / "file")
