"""A real server, started as a person starts it."""

from __future__ import annotations

import re
import signal
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
    """A `groundglass serve` on a free port."""

    folder: Path
    words: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)
    url: str = ""

    def start(self, port: int = 0) -> None:
        code = "from groundglass.cli import main; main()"
        words = [sys.executable, "-c", code, "serve", "-o", str(self.folder), "--port", str(port), *self.words]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        said = self.log.stat().st_size
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            found = re.findall(r"http://127\.0\.0\.1:\d+", self.log.read_text()[said:])
            if found:
                self.url = found[-1]
                break
            time.sleep(0.05)
        self.wait(lambda client: client.get("/healthz").status_code == 200)

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **more)

    def wait(self, true: Callable[[httpx.Client], Any], limit_s: float = 60) -> Any:
        """What `true` gives, as soon as it is something."""
        end = time.monotonic() + limit_s
        with self.client() as client:
            while time.monotonic() < end:
                try:
                    if found := true(client):
                        return found
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"waited in vain; the server said:\n{self.log.read_text()}")

    def post(self, *files: Path | tuple[str, bytes]) -> httpx.Response:
        parts = [
            ("files", (file.name, file.read_bytes()) if isinstance(file, Path) else (file[0], file[1]))
            for file in files
        ]
        with self.client() as client:
            return client.post("/api/scans", files=parts)

    def job(self, number: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.get(f"/api/jobs/{number}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def over(self, number: str, limit_s: float = 90) -> dict[str, Any]:
        """The job, as soon as it is done or failed."""
        return dict(
            self.wait(
                lambda client: (
                    (job := client.get(f"/api/jobs/{number}").json())["status"] in ("done", "failed") and job
                ),
                limit_s,
            )
        )

    def worker_pid(self) -> int:
        """Of the process that does the jobs."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            children += (task / "children").read_text().split()
        return int(children[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)
