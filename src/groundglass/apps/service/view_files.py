"""The images of a scan for a viewer, in upright axial slices, and what a viewer has to know about them.

scan.nii        HU as int16; unpacked, since packing it would take longer than finding the lesions
lesions.nii.gz  0, or the number of the lesion's class from 1
lungs.nii.gz    0, 1 the patient's right lung, 2 the left one
slices.json     a `ViewDescription`
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundglass.files import write_atomic
from groundglass.io import nifti
from groundglass.io.dicom_header import text_value
from groundglass.report.analysis import Analysis
from groundglass.report.sentence import report_sentence, state_uncertainty
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import Scan
from groundglass.strict_model import StrictModel

VIEW_FILES = ("scan.nii", "lesions.nii.gz", "lungs.nii.gz", "slices.json")


class ViewDescription(StrictModel):
    """What a viewer has to know about a view, beside the findings.

    Attributes:
        file_slice_of_view: For each slice of the view its number in the file, from 0.
        lesion_points: For each lesion of the findings a voxel (z, y, x) of the view inside it.
        in_mm: Whether lengths in the view are in mm; otherwise they are in pixels.
        has_directions: Whether it is known how the patient lies in the view.
        classes: What the values of the lesion mask stand for, from 1.
        description: Description of the DICOM series.
        repeatability: Coefficient of variation of a lesion volume over simulated repeats, of the model that was used.
        sentence: What was found, to be copied into a report; empty in views of earlier versions.
        uncertainty: How far the numbers can be trusted; empty where nothing is known, and in views of earlier versions.
        rules: Hash of what the results follow from in the model's card; empty in views of earlier versions.
    """

    file_slice_of_view: tuple[int, ...]
    lesion_points: tuple[tuple[int, int, int], ...]
    in_mm: bool
    has_directions: bool
    classes: tuple[str, ...]
    description: str | None
    repeatability: float | None
    sentence: str = ""
    uncertainty: str = ""
    rules: str = ""


def write_view(analysis: Analysis, folder: Path) -> None:
    """Write the files of a view.

    Raises:
        OutputError: They cannot be written.
    """
    segmented = analysis.segmented
    geometry = segmented.view.geometry
    hu = np.empty(segmented.hu.shape, dtype=np.int16)
    for target, slice_hu in zip(hu, segmented.hu, strict=True):
        target[...] = np.rint(slice_hu.clip(-32768, 32767))
    nifti.write_scan(Scan(hu, geometry), folder / "scan.nii")
    nifti.write_scan(Scan(np.asarray(segmented.class_map), geometry), folder / "lesions.nii.gz")
    sides = zip(segmented.lung_field.right, segmented.lung_field.left, strict=True)
    lungs = np.stack([right + 2 * (left & ~right).astype(np.uint8) for right, left in sides])
    nifti.write_scan(Scan(lungs, geometry), folder / "lungs.nii.gz")
    write_atomic(folder / "slices.json", describe_view(analysis).model_dump_json().encode())


def describe_view(analysis: Analysis) -> ViewDescription:
    """Describe the view of a segmented scan."""
    view, series = analysis.segmented.view, analysis.scan.series
    return ViewDescription(
        file_slice_of_view=tuple(view.slice_numbers.tolist()),
        lesion_points=tuple(_view_index(view, lesion.point_index) for lesion in analysis.findings.largest_lesions),
        in_mm=view.geometry.in_mm,
        has_directions=view.geometry.has_directions,
        classes=tuple(analysis.card.classes[1:]) or ("lesion",),
        description=(text_value(series.headers[0], "SeriesDescription") or None) if series else None,
        repeatability=analysis.card.repeatability,
        sentence=report_sentence(analysis.findings),
        uncertainty=state_uncertainty(analysis.findings, analysis.card),
        rules=analysis.card.rules,
    )


def _view_index(view: AxialView, file_index: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the index (z, y, x) in the view of a voxel of the file."""
    affine = view.geometry.affine_lps
    found = np.linalg.solve(affine[:3, :3], view.source.position(file_index) - affine[:3, 3])
    z, y, x = np.round(found).astype(int).tolist()
    return z, y, x
