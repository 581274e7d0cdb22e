"""Clients that send too much, too slowly or only in part, before sign-in and after it."""

import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from groundglass.apps.service.connections import HEAD_S, UNREAD_S, LimitedProtocol, Throttle, connection_limit
from groundglass.apps.service.guard import MAX_BODY_BYTES
from helpers.scripted_worker import wait_until
from helpers.server import TOKEN, Server

pytestmark = pytest.mark.thorough

DESCRIPTORS = 256
REQUEST = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY_TO_COME = (
    f"{REQUEST.format(method='POST', path='/api/session')}Content-Type: text/json\r\nContent-Length: 9\r\n\r\n"
)
CHUNK = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"


@pytest.fixture(scope="module")
def server(grey_band_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token, and few descriptors."""
    folder = tmp_path_factory.mktemp("limited")
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    options = ("--token-file", str(token), "--model", str(grey_band_model))
    started = Server(folder / "store", options, folder / "log", DESCRIPTORS)
    started.start()
    yield started
    started.stop()


def status_of(connection: socket.socket) -> int:
    """Return the status of an answer; 0 if the connection was closed without one."""
    with suppress(ConnectionError):
        head = connection.recv(65536).split()
        return int(head[1]) if head else 0
    return 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in ("/api/session", "/", "/healthz", "/api/scans", "/api/jobs/0/corrections")),
        *(("GET", path) for path in ("/", "/healthz", "/readyz", "/api/session", "/api/jobs", "/metrics")),
        ("DELETE", "/api/session"),
        ("PUT", "/nothing"),
    ],
)
def test_a_body_without_end_is_not_kept_in_memory_before_sign_in(server: Server, method: str, path: str) -> None:
    before = server.memory_mib()
    with server.connect() as connection:
        head = REQUEST.format(method=method, path=path)
        connection.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with suppress(ConnectionError, TimeoutError):
            for _ in range(60):
                connection.sendall(CHUNK)
        assert server.memory_mib() < before + 40


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/api/session", "/api/limits"])
def test_a_body_larger_than_some_kib_is_413_unless_it_is_an_upload(server: Server, path: str, announced: bool) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)
    with server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = client.post(path, content=body if announced else iter([body]))
        assert answer.status_code == (413 if announced or path == "/api/session" else 405)
        assert client.post("/api/session", json={"token": TOKEN + " " * 1000}).status_code == 401


@pytest.mark.parametrize("path", ["/api/jobs/corrections", "/api/jobs/x/corrections", f"/api/jobs/{'0' * 32}"])
def test_a_path_that_looks_like_that_of_an_upload_is_none(server: Server, path: str) -> None:
    with server.client(headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}) as client:
        assert client.patch(path, content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    ["", "G", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", REQUEST.format(method="POST", path="/api/session") + "X: "],
    ids=["nothing", "one byte", "no end of the head", "half a header"],
)
def test_a_head_that_does_not_end_is_closed(server: Server, sent: str) -> None:
    with server.connect() as connection:
        connection.sendall(sent.encode())
        begun = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - begun < HEAD_S + 5


@pytest.mark.slow
def test_the_deadline_holds_for_the_second_request_of_a_connection_too(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(f"{REQUEST.format(method='GET', path='/healthz')}\r\n".encode())
        answer = b""
        while not answer.endswith(b"ok"):
            answer += connection.recv(65536)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        assert connection.recv(65536) == b""
        assert time.monotonic() - begun < HEAD_S + 5


@pytest.mark.slow
def test_a_body_that_dribbles_is_given_up(server: Server) -> None:
    head = f"{REQUEST.format(method='POST', path='/api/session')}Content-Type: application/json\r\n"
    with server.connect() as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
        connection.settimeout(0.5)
        begun = time.monotonic()
        status = None
        while status is None and time.monotonic() - begun < 30:
            connection.sendall(b" ")
            with suppress(TimeoutError):
                status = status_of(connection)
        assert status == 408


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"], ids=["nothing", "half a head"])
def test_others_are_answered_while_somebody_holds_as_many_connections_as_there_are(server: Server, sent: str) -> None:
    log_bytes = server.log.stat().st_size
    with ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            held = stack.enter_context(server.connect())
            with suppress(ConnectionError):
                held.sendall(sent.encode())
        for _ in range(5):
            with server.client() as client:
                assert client.get("/healthz").text == "ok"
                assert client.get("/readyz").text == "ok"
    assert server.log.stat().st_size - log_bytes < 10_000


@pytest.mark.parametrize(
    "kind", ["bodies that do not come", pytest.param("answers that nobody takes", marks=pytest.mark.slow)]
)
def test_others_are_answered_while_every_connection_waits_for_a_client_without_token(server: Server, kind: str) -> None:
    with server.client() as client:
        script = client.get("/").text.partition('src="')[2].partition('"')[0]
    takes_nothing = f"{REQUEST.format(method='GET', path=script)}\r\n" * 8
    with ExitStack() as stack:
        for _ in range(DESCRIPTORS):
            held = stack.enter_context(server.connect())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with suppress(ConnectionError):
                held.sendall((BODY_TO_COME if kind.startswith("bodies") else takes_nothing).encode())
        for _ in range(5):
            with server.client() as client:
                assert client.get("/healthz").text == "ok"


@pytest.mark.slow
def test_a_client_that_takes_no_answer_is_closed(server: Server) -> None:
    open_before = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    with server.client() as client:
        script = client.get("/").text.partition('src="')[2].partition('"')[0]
    with ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            held = stack.enter_context(server.connect())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with suppress(ConnectionError):
                held.sendall(f"{REQUEST.format(method='GET', path=script)}\r\n".encode())
        with server.client() as client:
            assert client.get("/healthz").text == "ok"
    wait_until(lambda: len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) <= open_before + 8, 20)


class Deadlines:
    """Stands for an event loop: remembers after how many seconds the last action is due; None if it was cancelled."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def call_later(self, seconds: float, action: Callable[..., None], *_: object) -> Mock:
        is_of_uvicorn = "keep_alive" in action.__name__
        if not is_of_uvicorn:
            self.seconds = seconds
        return Mock(cancel=lambda: None if is_of_uvicorn else setattr(self, "seconds", None))

    def create_task(self, coroutine: Coroutine[Any, Any, None], **_: object) -> Mock:
        coroutine.close()
        return Mock()


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines()


@pytest.fixture
def protocol(deadlines: Deadlines) -> LimitedProtocol:
    """A connection on which the head of a request has arrived, but nothing of its body."""
    made = LimitedProtocol(uvicorn.Config(Mock(), log_config=None), ServerState(), {}, cast(Any, deadlines))
    made.connection_made(Mock(is_closing=lambda: False))
    assert deadlines.seconds == HEAD_S
    made.data_received(BODY_TO_COME.encode())
    assert deadlines.seconds is None
    return made


def test_a_client_that_sends_more_instead_of_taking_its_answer_is_closed(
    protocol: LimitedProtocol, deadlines: Deadlines
) -> None:
    protocol.pause_writing()
    protocol.data_received(b"a body")
    assert deadlines.seconds == UNREAD_S
    protocol.resume_writing()
    assert deadlines.seconds is None


def test_a_client_that_takes_its_answer_late_must_send_its_next_head_in_time(
    protocol: LimitedProtocol, deadlines: Deadlines
) -> None:
    protocol.pause_writing()
    protocol.cycle.response_complete = True
    protocol.on_response_complete()
    assert deadlines.seconds == UNREAD_S
    protocol.resume_writing()
    assert deadlines.seconds == HEAD_S


def test_the_limit_leaves_descriptors_for_the_files_that_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptors, expected in ((64, 8), (256, 96), (1024, 480), (1 << 20, 512)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=descriptors: (soft, soft))
        assert connection_limit() == expected


def test_the_same_message_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    log = logging.getLogger("groundglass.test_throttle")
    log.addFilter(Throttle())
    for number in range(100):
        log.warning("socket.accept() out of system resource")
        log.warning("connection %d failed", number)
    assert len(caplog.records) == 2


def test_a_client_that_leaves_frees_its_slot_of_the_queue(server: Server) -> None:
    head = (
        f"{REQUEST.format(method='POST', path='/api/scans')}Authorization: Bearer {TOKEN}\r\nContent-Length: 9999\r\n"
    )
    with server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        free = client.get("/api/limits").json()["free"]
        with server.connect() as connection:
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            wait_until(lambda: client.get("/api/limits").json()["free"] == free - 1)
        wait_until(lambda: client.get("/api/limits").json()["free"] == free)


def test_what_is_no_http_is_400(server: Server) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /\r\nX\r\n\r\n", b"\0\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(sent)
            assert status_of(connection) == 400
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/healthz").text == "ok"
