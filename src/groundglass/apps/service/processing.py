"""Processing of one job in the worker process: from the uploaded scan to the results and the images for the page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from groundglass.apps.service.jobs import ResultFile
from groundglass.apps.service.storage import JobFolder
from groundglass.errors import OUT_OF_MEMORY, FormatError, GroundglassError, InputError, OutputError, origin
from groundglass.files import write_atomic
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, correct, save, segment
from groundglass.scan.scan import Scan

PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True)
class JobResult:
    """The result of a job: the findings in one line, and the files that were written."""

    summary: str
    files: tuple[ResultFile, ...]


@dataclass(frozen=True)
class ServiceWorkerFactory:
    """Loads the model once in each worker process and returns the function that processes a job.

    Attributes:
        model: ONNX file with its card, or a run folder; None for the bundled model.
        engine: How the model is run.
        max_slices: Largest number of slices of a scan.
    """

    model: Path | None
    engine: EngineConfig
    max_slices: int

    def __call__(self) -> Callable[[Path], JobResult]:
        """Load the model.

        Raises:
            ModelError: The model is missing or damaged.
            EngineError: No engine can run the model on this machine.
        """
        return partial(process_job, segmenter=open_model(self.model, self.engine), max_slices=self.max_slices)


def process_job(folder: Path, segmenter: Segmenter, max_slices: int) -> JobResult:
    """Segment the scan in a job's folder, or measure it with its corrected mask, and write the results beside it.

    Raises:
        GroundglassError: The scan was refused, or processing failed; the message names neither patient nor folder.
    """
    try:
        return _process(JobFolder(folder), segmenter, max_slices)
    except OutputError as error:
        raise OutputError(str(error).replace(f"{folder}/", "")) from None
    except GroundglassError:
        raise
    except MemoryError:
        raise InputError(OUT_OF_MEMORY) from None
    except Exception as error:  # its own message may quote a header of the file
        raise GroundglassError(f"{origin(error)} (a fault of groundglass)") from None


def _process(folder: JobFolder, segmenter: Segmenter, max_slices: int) -> JobResult:
    for left_over in (folder.results, folder.view):  # of an interrupted attempt
        shutil.rmtree(left_over, ignore_errors=True)
    scan = read_scan(folder.scan)
    count = len(scan.values)
    if count > max_slices:
        raise FormatError(f"the scan has {count:,} slices, expected at most {max_slices:,}: split it into parts")
    if folder.mask.exists():
        analysis = correct(scan, read_scan(folder.mask), segmenter.card)
    else:
        analysis = segment(scan, segmenter, progress=_throttled(folder.write_progress, PROGRESS_EVERY_S))
    files = save(analysis, folder.results)
    write_view(analysis, folder.view)
    listed = (ResultFile(name=file.relative_to(folder.results).as_posix(), bytes=file.stat().st_size) for file in files)
    return JobResult(analysis.findings.summary, tuple(listed))


def write_view(analysis: Analysis, folder: Path) -> None:
    """Write the images that the page shows, in upright axial slices from feet to head.

    `scan.nii.gz` is the scan in HU as int16; `lesions.nii.gz`, on the same grid, is 0 or the number of the lesion class
    from 1; `slices.json` gives for each slice of the view its number in the uploaded file.
    """
    segmented = analysis.segmented
    geometry = segmented.view.geometry
    hu = np.empty(segmented.hu.shape, dtype=np.int16)
    for target, slice_hu in zip(hu, segmented.hu, strict=True):
        target[...] = np.rint(slice_hu.clip(-32768, 32767))
    nifti.write_scan(Scan(hu, geometry), folder / "scan.nii.gz")
    nifti.write_scan(Scan(np.asarray(segmented.class_map), geometry), folder / "lesions.nii.gz")
    numbers = {"file_slice_of_view": segmented.view.slice_numbers.tolist()}
    write_atomic(folder / "slices.json", json.dumps(numbers).encode())


def _throttled(report: Callable[[int, int], None], every_s: float) -> Callable[[int, int], None]:
    """Pass on the first and the last progress report, and of the others at most one every `every_s` seconds."""
    last_s = 0.0

    def report_sometimes(done: int, total: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if done == total or now_s - last_s >= every_s:
            last_s = now_s
            report(done, total)

    return report_sometimes
