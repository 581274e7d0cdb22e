"""DICOM in a file, a folder or a ZIP archive: what series there are, and which one is the chest CT.

The rule: CT, axial, most slices, a lung kernel before a soft one; the lowest series number where that is equal.
Localizers, secondary captures and what holds no image are no candidates.
"""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from groundglass.errors import FormatError
from groundglass.io.limits import open_bounded, shown
from groundglass.io.zip_file import members

Opener = Callable[[], BinaryIO]

MAX_FILES = 20_000
MAX_INFLATED = 1 << 29  # bytes of a deflated data set
BARE_STARTS = (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")  # without a preamble, as of old
_META = 144  # bytes up to the end of the file meta group's length (PS3.10 7.1)
AXIAL = 0.8  # cosine of the angle between a slice's normal and the body's axis: up to 37 degrees
_LUNG_KERNEL = re.compile(r"lung|bone|edge|sharp|^(b[5-9]\d|bl\d|br[5-9]\d|i[5-9]\d|fc[58]\d|l|yc|yd|e)", re.IGNORECASE)
DAMAGED = "damaged DICOM file"
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError),
    *(struct.error, zlib.error, OverflowError, ArithmeticError, RecursionError, RuntimeError, AssertionError),
    *(InvalidDicomError, BytesLengthException),
)


class NoDicomError(FormatError):
    """There is no DICOM image in what was named."""


@dataclass(frozen=True, eq=False)
class Instance:
    """A DICOM file: where it is, and all of it but the pixels."""

    open: Opener
    header: Dataset


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """A slice: an instance, or a frame of one.

    Attributes:
        instance: Where its pixels are.
        frame: Of a multi-frame instance, from 0; None otherwise.
        position_mm: (3,) LPS, of the centre of its first pixel; None: not stated.
        directions: (2, 3) unit vectors along a row, and along a column; None: not stated.
        spacing_mm: Between rows, and between columns; None: not stated.
        slope: Of the rescale to HU.
        intercept: Of the rescale to HU.
    """

    instance: Instance
    frame: int | None
    position_mm: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float

    @property
    def header(self) -> Dataset:
        """Of its instance."""
        return self.instance.header

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def is_axial(self) -> bool:
        """Whether it lies across the body; not known is taken for it."""
        return self.directions is None or abs(np.cross(*self.directions)[2]) > AXIAL


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one series that go together: one orientation, one matrix.

    Attributes:
        uid: Of the series.
        planes: As they were found.
        left_out: {why: how many} images of the series that are none of these.
    """

    uid: str
    slices: tuple[DicomSlice, ...]
    left_out: dict[str, int]

    @property
    def header(self) -> Dataset:
        """Of its first instance."""
        return self.slices[0].header

    @property
    def modality(self) -> str:
        """As stated: `CT`, `MR`, ...; empty where it is not."""
        return text(self.header, "Modality")

    @property
    def kernel(self) -> str:
        """Of the reconstruction; empty where it is not stated."""
        return text(self.header, "ConvolutionKernel")

    @property
    def is_axial(self) -> bool:
        """Whether its slices lie across the body."""
        return self.slices[0].is_axial

    @property
    def rejection_reason(self) -> str | None:
        """Why it is no candidate; None: it is one."""
        if "LOCALIZER" in words(self.header, "ImageType"):
            return "localizer"
        if text(self.header, "SOPClassUID").startswith(_SECONDARY):
            return "secondary capture"
        if self.modality != "CT":
            return f"modality {self.modality or 'not stated'}"
        return None

    @property
    def can_be_forced(self) -> bool:
        """Whether nothing but its modality speaks against it."""
        return (self.rejection_reason or "").startswith("modality")

    @property
    def rank(self) -> tuple[bool, bool, int, bool, float]:
        """Higher is chosen first."""
        order = -(number(self.header, "SeriesNumber") or 0)
        return (
            self.rejection_reason is None,
            self.is_axial,
            len(self.slices),
            bool(_LUNG_KERNEL.search(self.kernel)),
            order,
        )

    @property
    def line(self) -> str:
        """In a few words: the UID's end, slices, kernel, and why it is no candidate."""
        what = [f"{len(self.slices)} slice{'s' if len(self.slices) > 1 else ''}"]
        what += [f"kernel {self.kernel}"] if self.kernel else []
        what += [] if self.is_axial else ["not axial"]
        what += [self.rejection_reason] if self.rejection_reason else []
        return f"{self.uid}: {', '.join(what)}"


@dataclass(frozen=True, eq=False)
class SeriesListing:
    """What a path holds: its image series, best first, and {what else: how many files}."""

    series: tuple[Series, ...]
    others: dict[str, int]


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


def text(header: Dataset, name: str) -> str:
    """A value as printable text on one line; empty where it is missing or damaged."""
    try:
        value = header.get(name)
    except DAMAGE:
        return ""
    return "".join(c if c.isprintable() else "?" for c in str(value if value is not None else "")).strip()


def number(header: Dataset, name: str) -> float | None:
    """A finite number; None where it is missing or damaged."""
    values = _numbers(header, name, 1)
    return None if values is None else float(values[0])


def words(header: Dataset, name: str) -> list[str]:
    """The values of a text of several, in capitals."""
    return [word.strip(" '[]").upper() for word in text(header, name).split(",")]


@contextmanager
def find_series(path: Path) -> Iterator[SeriesListing]:
    """Look through a DICOM file, a folder (deep, other files among them) or a ZIP archive; headers only.

    Use it, and what it gives, inside `silence_pydicom`.

    Raises:
        NoDicomError: There is no DICOM image in it.
        FormatError: The one file is damaged, or the archive.
    """
    if path.is_dir():
        yield _found(path, [_file_opener(file) for file in _files(path)])
    elif _starts(path, b"PK"):
        with members(path) as inside:
            yield _found(path, [member.open for member in inside])
    else:
        yield _found(path, [_file_opener(path)])


def _file_opener(path: Path) -> Opener:
    return lambda: open_bounded(path)


def _starts(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _files(folder: Path) -> list[Path]:
    """Every regular file below a folder, hidden ones left out, links to folders not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [file for name in sorted(names) if not name.startswith(".") and (file := Path(place, name)).is_file()]
        if len(found) > MAX_FILES:
            raise FormatError(f"{shown(folder)} holds more than {MAX_FILES:,} files: name the folder of one scan")
    return found


def _found(path: Path, openers: list[Opener]) -> SeriesListing:
    groups: dict[str, list[DicomSlice]] = {}
    others: dict[str, int] = {}
    alone = len(openers) == 1 and not path.is_dir()
    for opener in openers:
        instance = _read_header(path, opener, alone)
        if isinstance(instance, str):
            others[instance] = others.get(instance, 0) + 1
            continue
        uid = text(instance.header, "SeriesInstanceUID") or "no UID"
        try:
            slices = _planes(instance)
        except DAMAGE:
            slices = []
        groups.setdefault(uid, []).extend(slices)
        if not slices:
            what = "DICOM without an image" if text(instance.header, "SOPClassUID") else DAMAGED
            others[what] = others.get(what, 0) + 1
    series = [_together(uid, slices) for uid, slices in groups.items() if slices]
    if not series:
        held = ", ".join(f"{n} {what}" for what, n in others.items()) or "nothing"
        raise NoDicomError(f"{shown(path)} holds no DICOM image but {held}: give the folder of the CT series")
    return SeriesListing(tuple(sorted(series, key=lambda each: each.rank, reverse=True)), others)


def _read_header(path: Path, opener: Opener, alone: bool) -> Instance | str:
    """The instance, or what else the file is; a damaged one that was named by itself is refused."""
    try:
        with opener() as stream:
            head = stream.read(1024)
            has_preamble = head[128:132] == b"DICM"
            if not has_preamble and head[:4] not in BARE_STARTS:
                return "other file"
            if DeflatedExplicitVRLittleEndian.encode() in head:
                _check_inflated(path, head, stream)
            stream.seek(0)
            header = dcmread(stream, stop_before_pixels=True, force=not has_preamble)
        if text(header, "SOPClassUID") == MediaStorageDirectoryStorage:
            return "DICOMDIR"
        return Instance(opener, header)
    except FormatError:
        raise
    except DAMAGE as error:
        if alone:
            raise FormatError(f"{shown(path)} is damaged or cut short, expected whole DICOM: send it again") from error
        return DAMAGED


def _check_inflated(path: Path, head: bytes, stream: BinaryIO) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that unpacks to more than a slice can be, before it is unpacked."""
    stream.seek(_META + int.from_bytes(head[_META - 4 : _META], "little"))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), MAX_INFLATED + 1)
    if len(inflated) > MAX_INFLATED:
        raise FormatError(f"{shown(path)} unpacks to more than {MAX_INFLATED:,} bytes: this is no CT slice")


def _planes(instance: Instance) -> list[DicomSlice]:
    """The slices of an instance; none where it holds no image."""
    header = instance.header
    if not number(header, "Rows") or not number(header, "Columns"):
        return []
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [_plane(instance, None, header, header, header)]
    shared = _first(header, "SharedFunctionalGroupsSequence")
    slices = []
    for place, frame in enumerate(header.PerFrameFunctionalGroupsSequence):

        def group(name: str, frame: Dataset = frame) -> Dataset:
            return _first(frame, name) if frame.get(name) else _first(shared, name)

        position = Dataset()
        position.update(group("PlanePositionSequence"))
        position.update(group("PlaneOrientationSequence"))
        slices.append(
            _plane(instance, place, position, group("PixelMeasuresSequence"), group("PixelValueTransformationSequence"))
        )
    return slices


def _first(header: Dataset, name: str) -> Dataset:
    items = header.get(name)
    return items[0] if items else Dataset()


def _plane(instance: Instance, frame: int | None, where: Dataset, measures: Dataset, rescale: Dataset) -> DicomSlice:
    position = _numbers(where, "ImagePositionPatient", 3)
    axes = _numbers(where, "ImageOrientationPatient", 6)
    spacing = _numbers(measures, "PixelSpacing", 2)
    slope, intercept = (_numbers(rescale, name, 1) for name in ("RescaleSlope", "RescaleIntercept"))
    return DicomSlice(
        instance=instance,
        frame=frame,
        position_mm=position,
        directions=None if axes is None else axes.reshape(2, 3),
        spacing_mm=None if spacing is None or spacing.min() <= 0 else (float(spacing[0]), float(spacing[1])),
        slope=1.0 if slope is None else float(slope[0]),
        intercept=0.0 if intercept is None else float(intercept[0]),
    )


def _numbers(header: Dataset, name: str, count: int) -> NDArray[np.float64] | None:
    """Finite numbers, as many as there have to be; None where they are not."""
    try:
        values = np.array(header.get(name), dtype=np.float64).reshape(-1)
    except DAMAGE:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _together(uid: str, slices: list[DicomSlice]) -> Series:
    """The largest part of a series that has one orientation and one matrix; axial and no localizer before others."""
    parts: dict[tuple[object, ...], list[DicomSlice]] = {}
    for dicom_slice in slices:
        axes = None if dicom_slice.directions is None else tuple(np.round(dicom_slice.directions, 2).ravel() + 0.0)
        localizer = "LOCALIZER" in words(dicom_slice.header, "ImageType")
        parts.setdefault((localizer, axes, *dicom_slice.size), []).append(dicom_slice)
    best = max(parts, key=lambda key: (not key[0], parts[key][0].is_axial, len(parts[key])))
    counts: dict[str, int] = {}
    for key, part in parts.items():
        if key != best:
            other = "orientation" if key[1] != best[1] else "size"
            why = "localizer" if key[0] else f"image of another {other}"
            counts[why] = counts.get(why, 0) + len(part)
    return Series(uid, tuple(parts[best]), counts)


def syntax(header: Dataset) -> UID:
    """The transfer syntax that a file states; Implicit VR Little Endian where there is no file meta header."""
    return UID(text(header.file_meta, "TransferSyntaxUID") or "1.2.840.10008.1.2")


def content(instance: Instance) -> BinaryIO:
    """The whole file in memory: a stream that pixels can be decoded from."""
    with instance.open() as stream:
        return io.BytesIO(stream.read())
