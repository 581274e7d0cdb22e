"""A real Orthanc for the tests that need one, and a made-up server for what Orthanc never says."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from helpers.fake_watch import Obedient, Running
from helpers.orthanc import PASSWORD, PLUGIN, PROGRAM, USER, OrthancServer


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., OrthancServer]]:
    """Starts Orthanc with other settings than usual; all of them are stopped in the end."""
    for needed, package in ((PROGRAM, "orthanc"), (PLUGIN, "orthanc-dicomweb"), ("/usr/bin/storescu", "dcmtk")):
        if not Path(needed).exists():
            pytest.skip(f"{needed} is not there (Debian: {package}): no PACS to test the watcher against")
    started: list[OrthancServer] = []

    def start(**settings: Any) -> OrthancServer:
        started.append(OrthancServer(tmp_path / f"orthanc-{len(started)}", **settings))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def orthanc(start_orthanc: Callable[..., OrthancServer]) -> OrthancServer:
    return start_orthanc()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves what a function of path and query answers, status and JSON (or bytes); with TLS if need be; the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, dict[str, str]], tuple[int, Any]], certificate: Path | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                status, said = answer(parts.path, {key: value[0] for key, value in parse_qs(parts.query).items()})
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust it hangs up

        servers.append(Server(("127.0.0.1", 0), Handler))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            servers[-1].socket = context.wrap_socket(servers[-1].socket, server_side=True)
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        scheme, name = ("https", "localhost") if certificate else ("http", "127.0.0.1")
        return f"{scheme}://{name}:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDGLASS_PACS_USER", USER)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)


@pytest.fixture
def started(orthanc: OrthancServer, tmp_path: Path) -> Iterator[Callable[[Obedient], Running]]:
    """Starts watchers in processes of their own; all of them end with the test."""
    running: list[Running] = []

    def start(opener: Obedient) -> Running:
        running.append(Running(orthanc.url, tmp_path / "watch", opener.orders))
        return running[-1]

    yield start
    for each in running:
        each.end()
