"""Worker factories for the tests of worker processes, which import them by name."""

import ctypes
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.service.job_states import JobStage, ResultFile
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.storage import JobFolder
from groundglass.errors import ModelError
from groundglass.files import output_errors, staged_folder
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.scan.scan import Mask


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


def make_instant_job() -> Callable[[Path], JobResult]:
    """Make a function that does a job of the service in no time."""
    return lambda _: JobResult("no lesion", ())


@dataclass(frozen=True)
class ThresholdFactory:
    """Makes a function that does a job of the service by a threshold: its files are as real as they are small.

    Attributes:
        options: Arguments of `ServiceWorkerFactory`, which are not used.
    """

    options: tuple[object, ...]

    def __call__(self) -> Callable[[Path], JobResult]:
        return find_by_threshold


def find_by_threshold(folder: Path) -> JobResult:
    """Read the scan of a job, and write everything between two HU as its lesions; takes some seconds, as a network."""
    job = JobFolder(folder)
    shutil.rmtree(job.results, ignore_errors=True)
    job.write_progress(JobStage.READING)
    scan = read_scan(job.scan)
    time.sleep(2.0)
    lesions = (scan.values > -750) & (scan.values < -170)
    with output_errors(job.results), staged_folder(job.results) as staging:
        nifti.write_mask(Mask(lesions, scan.geometry), staging / "lesions.nii.gz")
        (staging / "findings.json").write_text(json.dumps({"voxels": int(lesions.sum())}))
    files = sorted(job.results.iterdir())
    return JobResult("by a threshold", tuple(ResultFile(name=file.name, bytes=file.stat().st_size) for file in files))


def make_memory_eater() -> Callable[[int], int]:
    """Make a function that takes as many bytes of memory as it is told."""
    return lambda count: len(bytearray(count))
