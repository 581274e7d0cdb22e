"""A real server in a process of its own, started by the command line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

TOKEN = "a-token-that-is-long-enough"


@dataclass
class Server:
    """A `groundglass serve` on a free port.

    Attributes:
        folder: Folder of the server.
        arguments: Further arguments of the command line.
        log: File that receives the output of the server.
        descriptors: Largest number of files and connections that its process may have open; None for the usual one.
        process: The process of the server.
        url: Address of the server, once it has started.
    """

    folder: Path
    arguments: tuple[str, ...]
    log: Path
    descriptors: int | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    url: str = ""

    def start(self, port: int = 0) -> None:
        """Start the server, and wait until it answers."""
        code = "from groundglass.cli import main; main()"
        if self.descriptors is not None:
            limits = (self.descriptors, self.descriptors)
            code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, {limits}); {code}"
        options = ["-o", str(self.folder), "--port", str(port), *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code, "serve", *options], stdout=log, stderr=log)
        log_start = self.log.stat().st_size
        end = time.monotonic() + 300
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            found = re.findall(r"http://127\.0\.0\.1:\d+", self.log.read_text()[log_start:])
            if found:
                self.url = found[-1]
                break
            time.sleep(0.05)
        self.wait_until(lambda client: client.get("/healthz").status_code == 200)

    def client(self, **options: Any) -> httpx.Client:
        # There is no TLS here: loading the certificates would take a client longer than most requests.
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False, **options)

    def wait_until(self, condition: Callable[[httpx.Client], Any], limit_s: float = 300) -> Any:
        """Poll a condition until it holds, and return its value."""
        end = time.monotonic() + limit_s
        with self.client() as client:
            while time.monotonic() < end:
                try:
                    if value := condition(client):
                        return value
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(
            f"the condition did not hold within {limit_s} s; the server's log:\n{self.log.read_text()}"
        )

    def connect(self) -> socket.socket:
        """Open a connection on which nothing is sent."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def memory_mib(self) -> float:
        """Return the memory that the server's process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def post(self, *files: Path | tuple[str, bytes]) -> httpx.Response:
        """Upload files, given as paths or as names with their content."""
        parts = [
            ("files", (file.name, file.read_bytes()) if isinstance(file, Path) else (file[0], file[1]))
            for file in files
        ]
        with self.client() as client:
            return client.post("/api/scans", files=parts)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the state of a job."""
        with self.client() as client:
            response = client.get(f"/api/jobs/{job_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for_job(self, job_id: str, limit_s: float = 300) -> dict[str, Any]:
        """Wait until a job is done or failed, and return it."""

        def finished(client: httpx.Client) -> dict[str, Any] | None:
            job = dict(client.get(f"/api/jobs/{job_id}").json())
            return job if job["status"] in ("done", "failed") else None

        return dict(self.wait_until(finished, limit_s))

    def worker_pid(self) -> int:
        """Return the id of the worker process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            children += (task / "children").read_text().split()
        return int(children[0])

    def kill(self) -> None:
        """Kill the process without notice."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Stop the server in order, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)
