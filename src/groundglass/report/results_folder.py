"""The files of a result: mask, findings, preview, report and, for DICOM, Segmentation and Structured Report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from groundglass.errors import OutputError
from groundglass.files import staged_folder
from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.io import image_slices, nifti
from groundglass.report.findings import Findings
from groundglass.report.report_page import render_report
from groundglass.scan.scan import DicomSeries, ImageStack

SEG_FILE, SR_FILE = "lesions.dcm", "findings.dcm"
# All names that files of a result may have. Those that an earlier result left must not survive beside a new result.
RESULT_NAMES = (
    *("lesions.nii.gz", "lesions.png", "lesions", SEG_FILE, SR_FILE),
    *("findings.json", "preview.png", "report.html"),
)


def write_results(
    segmented: SegmentedScan, findings: Findings, preview: Image.Image, card: ModelCard, folder: Path
) -> list[Path]:
    """Write a result into a folder: all files, or none.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        preview: The preview.
        card: The card of the model that was used.
        folder: Created if it does not exist. The files of an earlier result are removed; other files stay.

    Returns:
        The files: masks, findings, preview, report.

    Raises:
        OutputError: The folder cannot be written, or holds a folder `lesions` that is not from an earlier result; it
            is as it was before.
    """
    scan = segmented.scan
    has_earlier_result = (folder / "findings.json").is_file()
    with staged_folder(folder, RESULT_NAMES if has_earlier_result else ()) as staging:
        if isinstance(scan, ImageStack):
            image_slices.write_mask(segmented.mask(np.asarray(segmented.lesions)), scan, staging)
        else:
            slices = segmented.view.source_slices(segmented.lesions)
            nifti.write_mask_slices(slices, scan.geometry, staging / "lesions.nii.gz", like=scan.source)
        if scan.series:
            write_dicom_results(segmented, findings, card, scan.series, staging)
        (staging / "findings.json").write_text(findings.to_json() + "\n", encoding="utf-8")
        preview.save(staging / "preview.png")
        (staging / "report.html").write_text(render_report(segmented, findings, preview, card), encoding="utf-8")
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        if not has_earlier_result and (staging / "lesions").exists() and (folder / "lesions").exists():
            raise OutputError(f"{folder / 'lesions'} is not a folder of an earlier result: name another folder")
    return [folder / path for path in sorted(files, key=_reading_order)]


def write_dicom_results(
    segmented: SegmentedScan, findings: Findings, card: ModelCard, series: DicomSeries, folder: Path
) -> list[Path]:
    """Write the files for a PACS: `lesions.dcm`, a Segmentation, and `findings.dcm`, a Structured Report.

    Args:
        segmented: The scan with its lungs and lesions, read from DICOM.
        findings: Its findings.
        card: The card of the model that was used.
        series: The series that the scan was read from.
        folder: An existing folder.

    Returns:
        The files. There is no report for a model with class maps: its volumes are of all lesions together, which no
        segment holds.

    Raises:
        OutputError: A file cannot be written.
    """
    from groundglass.report import dicom_seg, dicom_sr  # highdicom loads slowly, and only DICOM needs it

    numbers = np.asarray(segmented.class_map)
    segments = dict(enumerate(card.classes[1:], start=1)) or {1: "lesion"}
    masks = {name: segmented.mask(numbers == number).voxels for number, name in segments.items()}
    segmentation = dicom_seg.make_segmentation(series, masks, findings)
    files = [folder / SEG_FILE]
    dicom_seg.write_dicom(segmentation, files[0])
    if len(card.classes) == 1:
        files.append(folder / SR_FILE)
        dicom_seg.write_dicom(dicom_sr.make_structured_report(series, segmentation, findings), files[1])
    return files


def _reading_order(path: Path) -> tuple[bool, bool, str]:
    """Sort masks first, then findings, preview and report."""
    return path.name in ("preview.png", "report.html"), path.stem == "findings", path.name
