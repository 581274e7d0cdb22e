"""Measure the page: the server's seconds for a scan beside the command's, and how long after them it is shown.

    python bench/page.py SCAN [SCAN...] [--rounds 2]

Needs Playwright and Debian's Chromium. In every round the command `groundglass segment` runs, then the scan is dropped
on the page in a new profile of the browser, so that nothing of it is cached. WebGL is drawn by the processor.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
from playwright.sync_api import Browser, sync_playwright

PROGRAM = [sys.executable, "-c", "from groundglass.cli import main; main()"]
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
LIMIT_MS = 600_000


class Times(NamedTuple):
    """Seconds of the command, of the upload, of the server's processing, and until the scan is seen after that."""

    command: float
    upload: float
    server: float
    shown: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(
        "| scan | command, s | upload | server | server / command | shown after, s: all rounds | load |\n"
        + "|---" * 7
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for scan in arguments.scans:
            rounds = [
                Times(time_command(scan, Path(folder)), *time_page(browser, url, scan)) for _ in range(arguments.rounds)
            ]
            command, upload, server, _ = (statistics.median(times) for times in zip(*rounds, strict=True))
            shown = ", ".join(f"{times.shown:.1f}" for times in rounds)
            print(
                f"| {scan.name} | {command:.1f} | {upload:.1f} | {server:.1f} | {server / command:.2f} | {shown} | "
                f"{os.getloadavg()[0]:.0f} |",
                flush=True,
            )
        browser.close()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Start a server with the bundled model; yields its address."""
    command = [*PROGRAM, "serve", "--port", "0", "-o", str(folder / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield re.findall(r"http://\S+", server.stdout.readline())[0]
        server.terminate()


def time_command(scan: Path, folder: Path) -> float:
    """Return the seconds of `groundglass segment` from start to end."""
    start = time.perf_counter()
    subprocess.run([*PROGRAM, "segment", str(scan), "-o", str(folder / "out")], check=True, capture_output=True)
    return time.perf_counter() - start


def time_page(browser: Browser, url: str, scan: Path) -> tuple[float, float, float]:
    """Drop a scan on the page; return the seconds of its upload, of its processing, and until it is seen after that."""
    profile = browser.new_context(viewport={"width": 1280, "height": 800})
    page = profile.new_page()
    page.goto(url)
    page.wait_for_selector("#limits:not(:empty)", state="attached")
    session = profile.new_cdp_session(page)
    dropped = datetime.now(UTC)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(scan.absolute())], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 640, "y": 400, "data": data})
    page.wait_for_selector("[data-ready]", timeout=LIMIT_MS)
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    seen = datetime.now(UTC)
    job = httpx.get(f"{url}/api/jobs/{page.url.rpartition('#')[2]}").json()
    profile.close()
    submitted, started, finished = (
        datetime.fromisoformat(job[event]) for event in ("submitted", "started", "finished")
    )
    return (
        (submitted - dropped).total_seconds(),
        (finished - started).total_seconds(),
        (seen - finished).total_seconds(),
    )


if __name__ == "__main__":
    main()
