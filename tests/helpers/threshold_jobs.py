"""A worker factory of the service without a network, for long runs of its server."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundglass.apps.service.job_states import JobStage, ResultFile
from groundglass.apps.service.processing import JobResult
from groundglass.apps.service.storage import JobFolder
from groundglass.files import output_errors, staged_folder
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.scan.scan import Mask


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
