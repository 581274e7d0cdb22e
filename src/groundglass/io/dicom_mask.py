"""Read a DICOM Segmentation as a mask on the grid of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage

from groundglass.errors import FormatError
from groundglass.io.dicom_header import DICOM_ERRORS, items, number_value, number_values, silence_pydicom, text_value
from groundglass.io.limits import check_voxel_count
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan

_TOLERANCE = 0.1  # of a voxel, by which a frame may lie beside the grid
_CLASS_WORDS = {"ground-glass": ("ground", "ggo"), "consolidation": ("consolidation",), "effusion": ("effusion",)}


@dataclass(frozen=True)
class SegmentationMask:
    """What a DICOM Segmentation marks.

    Attributes:
        mask: uint8 on the grid of the scan: 0, 1, or with classes the number of the class, from 1.
        classes: The classes by number, such as `ground-glass`; empty if the segments are not all of known classes.
    """

    mask: Scan
    classes: tuple[str, ...]


def read_segmentation(path: Path, geometry: Geometry) -> SegmentationMask:
    """Read a binary DICOM Segmentation: segments of known classes apart, and of all others their union.

    Where segments overlap, the one with the highest number holds.

    Args:
        path: The file.
        geometry: The grid of the scan; each frame must lie on one of its slices.

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
            groups = items(dataset, "PerFrameFunctionalGroupsSequence")
            positions = [_position(dataset, frame) for frame in groups]
            names = _segment_classes(dataset)
            numbers = [_segment_number(dataset, frame) for frame in groups]
    except DICOM_ERRORS:
        raise FormatError(f"{name} is damaged, expected a DICOM Segmentation: export it again") from None
    if frames.shape[1:] != geometry.shape[1:] or len(positions) != count:
        raise FormatError(
            f"{name} has {count} frames of {rows} x {columns}, the scan slices of {geometry.shape[1]} x "
            f"{geometry.shape[2]}: give the Segmentation of this series"
        )
    voxels = np.zeros(geometry.shape, dtype=np.uint8)
    classes = tuple(dict.fromkeys(names.values())) if None not in names.values() else ()
    for frame, position, number in sorted(zip(frames, positions, numbers, strict=True), key=lambda each: each[2]):
        value = classes.index(names[number]) + 1 if number in names and classes else 1
        voxels[_slice_at(position, geometry, name)][frame] = value
    return SegmentationMask(Scan(voxels, geometry), tuple(filter(None, classes)))


def _segment_classes(dataset: Dataset) -> dict[int, str | None]:
    """Return {number of a segment: its class}, None for one that is none of the known classes."""
    found: dict[int, str | None] = {}
    for segment in items(dataset, "SegmentSequence"):
        meanings = [text_value(code, "CodeMeaning") for code in items(segment, "SegmentedPropertyTypeCodeSequence")]
        words = " ".join((text_value(segment, "SegmentLabel"), *meanings)).lower()
        known = (name for name, marks in _CLASS_WORDS.items() if any(mark in words for mark in marks))
        found[int(number_value(segment, "SegmentNumber") or 0)] = next(known, None)
    return found


def _segment_number(dataset: Dataset, frame: Dataset) -> int:
    """Return the number of the segment that a frame belongs to."""
    for groups in (frame, *items(dataset, "SharedFunctionalGroupsSequence")):
        for identification in items(groups, "SegmentIdentificationSequence"):
            number = number_value(identification, "ReferencedSegmentNumber")
            if number is not None:
                return int(number)
    return 1


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
