"""The files of a result: mask, findings, preview, report and, for DICOM, what a PACS reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from groundglass.files import staged_folder
from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.io import image_slices, nifti
from groundglass.report.findings import Findings
from groundglass.report.report_page import report_page
from groundglass.scan.scan import DicomSeries, ImageStack

SEG_FILE, SR_FILE = "lesions.dcm", "findings.dcm"
# Every name that a result may have: what of them an earlier result left must not survive beside a new one.
RESULT_NAMES = (
    *("lesions.nii.gz", "lesions.png", "lesions", SEG_FILE, SR_FILE),
    *("findings.json", "preview.png", "report.html"),
)


def write_results(
    segmented: SegmentedScan, findings: Findings, drawn: Image.Image, card: ModelCard, folder: Path
) -> list[Path]:
    """Write a result into a folder: all files, or none.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        drawn: The preview.
        card: The card of the model that was used.
        folder: Created if it does not exist. Files of an earlier result are replaced; other files stay.

    Returns:
        The files: masks, findings, preview, report.

    Raises:
        OutputError: The folder cannot be written; it is as it was before.
    """
    scan = segmented.scan
    with staged_folder(folder, RESULT_NAMES) as staging:
        if isinstance(scan, ImageStack):
            image_slices.write_mask(segmented.mask(np.asarray(segmented.lesions)), scan, staging)
        else:
            slices = segmented.view.restored_slices(segmented.lesions)
            nifti.write_mask_slices(slices, scan.geometry, staging / "lesions.nii.gz", like=scan.source)
        if scan.series:
            write_dicom_results(segmented, findings, card, scan.series, staging)
        (staging / "findings.json").write_text(findings.to_json() + "\n", encoding="utf-8")
        drawn.save(staging / "preview.png")
        (staging / "report.html").write_text(report_page(segmented, findings, drawn, card), encoding="utf-8")
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    return [folder / path for path in sorted(files, key=_reading_order)]


def write_dicom_results(
    segmented: SegmentedScan, findings: Findings, card: ModelCard, series: DicomSeries, folder: Path
) -> list[Path]:
    """Write what a PACS reads: `lesions.dcm`, a Segmentation, and `findings.dcm`, a Structured Report.

    Args:
        segmented: The scan with its lungs and lesions, read from DICOM.
        findings: Its findings.
        card: The card of the model that was used.
        series: The series that the scan was read from.
        folder: An existing folder.

    Returns:
        The files. A model with class maps gets no report: its volumes are those of all lesions, and no segment is.

    Raises:
        OutputError: A file cannot be written.
    """
    from groundglass.report import dicom_seg, dicom_sr  # highdicom takes its time, and only DICOM needs it

    numbers = np.asarray(segmented.class_map)
    segments = dict(enumerate(card.classes[1:], start=1)) or {1: "lesion"}
    masks = {name: segmented.mask(numbers == number).voxels for number, name in segments.items()}
    segmentation = dicom_seg.segmentation(series, masks, findings)
    files = [folder / SEG_FILE]
    dicom_seg.write_dicom(segmentation, files[0])
    if len(card.classes) == 1:
        files.append(folder / SR_FILE)
        dicom_seg.write_dicom(dicom_sr.structured_report(series, segmentation, findings), files[1])
    return files


def _reading_order(path: Path) -> tuple[bool, bool, str]:
    return path.name in ("preview.png", "report.html"), path.stem == "findings", path.name
