"""One job, in the worker process: from what was sent to results, and what the page shows of them."""

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
from groundglass.apps.service.storage import ScanFolder
from groundglass.errors import FormatError, GroundglassError, origin
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, correct, save, segment
from groundglass.scan.scan import Scan

SAY_EVERY_S = 0.2


@dataclass(frozen=True)
class JobResult:
    """What a job gave."""

    summary: str
    files: tuple[ResultFile, ...]


@dataclass(frozen=True)
class ServiceWorkerFactory:
    """Loads the model, once in each process; what it returns does a job in a folder.

    Attributes:
        model: An ONNX file with its card; None: the bundled one.
        engine: What runs it.
        slices: More are refused.
    """

    model: Path | None
    engine: EngineConfig
    slices: int

    def __call__(self) -> Callable[[Path], JobResult]:
        """Load the model.

        Raises:
            ModelError: It is missing or damaged.
            EngineError: No engine can run it here.
        """
        return partial(do, segmenter=open_model(self.model, self.engine), slices=self.slices)


def do(folder: Path, segmenter: Segmenter, slices: int) -> JobResult:
    """Segment what lies in a job's folder, or measure it with its corrected mask, and write the results into it.

    Raises:
        GroundglassError: It was refused, or failed; the message names nothing of the source.
    """
    place = ScanFolder(folder)
    try:
        return _do(place, segmenter, slices)
    except GroundglassError:
        raise
    except Exception as error:  # what a library says may quote a header
        raise GroundglassError(f"{origin(error)} (a fault of groundglass)") from None


def _do(place: ScanFolder, segmenter: Segmenter, slices: int) -> JobResult:
    for old in (place.results, place.view):
        shutil.rmtree(old, ignore_errors=True)
    scan = read_scan(place.scan)
    if len(scan.values) > slices:
        raise FormatError(f"the scan has {len(scan.values):,} slices, expected at most {slices:,}: cut it into parts")
    if place.mask.exists():
        analysis = correct(scan, read_scan(place.mask), segmenter.card)
    else:
        analysis = segment(scan, segmenter, progress=_every(SAY_EVERY_S, place.on_message))
    files = save(analysis, place.results)
    write_view(analysis, place.view)
    listed = (ResultFile(name=file.relative_to(place.results).as_posix(), bytes=file.stat().st_size) for file in files)
    return JobResult(analysis.findings.summary, tuple(listed))


def write_view(analysis: Analysis, folder: Path) -> None:
    """Write what the page shows: the scan in HU and its lesions, in upright axial slices from feet to head.

    `scan.nii.gz` is int16; `lesions.nii.gz` on the same grid 0, or the number of the lesion's class from 1;
    `slices.json` has for each slice its number in the scan's own file.
    """
    at = analysis.segmented
    hu = np.empty(at.hu.shape, dtype=np.int16)
    for plane, values in zip(hu, at.hu, strict=True):
        plane[...] = np.rint(values.clip(-32768, 32767))
    nifti.write_scan(Scan(hu, at.view.geometry), folder / "scan.nii.gz")
    nifti.write_scan(Scan(np.asarray(at.class_map), at.view.geometry), folder / "lesions.nii.gz")
    numbers = {"file_slice_of_view": at.view.slice_numbers.tolist()}
    (folder / "slices.json").write_text(json.dumps(numbers))


def _every(seconds: float, on_message: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Pass on the first word, the last, and of those between one in so many seconds."""
    last = 0.0

    def pass_on(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= seconds:
            last = now
            on_message(done, total)

    return pass_on
