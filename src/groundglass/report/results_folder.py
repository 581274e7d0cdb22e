"""The files of a result: mask, findings, preview, report and, for DICOM, Segmentation and Structured Report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from groundglass.errors import OccupiedError
from groundglass.files import output_errors, staged_folder
from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.io import image_slices, nifti
from groundglass.io.reader import FINDINGS_FILE, RESULT_FILES
from groundglass.report.dicom_results import SEG_FILE, SR_FILE
from groundglass.report.findings import Findings
from groundglass.report.report_page import render_report
from groundglass.report.scan_masks import ProbabilityMap, ScanMask, is_single_picture
from groundglass.report.thumbnail import save_preview
from groundglass.scan.scan import ImageStack

# All names that files of a result may have. Those that an earlier result left must not survive beside a new result.
LUNGS, PROBABILITY = "lungs", "probability"
CLASSES_FILE = "classes.nii.gz"  # 1, 2, ...: the number of a lesion's class, in the order of the model card
RESULT_NAMES = (*RESULT_FILES, FINDINGS_FILE, "lesions", SEG_FILE, SR_FILE)
_KNOWN_BY = {"segment": FINDINGS_FILE, "follow": "follow.json", "batch": "overview.html"}  # {command: a file of it}


def refuse_other_results(folder: Path, command: str) -> None:
    """Refuse a folder that holds results of another command: they may be another patient's.

    Raises:
        OccupiedError: It does.
        OutputError: It cannot be looked at.
    """
    with output_errors(folder):
        found = [other for other, name in _KNOWN_BY.items() if other != command and (folder / name).is_file()]
    if found:
        raise OccupiedError(f"{folder} holds results of groundglass {found[0]}: name another folder, or remove them")


def write_results(
    segmented: SegmentedScan,
    findings: Findings,
    preview: Image.Image | None,
    card: ModelCard,
    dicom_files: Mapping[str, bytes],
    folder: Path,
    maps: Mapping[str, ScanMask | ProbabilityMap] = MappingProxyType({}),
) -> list[Path]:
    """Write a result into a folder: all files, or none.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        preview: The preview; None if it could not be drawn.
        card: The card of the model that was used.
        dicom_files: {name: content} of the files for a PACS.
        folder: Created if it does not exist. The files of an earlier result are removed; other files stay.
        maps: {name without extension: mask or map} of what is written beside the lesions: `LUNGS`, `PROBABILITY`.

    Returns:
        The files: masks, findings, preview, report.

    Raises:
        OccupiedError: The folder holds results of another command, or files of these names without the findings of an
            earlier result, which may be another patient's; it is as it was before.
        OutputError: The folder cannot be written; it is as it was before.
    """
    scan = segmented.scan
    refuse_other_results(folder, "segment")
    with output_errors(folder):  # a name that is too long, or a folder that may not be read
        has_earlier_result = (folder / FINDINGS_FILE).is_file()

    def check(staging: Path) -> None:
        refuse_other_results(folder, "segment")
        if not has_earlier_result:
            _refuse_strangers(folder, staging)

    with staged_folder(folder, RESULT_NAMES if has_earlier_result else (), check, FINDINGS_FILE) as staging:
        if isinstance(scan, ImageStack):
            image_slices.write_mask(segmented.mask(np.asarray(segmented.lesions)), scan, staging)
        else:
            slices = segmented.view.source_slices(segmented.lesions)
            nifti.write_mask_slices(slices, scan.geometry, staging / "lesions.nii.gz", like=scan.source)
            if len(card.classes) > 1:
                numbers, kind = segmented.view.source_slices(segmented.class_map), np.dtype(np.uint8)
                path = staging / CLASSES_FILE
                nifti.write_slices(numbers, kind, scan.geometry, path, scan.source, "classes of lesions")
        for name, found in maps.items():
            found.save(staging / f"{name}{'.png' if is_single_picture(scan) else '.nii.gz'}")
        for name, content in dicom_files.items():
            (staging / name).write_bytes(content)
        (staging / FINDINGS_FILE).write_text(findings.to_json() + "\n", encoding="utf-8")
        if preview is not None:
            save_preview(preview, staging / "preview.png")
        (staging / "report.html").write_text(render_report(segmented, findings, preview, card), encoding="utf-8")
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    return [folder / path for path in sorted(files, key=_reading_order)]


def _refuse_strangers(folder: Path, staging: Path) -> None:
    """Refuse a folder without findings in which a file of these names would be replaced, or stay beside the new ones.

    It may be the mask that a person has drawn, the scan itself, or the result for another patient.
    """
    new = {path.name for path in staging.iterdir()}
    for name in RESULT_NAMES:
        path = folder / name
        if os.path.lexists(path) and (name in new or not path.is_dir()):
            kind = "folder" if path.is_dir() else "file"
            raise OccupiedError(f"{path} is not a {kind} of an earlier result: name another folder, or remove it")


def _reading_order(path: Path) -> tuple[bool, bool, str]:
    """Sort masks first, then findings, preview and report."""
    return path.name in ("preview.png", "report.html"), path.stem == "findings", path.name
