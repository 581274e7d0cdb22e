"""Processing of one job in the worker process: from the uploaded scan to the results and the images for the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from groundglass.apps.service.job_states import JobStage, ResultFile
from groundglass.apps.service.page_text import for_the_page
from groundglass.apps.service.storage import JobFolder
from groundglass.apps.service.uploaded_scan import read_mask, read_uploaded_scan
from groundglass.apps.service.view_files import write_view
from groundglass.errors import OUT_OF_MEMORY, FormatError, GroundglassError, InputError, OutputError, origin
from groundglass.files import write_atomic
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.model_card import ModelCard
from groundglass.inference.open_model import open_with_lungs
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_header import text_value
from groundglass.report.analysis import Analysis, correct, segment
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
        """Load the model and the lung network.

        Raises:
            ModelError: The model is missing or damaged.
            EngineError: No engine can run the model on this machine.
        """
        return partial(process_job, segmenter=open_with_lungs(self.model, self.engine), max_slices=self.max_slices)


def process_job(folder: Path, segmenter: Segmenter, max_slices: int) -> JobResult:
    """Segment the scan in a job's folder, or measure it with its corrected mask, and write the results beside it.

    Raises:
        GroundglassError: The scan was refused, or processing failed; the message names neither patient nor folder.
    """
    try:
        return _process(JobFolder(folder), segmenter, max_slices)
    except OutputError as error:
        _remove_results(JobFolder(folder))  # they take room
        raise OutputError(str(error).replace(f"{folder}/", "")) from None
    except GroundglassError as error:
        raise type(error)(for_the_page(str(error))) from None
    except MemoryError:
        raise InputError(OUT_OF_MEMORY) from None
    except OSError as error:  # of the machine: too many open files, a disk that fails
        raise OutputError(f"the scan cannot be processed: {error.strerror or origin(error)}") from None
    except Exception as error:  # its own message may quote a header of the file
        raise GroundglassError(f"{origin(error)} (a fault of groundglass)") from None


def _process(folder: JobFolder, segmenter: Segmenter, max_slices: int) -> JobResult:
    _remove_results(folder)  # of an interrupted attempt
    folder.write_progress(JobStage.READING)
    scan = read_uploaded_scan(folder)
    count = len(scan.values)
    if count > max_slices:
        raise FormatError(f"the scan has {count:,} slices, expected at most {max_slices:,}: split it into parts")
    if scan.series is not None:
        write_atomic(folder.patient, text_value(scan.series.headers[0], "PatientID").encode(errors="replace"))
    analysis = _worded_for_the_page(_analyse(folder, scan, segmenter))
    folder.write_progress(JobStage.WRITING)
    with ThreadPoolExecutor(1) as pool:
        viewing = pool.submit(write_view, analysis, folder.view)
        files = analysis.save(folder.results)
        viewing.result()
    listed = (ResultFile(name=file.relative_to(folder.results).as_posix(), bytes=file.stat().st_size) for file in files)
    return JobResult(analysis.findings.summary, tuple(listed))


def _remove_results(folder: JobFolder) -> None:
    for written in (folder.results, folder.view):
        shutil.rmtree(written, ignore_errors=True)


def _analyse(folder: JobFolder, scan: Scan, segmenter: Segmenter) -> Analysis:
    """Segment a scan, or measure it with the mask that a person has corrected or brought.

    The results do not hold what the upload was called: file names often name the patient.
    """
    folder.write_progress(JobStage.LUNGS)
    looked = _throttled(partial(folder.write_progress, JobStage.LUNGS), PROGRESS_EVERY_S)
    if folder.mask.exists():
        return correct(scan, *read_mask(folder, scan, _corrected_card(folder, segmenter.card)), progress=looked)
    write_atomic(folder.card, segmenter.card.model_dump_json().encode())

    def report_slices(done: int, total: int) -> None:
        if done < total:
            folder.write_progress(JobStage.LESIONS, done, total)
        else:
            folder.write_progress(JobStage.MEASURING)

    return segment(scan, segmenter, progress=_throttled(report_slices, PROGRESS_EVERY_S), lungs_progress=looked)


def _corrected_card(folder: JobFolder, card: ModelCard) -> ModelCard:
    """Return the card of the model whose mask was corrected: the server may have been started with another one since.

    Args:
        folder: Folder of the correction.
        card: The card of the model of this server, for results of versions that kept none.

    Raises:
        FormatError: The card is of another version.
    """
    try:
        return ModelCard.model_validate_json(folder.card.read_bytes())
    except FileNotFoundError:
        return card
    except ValueError:
        raise FormatError(
            "the mask that was corrected is of another version of groundglass: send the scan again"
        ) from None


def _worded_for_the_page(analysis: Analysis) -> Analysis:
    """Word the warnings of a result without options of the command line."""
    warnings = tuple(map(for_the_page, analysis.findings.warnings))
    return replace(analysis, findings=analysis.findings.model_copy(update={"warnings": warnings}))


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
