"""Fixtures: a real Orthanc, and an HTTP server with scripted answers for what an Orthanc never answers."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from helpers.fake_watch import FakeWatchWorkerFactory, StartWatcher, WatcherProcess
from helpers.orthanc import PASSWORD, PLUGIN, PROGRAM, USER, OrthancServer


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., OrthancServer]]:
    """Start an Orthanc with these settings; it is stopped after the test."""
    for file, package in ((PROGRAM, "orthanc"), (PLUGIN, "orthanc-dicomweb"), ("/usr/bin/storescu", "dcmtk")):
        if not Path(file).exists():
            pytest.skip(f"{file} is missing (Debian: {package}): no PACS to test the watcher against")
    started: list[OrthancServer] = []

    def start(**settings: Any) -> OrthancServer:
        started.append(OrthancServer(tmp_path / f"orthanc-{len(started)}", **settings))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def orthanc(start_orthanc: Callable[..., OrthancServer]) -> OrthancServer:
    return start_orthanc()


@pytest.fixture
def run_server() -> Iterator[Callable[[BaseServer], None]]:
    """Let a server answer in a thread; it is stopped after the test."""
    servers: list[BaseServer] = []

    def run(server: BaseServer) -> None:
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(run_server: Callable[[BaseServer], None]) -> Callable[..., str]:
    """Serve what a function of path and query returns: status, and JSON or bytes; return the URL."""

    def start(answer: Callable[[str, dict[str, str]], tuple[int, Any]], certificate: Path | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                status, content = answer(parts.path, query)
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that does not trust the certificate closes the connection

        server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        run_server(server)
        scheme, name = ("https", "localhost") if certificate else ("http", "127.0.0.1")
        return f"{scheme}://{name}:{server.server_address[1]}"

    return start


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDGLASS_PACS_USER", USER)
    monkeypatch.setenv("GROUNDGLASS_PACS_PASSWORD", PASSWORD)


@pytest.fixture
def start_watcher(orthanc: OrthancServer, tmp_path: Path) -> Iterator[StartWatcher]:
    """Start a watcher in a process of its own; it is killed after the test."""
    watchers: list[WatcherProcess] = []

    def start(factory: FakeWatchWorkerFactory) -> WatcherProcess:
        watchers.append(WatcherProcess(orthanc.url, tmp_path / "watch", factory.scripts))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.kill()
