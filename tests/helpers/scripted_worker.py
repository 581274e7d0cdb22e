"""Worker processes that follow a script: they crash or hang on demand; and what the tests ask of processes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from groundglass.workers import Worker


def run_script(script: str) -> str:
    """Follow a script, and return it.

    `die` kills the process each time, `die once FILE` only if FILE does not exist, which it creates. `hang FILE` sleeps
    after it has written the process's id and its owner's into FILE, `hang once FILE` only if FILE does not exist. Any
    other script does nothing.
    """
    command, _, argument = script.partition(" ")
    if argument.startswith("once "):
        argument = argument.removeprefix("once ")
        if Path(argument).exists():
            return script
    if command == "die":
        if argument:
            Path(argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if command == "hang":
        unfinished = Path(f"{argument}.part")
        unfinished.write_text(f"{os.getpid()} {os.getppid()}")
        unfinished.replace(argument)
        time.sleep(600)
    return script


def make_script_runner() -> Callable[[str], str]:
    return run_script


def script_worker(time_limit_s: float = 60.0) -> Worker[str, str]:
    """Make a worker whose tasks are scripts."""
    return Worker(make_script_runner, time_limit_s, 1)


def hanging_pids(file: Path) -> tuple[int, int]:
    """Wait until a process follows `hang FILE`; return its id and its owner's."""
    wait_until(file.exists)
    own, owner = file.read_text().split()
    return int(own), int(owner)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It does not hold within the time limit.
    """
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {limit_s:g} s"
        time.sleep(0.02)
