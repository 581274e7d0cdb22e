"""Worker factories for the tests of worker processes, which import them by name, and so little besides."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from groundglass.errors import ModelError

if TYPE_CHECKING:
    from groundglass.apps.service.job_states import ResultFile
    from groundglass.apps.service.processing import JobResult


def raise_model_error() -> None:
    """Fail as a factory does whose model cannot be loaded."""
    raise ModelError("no such model")


def exit_at_once(starts: Path) -> None:
    """Append a line to a file, and end the process instead of getting ready."""
    with starts.open("a") as stream:
        stream.write("started\n")
    os._exit(7)


def make_printer() -> Callable[[str], None]:
    """Make a function that writes its task to standard output and standard error."""

    def write(text: str) -> None:
        os.write(1, text.encode())
        os.write(2, text.encode())

    return write


def make_pid_reporter() -> Callable[[str], int]:
    """Make a function that returns the id of its process, or raises its task if it is a refusal."""

    def report(task: str) -> int:
        if task == "refuse":
            raise ModelError("refused")
        return os.getpid()

    return report


def make_pid_reporter_with(model: Path) -> Callable[[str], int]:
    """Make the function of `make_pid_reporter` if there is a file, and fail as a model does if there is none."""
    if not model.exists():
        raise_model_error()
    return make_pid_reporter()


def make_endless_computation() -> Callable[[Path], None]:
    """Make a function that writes its process's id and its owner's to a file, and computes for ever."""

    def compute(path: Path) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(f"{os.getpid()} {os.getppid()}")
        unfinished.replace(path)
        number = 0
        while True:
            number += 1

    return compute


def make_stubborn_computation() -> Callable[[Path], None]:
    """Make a function that writes like `make_endless_computation`, and computes for long without a thread of Python."""

    def compute(path: Path) -> None:
        unfinished = path.with_suffix(".part")
        unfinished.write_text(f"{os.getpid()} {os.getppid()}")
        unfinished.replace(path)
        ctypes.PyDLL(None).sleep(60)  # holds Python's lock, unlike a function of ctypes.CDLL

    return compute


class InstantResult(NamedTuple):
    """What a job of the service returns, without the imports of one."""

    summary: str = "no lesion"
    files: tuple[ResultFile, ...] = ()


def make_instant_job() -> Callable[[Path], JobResult]:
    """Make a function that does a job of the service in no time."""
    return lambda _: cast("JobResult", InstantResult())


def make_memory_eater() -> Callable[[int], int]:
    """Make a function that takes as many bytes of memory as it is told."""
    return lambda count: len(bytearray(count))


def make_core_eater() -> Callable[[tuple[float, float]], None]:
    """Make a function that computes for some seconds of a core, then waits for some by the clock."""

    def compute(seconds: tuple[float, float]) -> None:
        end = time.process_time() + seconds[0]
        while time.process_time() < end:
            pass
        time.sleep(seconds[1])

    return compute
