"""Read a DICOM Segmentation as a mask on the grid of a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage

from groundglass.errors import FormatError
from groundglass.io.dicom_header import DICOM_ERRORS, items, number_values, silence_pydicom, text_value
from groundglass.io.limits import check_voxel_count
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan

_TOLERANCE = 0.1  # of a voxel, by which a frame may lie beside the grid


def read_segmentation(path: Path, geometry: Geometry) -> Scan:
    """Read the union of all segments of a binary DICOM Segmentation.

    Args:
        path: The file.
        geometry: The grid of the scan; each frame must lie on one of its slices.

    Returns:
        A mask on that grid: uint8, 0 or 1.

    Raises:
        FormatError: It is no Segmentation, is damaged, or was drawn on another grid.
    """
    name = "the mask"
    try:
        with silence_pydicom():
            dataset = dcmread(path)
            if text_value(dataset, "SOPClassUID") != SegmentationStorage:
                raise FormatError(f"{name} is no DICOM Segmentation, expected one, or a mask as NIfTI")
            rows, columns, count = (int(dataset[key].value) for key in ("Rows", "Columns", "NumberOfFrames"))
            check_voxel_count(name, (count, rows, columns))
            frames = np.asarray(dataset.pixel_array).reshape(count, rows, columns) > 0
            positions = [_position(dataset, frame) for frame in items(dataset, "PerFrameFunctionalGroupsSequence")]
    except DICOM_ERRORS:
        raise FormatError(f"{name} is damaged, expected a DICOM Segmentation: export it again") from None
    if frames.shape[1:] != geometry.shape[1:] or len(positions) != count:
        raise FormatError(
            f"{name} has {count} frames of {rows} x {columns}, the scan slices of {geometry.shape[1]} x "
            f"{geometry.shape[2]}: give the Segmentation of this series"
        )
    voxels = np.zeros(geometry.shape, dtype=np.uint8)
    for frame, position in zip(frames, positions, strict=True):
        voxels[_slice_at(position, geometry, name)] |= frame
    return Scan(voxels, geometry)


def _position(dataset: Dataset, frame: Dataset) -> NDArray[np.float64]:
    """Return (L, P, S) of a frame's first pixel, in mm."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    for groups in (frame, *shared):
        for plane in items(groups, "PlanePositionSequence"):
            position = number_values(plane, "ImagePositionPatient", 3)
            if position is not None:
                return position
    raise FormatError("the mask does not state where its frames lie, expected the Segmentation of this series")


def _slice_at(position: NDArray[np.float64], geometry: Geometry, name: str) -> int:
    """Return the slice whose first pixel lies at a position."""
    affine = geometry.affine_lps
    index = np.linalg.solve(affine[:3, :3], position - affine[:3, 3])
    nearest = np.round(index)
    z = int(nearest[0])
    if np.abs(index - nearest).max() > _TOLERANCE or nearest[1:].any() or not 0 <= z < geometry.shape[0]:
        raise FormatError(f"{name} lies on another grid than the scan: give the Segmentation of this series")
    return z
