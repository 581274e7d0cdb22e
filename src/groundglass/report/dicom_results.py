"""The results for a PACS: a Segmentation and a Structured Report, or the reason why there are none.

They are extras of a result: where a header does not allow them, mask, findings and report are written all the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from groundglass.errors import FormatError, origin
from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.parallel import in_background
from groundglass.report.findings import Findings
from groundglass.scan.scan import DicomSeries, Scan

if TYPE_CHECKING:
    from pydicom import Dataset

SEG_FILE, SR_FILE = "lesions.dcm", "findings.dcm"


def load_in_background(scan: Scan) -> None:
    """Import in a thread what the files of a scan from DICOM need, while its lungs and lesions are looked for."""
    if scan.series is not None:
        in_background(import_module, "groundglass.report.dicom_sr")


@dataclass(frozen=True)
class DicomResults:
    """The files for a PACS, in memory.

    Attributes:
        files: {name: content}.
        notes: Sentences for the user on what had to be filled in.
        left_out: The files that are left out, and the reason; None if all were made.
    """

    files: dict[str, bytes]
    notes: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the files."""
        return self.notes if self.left_out is None else (*self.notes, self.left_out)


def make_dicom_results(segmented: SegmentedScan, findings: Findings, card: ModelCard) -> DicomResults:
    """Make the files for a PACS from a scan that was read from DICOM; without files for other scans.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        card: The card of the model that was used.
    """
    source = segmented.scan.series
    if source is None:
        return DicomResults({})
    from groundglass.io.dicom_completion import complete_series  # pydicom loads slowly, and only DICOM needs it

    files: dict[str, bytes] = {}
    notes: tuple[str, ...] = ()
    wanted = (SEG_FILE, SR_FILE)
    try:
        completed = complete_series(source)
        notes = completed.notes
        files.update(_make_files(segmented, findings, card, completed.series))
    except FormatError as error:
        return DicomResults({}, left_out=_left_out(wanted, str(error)))
    except Exception as error:  # highdicom and pydicom raise all kinds of errors, whose text may quote a header
        missing = [name for name in wanted if name not in files]
        return DicomResults(files, notes, _left_out(missing, f"{origin(error)}, an internal error of groundglass"))
    return DicomResults(files, notes)


def _make_files(
    segmented: SegmentedScan, findings: Findings, card: ModelCard, series: DicomSeries
) -> Iterator[tuple[str, bytes]]:
    from groundglass.report import dicom_seg, dicom_sr  # highdicom loads slowly, and only DICOM needs it

    class_map = segmented.view.from_axial(np.asarray(segmented.class_map))
    segmentation = dicom_seg.make_segmentation(series, class_map, card.classes[1:] or ("lesion",), findings)
    yield SEG_FILE, _encode(segmentation)
    yield SR_FILE, _encode(dicom_sr.make_structured_report(series, segmentation, findings))


def _encode(dataset: Dataset) -> bytes:
    from groundglass.report.dicom_seg import write_dicom

    content = io.BytesIO()
    write_dicom(dataset, content)
    return content.getvalue()


def _left_out(names: Sequence[str], reason: str) -> str:
    return f"{' and '.join(names)} {'were' if len(names) > 1 else 'was'} left out: {reason}"
