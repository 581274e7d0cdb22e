"""Access control: host name, origin, token, security headers; and configurations that a server refuses."""

import hmac
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.datastructures import Headers

from groundglass.apps.service.config import ServiceConfig, is_loopback, read_token
from groundglass.apps.service.sessions import COOKIE, WRONG_TOKEN_S, Sessions, own_cookie_only
from groundglass.errors import ConfigError
from helpers.command import run_command
from helpers.server import TOKEN, Server

pytestmark = pytest.mark.thorough

Start = Callable[..., Server]
UNKNOWN_ID = "0" * 32


def token_file(folder: Path, text: str = TOKEN) -> Path:
    path = folder / "token"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def token_server(grey_band_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token and a further host name."""
    folder = tmp_path_factory.mktemp("token")
    options = ("--token-file", str(token_file(folder)), "--name", "ct.example", "--model", str(grey_band_model))
    server = Server(folder / "store", options, folder / "log")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80", "ct.example"),
        *("localhost:evil", "localhost:80@evil.example", "localhost:80:80", "[::1]evil", "[::1]:80]"),
    ],
)
def test_requests_for_another_host_name_are_refused(server: Server, host: str) -> None:
    with server.client() as client:
        for path in ("/", "/api/jobs", "/healthz", "/api/session"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == 421
            assert "--name" in answer.json()["detail"]


def test_a_request_that_states_its_length_in_two_ways_is_refused_and_what_follows_is_not_read(server: Server) -> None:
    """A proxy that goes by the other one would take what follows for a part of this request."""
    address = urlsplit(server.url)
    host = f"Host: {address.netloc}\r\n"
    lengths = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        connection.sendall(f"POST /api/session HTTP/1.1\r\n{host}{lengths}GET /healthz HTTP/1.1\r\n{host}\r\n".encode())
        answers = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answers.startswith(b"HTTP/1.1 400 ")
    assert answers.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("host", ["localhost", "localhost:8642", "127.0.0.1", "[::1]:8642", "LOCALHOST"])
def test_the_loopback_names_are_accepted(server: Server, host: str) -> None:
    with server.client() as client:
        assert client.get("/api/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:99999999999"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_from_another_site_are_refused(server: Server, headers: dict[str, str], scan_file: Path) -> None:
    with server.client() as client:
        files = {"files": ("ct.nii.gz", scan_file.read_bytes())}
        assert client.post("/api/scans", files=files, headers=headers).status_code == 403
        assert client.delete(f"/api/jobs/{UNKNOWN_ID}", headers=headers).status_code == 403
        assert client.get("/api/jobs", headers=headers).status_code == 403
        assert client.get("/api/jobs").json() == []


def test_requests_from_the_own_page_are_accepted(server: Server) -> None:
    with server.client() as client:
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert client.delete(f"/api/jobs/{UNKNOWN_ID}", headers=own).status_code == 404


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/api/jobs", "/api/limits"])
def test_head_is_answered_as_get_without_the_body(server: Server, path: str) -> None:
    """Monitors and load balancers ask by HEAD whether the server is well."""
    with server.client() as client:
        asked, got = client.head(path), client.get(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked.headers["content-length"] == str(len(got.content))


def test_no_response_has_a_cors_header(server: Server) -> None:
    with server.client() as client:
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        answers = [client.options("/api/scans", headers=preflight), client.get("/api/jobs"), client.get("/healthz")]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_response_has_the_security_headers(server: Server) -> None:
    with server.client() as client:
        for path in ("/", "/api/jobs", "/healthz", f"/api/jobs/{UNKNOWN_ID}", "/nothing"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers


def routes(server: Server) -> list[tuple[str, str]]:
    with server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        paths: dict[str, Any] = client.get("/api/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_but_the_public_ones_needs_the_token(token_server: Server) -> None:
    public = {"/healthz", "/readyz", "/api/session"}
    known = routes(token_server)
    assert len(known) > 12
    for method, path in [*known, ("GET", "/api/openapi.json"), ("GET", "/metrics")]:
        url = path.replace("{id}", UNKNOWN_ID).replace("{name}", "report.html")
        with token_server.client() as client:
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Basic {TOKEN}"},
                {"Authorization": "Bearer"},
                {"Cookie": f"{COOKIE}={TOKEN}"},
                {"Cookie": f"{COOKIE}="},
                {"Cookie": "a=b; [broken"},
            ):
                answer = client.request(method, url, headers=headers)
                assert (answer.status_code == 401) == (path not in public), (method, path, headers)


def test_with_the_token_a_scan_is_accepted_and_its_results_are_readable(token_server: Server, scan_file: Path) -> None:
    with token_server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        sent = client.post("/api/scans", files={"files": ("ct.nii.gz", scan_file.read_bytes())})
        assert sent.status_code == 202
        url = f"/api/jobs/{sent.json()['id']}"
        with client.stream("GET", f"{url}/events") as stream:
            last = [line for line in stream.iter_lines() if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["status"] == "done"
        assert client.get(f"{url}/files/report.html").status_code == 200
    with token_server.client() as other:
        for path in ("", "/findings", "/events", "/files/report.html", "/view/scan.nii"):
            assert other.get(f"{url}{path}").status_code == 401


def test_the_cookie_replaces_the_token_and_does_not_reveal_it(token_server: Server) -> None:
    with token_server.client() as client:
        assert client.get("/api/session").json() == {"needs_token": True, "signed_in": False}
        assert client.post("/api/session", json={"token": "wrong"}).status_code == 401
        answer = client.post("/api/session", json={"token": TOKEN})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert TOKEN not in cookie
        assert client.get("/api/session").json() == {"needs_token": True, "signed_in": True}
        assert client.get("/api/jobs").status_code == 200
        assert client.get("/api/jobs", headers={"Origin": "http://evil.example"}).status_code == 403
        copied = {"Cookie": cookie.partition(";")[0]}
        assert client.get("/api/jobs", headers=copied).status_code == 200
        assert client.delete("/api/session").status_code == 204
        assert client.get("/api/jobs").status_code == 401
    with token_server.client() as other:
        assert other.get("/api/jobs", headers=copied).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("door", ["session", "bearer"])
def test_wrong_tokens_are_answered_slowly_and_right_ones_at_once(token_server: Server, door: str) -> None:
    def guess(number: int) -> int:
        with token_server.client() as client:
            if door == "session":
                return client.post("/api/session", json={"token": f"wrong-{number}"}).status_code
            return client.get("/api/jobs", headers={"Authorization": f"Bearer wrong-{number}"}).status_code

    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(guess, range(4))) == [401] * 4
    assert time.monotonic() - begun > 4 * WRONG_TOKEN_S
    with (
        token_server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        guesses = [pool.submit(guess, number) for number in range(40)]
        assert client.get("/api/jobs").status_code == 200
        assert not all(guessed.done() for guessed in guesses)
        assert {guessed.result() for guessed in guesses} == {401, 429}


@pytest.mark.parametrize("piece", ["\\\\", '\\"', "\\1"])
@pytest.mark.parametrize("name", [COOKIE, "another"])
def test_a_long_cookie_holds_up_nobody(token_server: Server, name: str, piece: str) -> None:
    with token_server.client() as client:
        cookie = f'{name}="{piece * 30_000}"'
        assert client.get("/api/session", headers={"Cookie": cookie}).json()["signed_in"] is False
        assert client.post("/api/session", json={"token": TOKEN}).status_code == 204
        own = f"{COOKIE}={client.cookies[COOKIE]}"
        for both in (f"{cookie}; {own}", f"{own};{cookie}"):
            assert client.get("/api/session", headers={"Cookie": both}).json()["signed_in"] is True


@pytest.mark.parametrize("body", [b'{"token": NaN}', b'{"token": "a", "\\ud800": 1}', b'{"token": [Infinity]}', b"1"])
def test_a_body_that_json_cannot_write_is_422(token_server: Server, body: bytes) -> None:
    with token_server.client() as client:
        answer = client.post("/api/session", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "a" not in [fault.get("input") for fault in answer.json()["detail"]]


@pytest.mark.parametrize("path", ["/", "/assets/x", "/api/session", "/api/jobs"])
def test_a_websocket_is_not_opened(token_server: Server, path: str) -> None:
    headers = {
        **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with token_server.client() as client:
        plain, upgraded = client.get(path), client.get(path, headers=headers)
    assert upgraded.status_code == plain.status_code
    assert upgraded.content == plain.content


def test_a_server_without_a_token_says_at_its_start_who_can_use_it(server: Server, token_server: Server) -> None:
    assert "there is no token: every user of this machine can read and delete all scans" in server.log.read_text()
    assert "no token" not in token_server.log.read_text()


def test_configured_host_names_are_accepted(token_server: Server) -> None:
    with token_server.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.get("/api/jobs", headers={"Host": "ct.example"}).status_code == 200


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    sessions = Sessions(TOKEN)
    assert sessions.is_signed_in(Headers({"Authorization": f"Bearer {TOKEN}"}))
    assert not sessions.is_signed_in(Headers({"Authorization": "Bearer x"}))
    assert [a for a, _ in compared] == [TOKEN.encode(), b"x"]


def test_a_cookie_of_the_same_name_of_another_program_keeps_nobody_out() -> None:
    sessions = Sessions(TOKEN)
    foreign, own = f"{COOKIE}={'A' * 43}", f"{COOKIE}={sessions.start()}"
    for cookie in (f"{foreign}; {own}", f"{own}; {foreign}"):
        kept = Headers(raw=own_cookie_only([(b"cookie", cookie.encode())]))
        assert sessions.is_signed_in(kept)
    sessions.end(kept)
    assert not sessions.is_signed_in(Headers({"Cookie": own}))


def test_a_session_ends_with_signing_out_with_time_and_with_too_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(TOKEN)
    first, second = (Headers({"Cookie": f"{COOKIE}={sessions.start()}"}) for _ in range(2))
    assert sessions.is_signed_in(first)
    assert sessions.is_signed_in(second)
    sessions.end(first)
    assert not sessions.is_signed_in(first)
    assert sessions.is_signed_in(second)
    monkeypatch.setattr("groundglass.apps.service.sessions.MAX_SESSIONS", 1)
    third = Headers({"Cookie": f"{COOKIE}={sessions.start()}"})
    assert not sessions.is_signed_in(second)
    assert sessions.is_signed_in(third)
    monkeypatch.setattr("groundglass.apps.service.sessions.SESSION_S", -1.0)
    assert not sessions.is_signed_in(Headers({"Cookie": f"{COOKIE}={sessions.start()}"}))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "there is no token"),
        (["--host", "192.0.2.1"], "there is no token"),
        (["--token-file", "SHORT"], "has 5 characters, expected at least 16"),
        (["--token-file", "OPEN"], "chmod 600"),
        (["--token-file", "LINES"], "expected one token alone on a line"),
        (["--token-file", "MISSING"], "cannot be read"),
        (["--port", "TAKEN"], "name another with --port"),
        (["--keep", "1e9"], "results cannot be kept for 1e+09 h"),
        (["--keep", "nan"], "results cannot be kept for nan h"),
        (["--keep", "0.009"], "results cannot be kept for 0.009 h"),
        (["--model", "MISSING"], "MISSING"),
    ],
)
def test_an_unsafe_or_impossible_configuration_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    token_file(tmp_path, "short").rename(tmp_path / "SHORT")
    token_file(tmp_path, f"{TOKEN}\n{TOKEN}").rename(tmp_path / "LINES")
    token_file(tmp_path).rename(tmp_path / "OPEN")
    (tmp_path / "OPEN").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = (argument.replace("TAKEN", port) for argument in arguments)
        code, out, err = run_command(monkeypatch, capsys, "serve", "-o", "store", *words)
    assert code in (1, 2)
    assert reason in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert TOKEN not in err


def test_a_folder_can_be_used_by_one_server_only(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_command(monkeypatch, capsys, "serve", "-o", server.folder, "--port", "0")
    assert code == 1
    assert re.match("groundglass: another server uses .*: stop it, or name another folder with -o$", err)


def test_loopback_addresses_are_recognised() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.1", "localhost.example", ""]))


def test_the_token_is_not_in_the_repr_of_the_configuration(tmp_path: Path) -> None:
    assert read_token(token_file(tmp_path)) == TOKEN
    config = ServiceConfig(tmp_path, host="0.0.0.0", token=TOKEN)
    assert TOKEN not in repr(config)
    with pytest.raises(ConfigError, match="there is no token"):
        ServiceConfig(tmp_path, host="0.0.0.0")
