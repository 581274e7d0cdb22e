"""Commands that are killed at random moments."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from helpers.scripted_worker import wait_until

TESTS = Path(__file__).parents[1]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start `groundglass ARGUMENTS` in a process group of its own."""
    command = [sys.executable, "-m", "groundglass", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def run_whole(*arguments: object) -> float:
    """Run a command to its end, and return the seconds that it took."""
    begun = time.monotonic()
    assert start(*arguments).wait() == 0
    return time.monotonic() - begun


def kill_at_random_moments(seconds: float, seed: int, *arguments: object, kills: int = 5) -> Iterator[None]:
    """Start a command again and again, kill its process, and yield when all processes that it had started have ended.

    Args:
        seconds: The time that the command takes.
        seed: Seed of the moments.
        *arguments: The command and its arguments.
        kills: Number of kills.
    """
    moments = random.Random(seed)
    for number in range(kills):
        process = start(*arguments)
        time.sleep(seconds * (number + moments.random()) / kills)
        process.kill()
        process.wait()
        wait_until(partial(_has_ended, process.pid))
        yield


def visible(folder: Path) -> dict[str, bytes]:
    """Return the content of the files that somebody who looks into a folder takes for results."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith(".groundglass-")}


def _has_ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
