"""Measure a server under many clients: whether scans are lost or processed twice, and the latency of status calls.

    python bench/service.py [--scans 50] [--clients 8] [--slices 60]

Starts `groundglass serve` with a queue of 16, so that clients are refused and retry; the scans are phantoms.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom

QUEUE_SIZE = 16
STATUS_EVERY_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=50, help="Number of scans to send (default 50).")
    parser.add_argument("--clients", type=int, default=8, help="Number of clients (default 8).")
    parser.add_argument("--slices", type=int, default=60, help="Number of slices of each scan (default 60).")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "ct.nii.gz"
        nifti.write_scan(chest_phantom(shape=(arguments.slices, 256, 256)).scan, source)
        command = [sys.executable, "-c", "from groundglass.cli import main; main()", "serve", "--port", "0"]
        server = subprocess.Popen(
            [*command, "-o", f"{folder}/store", "--queue", str(QUEUE_SIZE)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = re.findall(r"http://\S+", server.stdout.readline())[0]
            load(url, source.read_bytes(), arguments.scans, arguments.clients)
        finally:
            server.terminate()
            server.wait()


def load(url: str, scan: bytes, scans: int, clients: int) -> None:
    """Send the scans, poll their state until all have ended, and print the counts and latencies."""
    http = httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=clients + 4))
    refused = [0]
    accepted: list[str] = []
    latencies_s: list[float] = []
    ended = threading.Event()

    def post(_: int) -> None:
        while True:
            response = http.post("/api/scans", files={"files": ("ct.nii.gz", scan)})
            if response.status_code == 429:
                refused[0] += 1
                time.sleep(min(1.0, float(response.headers["Retry-After"])))
                continue
            response.raise_for_status()
            accepted.append(response.json()["id"])
            return

    def poll() -> None:
        while not ended.is_set():
            if accepted:
                start = time.perf_counter()
                http.get(f"/api/jobs/{accepted[-1]}").raise_for_status()
                latencies_s.append(time.perf_counter() - start)
            time.sleep(STATUS_EVERY_S)

    poller = threading.Thread(target=poll)
    poller.start()
    start = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(post, range(scans)))
    while any(job["status"] in ("queued", "running") for job in http.get("/api/jobs").json()):
        time.sleep(0.5)
    seconds = time.monotonic() - start
    ended.set()
    poller.join()
    jobs = http.get("/api/jobs").json()
    done = [job["id"] for job in jobs if job["status"] == "done"]
    counted = re.findall(r'jobs_ended_total\{status="done"\} (\S+)', http.get("/metrics").text)[0]
    p50, p95, p100 = 1000 * np.percentile(latencies_s, [50, 95, 100])
    print(f"{os.cpu_count()} cores; {scans} scans by {clients} clients, refused {refused[0]} times (429)")
    print(f"accepted {len(set(accepted))}, done {len(done)}, ended {float(counted):.0f}, in {seconds:.0f} s")
    print(f"lost {len(set(accepted) - set(done))}, duplicated {len(jobs) - len(set(accepted))}")
    print(f"status, {len(latencies_s)} calls: median {p50:.1f} ms, p95 {p95:.1f} ms, longest {p100:.0f} ms")


if __name__ == "__main__":
    main()
