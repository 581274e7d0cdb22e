"""Disturb a server for minutes: no accepted scan may be lost, done twice, or differ from an undisturbed run.

    python bench/soak.py [--scans 200] [--clients 6] [--minutes 60] [--seed 0] [--threshold]

Starts `groundglass serve`. Clients send small phantoms as NIfTI and as zipped DICOM, and damaged files; some uploads
are slow, some end in the middle. Meanwhile the server and its worker are killed, another program locks the database,
the server's clock jumps by days, and the disk fills and empties. The disk is a file system in a file, for which mount
needs the rights of root, and the clock a library, which needs a C compiler; else that fault is left out, and it is
said. The exit code is 1 if a claim does not hold at the end.
With `--threshold` a threshold takes the place of the networks, for a machine that is busy otherwise.
`bench/soak_watch.py` does the same to `watch`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from soak_server import Server, open_disk, write_scans

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.scripted_worker import is_alive

JUMPS_S = (9 * 86_400, -3 * 86_400, 400 * 86_400, 0)
STUCK_S = 120.0  # a server that calls itself ready, with scans that wait, must end one within this time
RETRY = (400, 408, 429, 503, 507)
CRASHED = re.compile(r"the server ended 3 times|the process died twice")


def parts_of(content: bytes, name: str, pause_s: float, stop_at: float) -> Iterator[bytes]:
    """Yield the body of an upload in eight parts, with pauses; a broken one stops early."""
    yield f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    size = len(content) // 8 + 1
    for start in range(0, len(content), size):
        time.sleep(pause_s)
        if start >= stop_at * len(content):
            raise ConnectionAbortedError
        yield content[start : start + size]
    yield b"\r\n--b--\r\n"


@dataclass
class Soak:
    """What the clients sent, what was observed, and what was done to the server."""

    server: Server
    scans: dict[str, bytes]
    generator: random.Random
    until: float  # when nothing more is sent, by `time.monotonic`
    accepted: dict[str, str] = field(default_factory=dict)  # {id of a job: kind of its scan}
    answers: Counter[int | str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ready: Counter[str] = field(default_factory=Counter)
    lies: list[str] = field(default_factory=list)
    over: int = 0  # scans that have ended
    ended: threading.Event = field(default_factory=threading.Event)

    def send(self, number: int) -> None:
        """Send a scan until it is accepted; some are broken off first."""
        kind = list(self.scans)[number % len(self.scans)]
        generator = random.Random(f"{self.generator.random()}")
        for attempt in itertools.count():
            if time.monotonic() > self.until:
                return
            is_broken = attempt == 0 and generator.random() < 0.15
            pause_s = generator.choice((0.0, 0.0, 0.0, 0.4))
            body = parts_of(self.scans[kind], f"{number}-{attempt}-{kind}", pause_s, 0.6 if is_broken else 1.1)
            headers = {"Content-Type": "multipart/form-data; boundary=b"}
            try:
                answer = self.server.http.post("/api/scans", content=body, headers=headers)
            except (httpx.HTTPError, ConnectionAbortedError):
                self.answers["broken" if is_broken else "no answer"] += 1
                time.sleep(0.5)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == 202:
                self.accepted[answer.json()["id"]] = kind
                return
            assert answer.status_code in RETRY, answer.text
            time.sleep(min(2.0, float(answer.headers.get("Retry-After", 1))))

    def disturb(self) -> None:
        """Do one thing after another to the server until all scans are accepted."""
        while not self.ended.wait(self.generator.uniform(0.5, 6.0)):
            possible = ["server", "worker", "worker", "lock", *["disk"] * self.server.disk.can_fill]
            possible += ["clock"] * (self.server.clock_library is not None)
            fault = self.generator.choice(possible)
            if fault in ("server", "worker") and self.generator.random() < 0.8:
                self.wait_for_an_end()  # a slow machine would start anew all the time
            self.faults[fault] += 1
            match fault:
                case "server":
                    with self.server.lock:
                        self.server.kill()
                        self.server.start()
                case "worker":
                    for pid in self.server.note_workers()[:1]:
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                case "lock":
                    with sqlite3.connect(self.server.store / "jobs.sqlite", timeout=60) as database:
                        database.execute("begin exclusive")
                        self.ended.wait(self.generator.uniform(1.0, 12.0))
                case "disk":
                    with self.server.disk.full():
                        self.ended.wait(self.generator.uniform(2.0, 8.0))
                case "clock":
                    self.server.set_clock(self.generator.choice(JUMPS_S))
        self.server.set_clock(0)

    def wait_for_an_end(self) -> None:
        """Wait until a further scan has ended, for a minute at most."""
        before, until = self.over, time.monotonic() + 60.0
        while self.over == before and time.monotonic() < until and not self.ended.wait(0.2):
            pass

    def observe(self) -> None:
        """Read `/readyz` and the metrics all the time, and note where they are not true."""
        progress, since = (-1, 0), time.monotonic()
        while not self.ended.wait(0.3):
            with self.server.lock, suppress(httpx.HTTPError):
                ready = self.server.http.get("/readyz")
                self.ready[ready.text if ready.status_code in (200, 503) else str(ready.status_code)] += 1
                counts = jobs_by_status(self.server.http.get("/metrics").text)
                over, waiting = counts["done"] + counts["failed"], counts["queued"]
                self.over = over
                if (over, waiting) != progress or ready.status_code != 200 or not waiting:
                    progress, since = (over, waiting), time.monotonic()
                elif time.monotonic() - since > STUCK_S:
                    self.lies.append(f"ready, but {waiting} scans wait and none has ended for {STUCK_S:g} s")
                    since = time.monotonic()


def jobs_by_status(metrics: str) -> dict[str, int]:
    """Read the gauge of jobs."""
    return {status: int(float(n)) for status, n in re.findall(r'groundglass_jobs\{status="(\w+)"\} (\S+)', metrics)}


def result_of(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Return what can be compared of a result: the mask's checksum and the findings, without times."""
    files = f"/api/jobs/{job['id']}/files"
    mask = http.get(f"{files}/lesions.nii.gz").raise_for_status().content
    findings = json.loads(http.get(f"/api/jobs/{job['id']}/findings").raise_for_status().text)
    for file in job["files"]:
        assert len(http.get(f"{files}/{file['name']}").raise_for_status().content) == file["bytes"], file
    kept = {key: value for key, value in findings.items() if key not in ("analysed", "seconds")}
    return {"mask": hashlib.sha256(mask).hexdigest(), **kept}


def wait_until_idle(http: httpx.Client) -> list[dict[str, Any]]:
    """Wait until no job waits or runs; return the jobs."""
    while True:
        with suppress(httpx.HTTPError):
            jobs: list[dict[str, Any]] = http.get("/api/jobs").raise_for_status().json()
            if all(job["status"] in ("done", "failed") for job in jobs):
                return jobs
        time.sleep(0.5)


def undisturbed_results(server: Server, scans: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Send each kind once to a server that is left alone; return the results."""
    server.start()
    for kind, content in scans.items():
        server.http.post("/api/scans", files={"files": (kind, content)}).raise_for_status()
    results = {
        job["label"]: result_of(server.http, job) for job in wait_until_idle(server.http) if job["status"] == "done"
    }
    server.kill()
    shutil.rmtree(server.store)
    return results


def judge(soak: Soak, expected: dict[str, dict[str, Any]]) -> list[str]:
    """Return what does not hold at the end."""
    server, wrong = soak.server, list(soak.lies)
    jobs = {job["id"]: job for job in wait_until_idle(server.http)}
    wrong += [f"accepted and lost: {job_id}" for job_id in soak.accepted.keys() - jobs.keys()]
    for job_id, job in jobs.items():
        kind = soak.accepted.get(job_id) or str(job["label"]).split("-", 2)[-1]
        if job["status"] == "done" and (found := result_of(server.http, job)) != expected.get(kind):
            others = [key for key in found if found[key] != expected.get(kind, {}).get(key)]
            wrong.append(f"{kind}: another result than undisturbed: {', '.join(others)}")
        elif job["status"] == "failed" and kind in expected and not CRASHED.search(job["reason"] or ""):
            wrong.append(f"{kind}: failed: {job['reason']!r}")
        elif job["status"] == "failed" and not job["reason"]:
            wrong.append(f"{kind}: failed without a reason")
    labels = Counter(job["label"] for job in jobs.values())
    wrong += [f"{count} jobs of one upload" for count in labels.values() if count > 1]
    if server.http.get("/readyz").text != "ok":
        wrong.append("not ready at the end")
    metrics = server.http.get("/metrics").text
    by_status = Counter(job["status"] for job in jobs.values())
    stated = jobs_by_status(metrics)
    if {name: n for name, n in stated.items() if n} != dict(by_status):
        wrong.append(f"metrics state {stated}, there are {dict(by_status)}")
    ended = sum(float(n) for n in re.findall(r"groundglass_jobs_ended_total\{\S+\} (\S+)", metrics))
    if ended != len(jobs) - server.ended_before:
        wrong.append(f"metrics count {ended:g} ends since the last start, there were {len(jobs) - server.ended_before}")
    folders = {path.name for path in (server.store / "scans").iterdir()}
    if folders != jobs.keys() or any((server.store / "incoming").iterdir()):
        wrong.append("folders without a job, or jobs without a folder")
    unheard = len(jobs.keys() - soak.accepted.keys())
    print(f"accepted {len(soak.accepted)} (and {unheard} whose answer a kill cut off); {dict(by_status)}")
    print(f"reasons: {dict(Counter(job['reason'] for job in jobs.values() if job['status'] == 'failed'))}")
    server.kill()
    time.sleep(2.0)
    if left := [pid for pid in server.workers if is_alive(pid)]:
        wrong.append(f"processes that outlive the server: {left}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_disk(Path(name)) as disk:
        scans, server = write_scans(Path(name)), Server(disk, arguments.threshold)
        soak = Soak(server, scans, random.Random(arguments.seed), float("inf"))
        try:
            expected = undisturbed_results(server, scans)
            server.start()
            started = time.monotonic()
            soak.until = started + 60 * arguments.minutes
            threads = [threading.Thread(target=target) for target in (soak.disturb, soak.observe)]
            for thread in threads:
                thread.start()
            try:
                with ThreadPoolExecutor(arguments.clients) as pool:
                    list(pool.map(soak.send, range(arguments.scans)))
            finally:
                soak.ended.set()
                for thread in threads:
                    thread.join()
            wrong = judge(soak, expected)
        finally:
            if server.process is not None:
                server.process.kill()
                server.process.wait()
    print(f"{arguments.clients} clients, seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    left_out = ["no full disk"] * (not disk.can_fill) + ["no clock that is set"] * (server.clock_library is None)
    print(f"faults: {'; '.join([str(dict(soak.faults)), *left_out])}")
    print(f"answers to uploads: {dict(soak.answers)}")
    print(f"/readyz: {dict(soak.ready)}")
    print("\n".join(wrong) or "everything held")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
