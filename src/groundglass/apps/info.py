"""Describe an input before it is segmented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from groundglass.apps.foretelling import MORE_SLICES, SAMPLED_SLICES, foretell
from groundglass.apps.input_info import InputInfo, describe_grid
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.other_files import NoDicomError
from groundglass.io.reader import file_kind, note_on_pictures, read_scan
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import ImageStack, Scan


def describe_input(path: Path, dicom: DicomOptions | None = None) -> InputInfo:
    """Describe an input without segmenting it. Of DICOM, the headers are read and the pixels of a few slices.

    Args:
        path: As for `read_scan`.
        dicom: What is asked for where the input is DICOM; with identity, the series' descriptions are included.

    Raises:
        InputError: The input cannot be read at all, or has no series of that number or UID.
    """
    kind, dicom = file_kind(path), dicom or DicomOptions()
    if kind in ("folder", "DICOM", "ZIP"):
        from groundglass.apps.dicom_info import describe_dicom  # here: pydicom takes longer than describing a file

        try:
            described = describe_dicom(path, kind, dicom)
            notes = note_on_pictures(path) if kind == "folder" else ()
            return described.model_copy(update={"notes": (*described.notes, *notes)})
        except NoDicomError:
            if kind != "folder":
                raise
    scan = read_scan(path)
    told = foretell(_some_slices(scan, SAMPLED_SLICES), scan)
    if told.is_doubtful:
        told = foretell(_some_slices(scan, MORE_SLICES), scan)
    name = "folder of pictures" if kind == "folder" else kind
    return InputInfo(format=name, notes=(*scan.notes, *told.warnings), **describe_grid(scan.geometry) | told.fields)


def _some_slices(scan: Scan, count: int) -> Scan:
    """Return some axial slices of a scan: all of an image stack, at most `count` of a volume."""
    view = AxialView(scan.geometry)
    values, geometry = view.to_axial(scan.values), view.geometry
    if isinstance(scan, ImageStack) or len(values) <= count:
        return scan
    chosen = np.linspace(0, len(values) - 1, count).astype(int)
    affine_lps = geometry.affine_lps.copy()
    affine_lps[:, 0] *= (len(values) - 1) / (count - 1)
    grid = replace(geometry, shape=(count, *geometry.shape[1:]), affine_lps=affine_lps)
    return replace(scan, values=values[chosen], geometry=grid)
