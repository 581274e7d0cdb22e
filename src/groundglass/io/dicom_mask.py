"""Read a DICOM Segmentation as a mask on the grid of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import SegmentationStorage

from groundglass.errors import FormatError
from groundglass.io.dicom_files import file_opener, read_header
from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    DicomInstance,
    items,
    number_value,
    number_values,
    silence_pydicom,
    text_value,
    transfer_syntax,
)
from groundglass.io.dicom_legal import is_uid
from groundglass.io.dicom_pixels import DECODERS
from groundglass.io.limits import check_voxel_count
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan

# Of a voxel, by which a frame may lie off the grid: its first pixel, and those at the ends of its row and its column.
_TOLERANCES = np.array([[0.1], [0.5], [0.5]])
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


def read_segmentation(path: Path, scan: Scan) -> SegmentationMask:
    """Read a binary DICOM Segmentation: segments of known classes apart, and of all others their union.

    Where segments overlap, the one with the highest number holds.

    Args:
        path: The file.
        scan: The scan; each frame must lie on one of its slices.

    Raises:
        FormatError: It is no binary Segmentation, is damaged, or was drawn on another grid or another scan.
    """
    name, geometry = "the mask", scan.geometry
    try:
        with silence_pydicom():
            instance = read_header(path, file_opener(path), is_only_file=True)
            dataset = dcmread(instance.read_bytes(), force=True) if isinstance(instance, DicomInstance) else Dataset()
            if text_value(dataset, "SOPClassUID") != SegmentationStorage:
                raise FormatError(f"{name} is no DICOM Segmentation, expected one, or a mask as NIfTI")
            rows, columns, count = (int(dataset[key].value) for key in ("Rows", "Columns", "NumberOfFrames"))
            check_voxel_count(name, (count, rows, columns))
            if text_value(dataset, "SegmentationType") not in ("BINARY", ""):
                raise FormatError(f"{name} holds probabilities or labels, expected a binary Segmentation: export one")
            _check_frame_of_reference(name, dataset, scan)
            decoder = DECODERS[transfer_syntax(dataset)]
            frames = pixel_array(dataset, decoding_plugin=decoder).reshape(count, rows, columns) > 0
            groups = items(dataset, "PerFrameFunctionalGroupsSequence")
            corners = [_corners(dataset, frame, geometry) for frame in groups]
            names = _segment_classes(dataset)
            numbers = [_segment_number(dataset, frame) for frame in groups]
    except DICOM_ERRORS:
        raise FormatError(f"{name} is damaged, expected a DICOM Segmentation: export it again") from None
    if frames.shape[1:] != geometry.shape[1:] or len(corners) != count:
        raise FormatError(
            f"{name} has {count} frames of {rows} x {columns}, the scan slices of {geometry.shape[1]} x "
            f"{geometry.shape[2]}: give the Segmentation of this series"
        )
    voxels = np.zeros(geometry.shape, dtype=np.uint8)
    classes = tuple(dict.fromkeys(names.values())) if None not in names.values() else ()
    for frame, places, number in sorted(zip(frames, corners, numbers, strict=True), key=lambda each: each[2]):
        value = classes.index(names[number]) + 1 if number in names and classes else 1
        voxels[_slice_at(places, geometry, name)][frame] = value
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


def _check_frame_of_reference(name: str, dataset: Dataset, scan: Scan) -> None:
    """Refuse the Segmentation of another scan, which may have the same grid."""
    stated = text_value(dataset, "FrameOfReferenceUID")
    of_scan = {text_value(header, "FrameOfReferenceUID") for header in scan.series.headers} if scan.series else set()
    if len(of_scan) == 1 and all(map(is_uid, of_scan)) and is_uid(stated) and stated not in of_scan:
        raise FormatError(f"{name} was drawn on another scan, expected the Segmentation of this series")


def _corners(dataset: Dataset, frame: Dataset, geometry: Geometry) -> NDArray[np.float64]:
    """Return (3, 3) positions (L, P, S) in mm: of a frame's first pixel, and of the ends of its row and its column."""
    groups = (frame, *items(dataset, "SharedFunctionalGroupsSequence"))
    position = _stated(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
    if position is None:
        raise FormatError("the mask does not state where its frames lie, expected the Segmentation of this series")
    directions = _stated(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _stated(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
    steps = geometry.affine_lps[:3, 2:0:-1].T  # from column to column, and from row to row
    if directions is not None and spacing is not None:
        steps = directions.reshape(2, 3) * spacing[::-1, None]
    last = np.array([geometry.shape[2] - 1, geometry.shape[1] - 1])
    return np.vstack([position, position + steps * last[:, None]])


def _stated(groups: Sequence[Dataset], sequence: str, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return the numbers of the first of these functional groups that states them; None if none does."""
    found = (number_values(item, keyword, count) for group in groups for item in items(group, sequence))
    return next((numbers for numbers in found if numbers is not None), None)


def _slice_at(corners: NDArray[np.float64], geometry: Geometry, name: str) -> int:
    """Return the slice whose corners lie at these positions."""
    affine = geometry.affine_lps
    with np.errstate(over="ignore", invalid="ignore"):
        index = np.linalg.solve(affine[:3, :3], (corners - affine[:3, 3]).T).T
    z = round(float(index[0, 0])) if np.isfinite(index).all() else -1
    expected = [[z, 0, 0], [z, 0, geometry.shape[2] - 1], [z, geometry.shape[1] - 1, 0]]
    if not 0 <= z < geometry.shape[0] or (np.abs(index - expected) > _TOLERANCES).any():
        raise FormatError(f"{name} lies on another grid than the scan: give the Segmentation of this series")
    return z
