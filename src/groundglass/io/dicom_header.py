"""Read DICOM headers: instances, their slices, and attributes that may be missing or damaged."""

from __future__ import annotations

import copy
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from groundglass.errors import FormatError
from groundglass.plain_text import printable

ByteOpener = Callable[[], BinaryIO]

# Everything that pydicom and its decoders raise for damaged files.
DICOM_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError),
    *(struct.error, zlib.error, OverflowError, ArithmeticError, RecursionError, RuntimeError, AssertionError),
    *(InvalidDicomError, BytesLengthException),
)
_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
LONGEST_TEXT = 10_240  # characters, as of LT, the longest kind of text that is read; a file may state gigabytes
MAX_FRAMES = 20_000  # of an instance, as many as files of a scan
MOST_OFF = 0.1  # of the length 1 of directions; with more, they are none
MIN_AXIAL_COSINE = 0.8  # of the angle between a slice's normal and the body's axis: up to 37 degrees


@dataclass(frozen=True, eq=False)
class DicomInstance:
    """A DICOM file, of which the header is in memory.

    Attributes:
        open: Opens the file's bytes.
        header: The data set without the pixels.
    """

    open: ByteOpener
    header: Dataset

    def read_bytes(self) -> BinaryIO:
        """Return the whole file as a stream in memory, from which the pixels can be decoded."""
        with self.open() as stream:
            return io.BytesIO(stream.read())


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """A slice: a single-frame instance, or a frame of a multi-frame one.

    Attributes:
        instance: The instance that holds the slice's pixels.
        frame: Index of its frame in a multi-frame instance, from 0; None for a single-frame one.
        position_mm: (3,) LPS, the centre of the first pixel; None if it is not stated.
        directions: (2, 3) unit vectors along a row and along a column; None if they are not stated.
        spacing_mm: Distance between rows and between columns; None if it is not stated.
        slope: Slope of the rescale to HU; 1 if it is not stated.
        intercept: Intercept of the rescale to HU; 0 if it is not stated.
        states_rescale: Whether both are stated.
    """

    instance: DicomInstance
    frame: int | None
    position_mm: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float
    states_rescale: bool

    @property
    def header(self) -> Dataset:
        """Header of the instance."""
        return self.instance.header

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def is_axial(self) -> bool:
        """Whether the slice lies across the body; True if its orientation is not stated."""
        return self.directions is None or abs(normal_of(self.directions)[2]) > MIN_AXIAL_COSINE


@contextmanager
def silence_pydicom() -> Iterator[None]:
    """Keep pydicom's own warnings and log lines, which may quote a header, from the terminal."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def text_value(header: Dataset, keyword: str) -> str:
    """Return an attribute as printable text on one line, cut to `LONGEST_TEXT`; empty if it is missing or damaged."""
    try:
        value = header.get(keyword)
    except DICOM_ERRORS:
        return ""
    return printable(str(value if value is not None else "")[:LONGEST_TEXT]).strip()


def modality_of(header: Dataset) -> str:
    """Return the modality in capitals; where none is stated, CT if the class of the image says so; else empty."""
    stated = text_values(header, "Modality")[0]
    sop_class = text_value(header, "SOPClassUID") or text_value(header.file_meta, "MediaStorageSOPClassUID")
    return stated or ("CT" if sop_class in _CT_CLASSES else "")


def text_values(header: Dataset, keyword: str) -> list[str]:
    """Return the values of a text attribute of several, in capitals."""
    return [value.strip(" '[]").upper() for value in text_value(header, keyword).split(",")]


def number_value(header: Dataset, keyword: str) -> float | None:
    """Return an attribute as a finite number; None if it is missing or damaged."""
    values = number_values(header, keyword, 1)
    return None if values is None else float(values[0])


def number_values(header: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return (count,) an attribute of several finite numbers, with decimal commas too; None if missing or damaged.

    A decimal that is repeated where one is expected counts once; of integers, such as Rows, others expect one alone.
    """
    try:
        stated = _parts(header.get(keyword))
        values = [float(v.replace(",", ".") if isinstance(v, str) else v) for v in stated]
    except DICOM_ERRORS:
        return None
    if count == 1 and len(set(values)) == 1 and not isinstance(stated[0], int):
        values = values[:1]
    return np.array(values) if len(values) == count and all(map(math.isfinite, values)) else None


def has_decimal_comma(header: Dataset, keyword: str) -> bool:
    """Return whether an attribute of numbers is written with commas, which pydicom leaves as text."""
    try:
        return any(isinstance(part, str) and "," in part for part in _parts(header.get(keyword)))
    except DICOM_ERRORS:
        return False


def _parts(value: Any) -> list[Any]:
    """Return the values of an attribute of one or several, also under a value representation of text, which has one."""
    if isinstance(value, str):
        return value.split("\\")
    return list(value) if isinstance(value, list | MultiValue) else [value]


def shallow_copy(header: Dataset) -> Dataset:
    """Copy a header; attributes of the copy can be set anew without changing the header."""
    elements = header.items()  # as they are: setting one after the other takes six times as long
    copied = Dataset({tag: copy.copy(one) if isinstance(one, DataElement) else one for tag, one in elements})
    is_implicit, is_little_endian = header.original_encoding
    copied.set_original_encoding(is_implicit, is_little_endian, header.original_character_set)
    return copied


def transfer_syntax(header: Dataset) -> UID:
    """Return the transfer syntax that a file states; without a statement, the plain one that its encoding shows."""
    stated = text_value(header.file_meta, "TransferSyntaxUID")
    is_big_endian = header.original_encoding[1] is False
    return UID(stated or (ExplicitVRBigEndian if is_big_endian else ImplicitVRLittleEndian))


def slices_of(instance: DicomInstance) -> list[DicomSlice]:
    """List the slices of an instance, one for each frame; empty if it holds no image.

    Raises:
        FormatError: It holds more than `MAX_FRAMES`.
    """
    header = instance.header
    if not number_value(header, "Rows") or not number_value(header, "Columns"):
        return []
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [_slice(instance, None, [header], [header], [header])]
    count = len(header.PerFrameFunctionalGroupsSequence)
    if count > MAX_FRAMES:
        raise FormatError(f"a file holds {count:,} frames, expected at most {MAX_FRAMES:,}: give one scan alone")
    shared = items(header, "SharedFunctionalGroupsSequence")
    slices = []
    for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):

        def stating(sequence: str, frame: Dataset = frame) -> list[Dataset]:
            return [item for groups in (frame, *shared) for item in items(groups, sequence)]

        places = [*stating("PlanePositionSequence"), *stating("PlaneOrientationSequence")]
        places.append(attribute_alone(header, "ImageOrientationPatient"))
        measures = [*stating("PixelMeasuresSequence"), header]
        rescales = [*stating("PixelValueTransformationSequence"), header]
        slices.append(_slice(instance, index, places, measures, rescales))
    return slices


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none if it is missing or damaged."""
    try:
        return list(header.get(keyword) or ())
    except DICOM_ERRORS:
        return []


def stating_groups(header: Dataset, *sequences: str, frame: int = 0) -> list[Dataset]:
    """Return the data sets that may state an attribute of functional groups, the one that counts first.

    Of multi-frame images these are the frame's own group, those that all share, and the header; of others the header.
    """
    try:
        own = (header.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1]  # `items` would list all frames
    except DICOM_ERRORS:
        own = ()
    groups = (*own, *items(header, "SharedFunctionalGroupsSequence"))
    return [*(item for group in groups for sequence in sequences for item in items(group, sequence)), header]


def kernel_of(header: Dataset, frame: int = 0) -> str:
    """Return the convolution kernel, of several values as `I70f 3`; empty if it is not stated."""
    return next(filter(None, map(_kernel_in, stating_groups(header, "CTReconstructionSequence", frame=frame))), "")


def _kernel_in(data: Dataset) -> str:
    try:
        parts = [str(part) for part in _parts(data.get("ConvolutionKernel")) if part is not None]
    except DICOM_ERRORS:
        return ""
    return printable(" ".join(parts)[:LONGEST_TEXT]).strip()


def thickness_of(header: Dataset, frame: int = 0) -> float | None:
    """Return the thickness of slices in mm as it is stated; None if it is not."""
    stated = _first_numbers(stating_groups(header, "PixelMeasuresSequence", frame=frame), "SliceThickness", 1)
    return None if stated is None else float(stated[0])


def normal_of(directions: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the cross product of (2, 3) two vectors, in a tenth of NumPy's time."""
    (a, b, c), (d, e, f) = directions.tolist()
    return b * f - c * e, c * d - a * f, a * e - b * d


def directions_of(axes: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return (2, 3) the directions of rows and columns from (6,) numbers; None for none, or if they are no cosines."""
    if axes is None or not any(normal_of(axes.reshape(2, 3))):
        return None
    a, b, c, d, e, f = axes.tolist()
    is_unit = all(abs(length - 1) < MOST_OFF for length in (math.hypot(a, b, c), math.hypot(d, e, f)))
    return axes.reshape(2, 3) if is_unit else None


def attribute_alone(header: Dataset, keyword: str) -> Dataset:
    """Return a data set of this attribute, which some programs leave outside the groups of frames; empty without it."""
    found = Dataset()
    if keyword in header:
        found[keyword] = header[keyword]
    return found


def _first_numbers(sources: Sequence[Dataset], keyword: str, count: int) -> NDArray[np.float64] | None:
    """Return (count,) the numbers of the first data set that states them; None if none does."""
    stated = (number_values(source, keyword, count) for source in sources)
    return next((values for values in stated if values is not None), None)


def _slice(
    instance: DicomInstance,
    frame: int | None,
    places: Sequence[Dataset],
    measures: Sequence[Dataset],
    rescales: Sequence[Dataset],
) -> DicomSlice:
    """Build a slice from the data sets that may state its place, its pixel spacing and its rescale.

    Of several that state an attribute, the first counts: what a frame states of a group comes before what all share.
    """
    axes = _first_numbers(places, "ImageOrientationPatient", 6)
    spacing = _first_numbers(measures, "PixelSpacing", 2)
    slope, intercept = (_first_numbers(rescales, keyword, 1) for keyword in ("RescaleSlope", "RescaleIntercept"))
    return DicomSlice(
        instance=instance,
        frame=frame,
        position_mm=_first_numbers(places, "ImagePositionPatient", 3),
        directions=directions_of(axes),
        spacing_mm=None if spacing is None or spacing.min() <= 0 else (float(spacing[0]), float(spacing[1])),
        slope=1.0 if slope is None else float(slope[0]),
        intercept=0.0 if intercept is None else float(intercept[0]),
        states_rescale=slope is not None and intercept is not None,
    )
