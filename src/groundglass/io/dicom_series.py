"""Find the image series of a DICOM file, a folder or a ZIP archive, and choose the chest CT among them.

CT is preferred, then axial slices, then more slices, then a lung kernel over a soft one, then the lowest series number.
Localizers and secondary captures are never chosen.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from groundglass.errors import FormatError
from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    ByteOpener,
    DicomInstance,
    DicomSlice,
    number_value,
    slices_of,
    text_value,
    text_values,
)
from groundglass.io.limits import open_bounded, shown
from groundglass.io.zip_file import open_zip

MAX_FILES = 20_000
MAX_INFLATED = 1 << 29  # bytes of a deflated data set
BARE_STARTS = (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")  # of old files without a preamble
DAMAGED_FILE = "damaged DICOM file"
_META_START = 144  # bytes up to the end of the file meta group's length (PS3.10 7.1)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Kernels by name, and by the codes of Siemens (B50 and up, Bl, Br5, I5), Canon (FC5x, FC8x) and Philips (L, YC, YD, E).
_LUNG_KERNEL = re.compile(r"lung|bone|edge|sharp|^(b[5-9]\d|bl\d|br[5-9]\d|i[5-9]\d|fc[58]\d|l|yc|yd|e)", re.IGNORECASE)


class NoDicomError(FormatError):
    """There is no DICOM image in the input."""


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """The slices of one series that belong together: those of one orientation and one matrix.

    Attributes:
        uid: Series Instance UID.
        slices: The slices in the order in which they were found.
        left_out: {reason: number} of images of the series that are left out.
    """

    uid: str
    slices: tuple[DicomSlice, ...]
    left_out: dict[str, int]

    @property
    def header(self) -> Dataset:
        """Header of the first slice's instance."""
        return self.slices[0].header

    @property
    def modality(self) -> str:
        """Modality as stated: `CT`, `MR`, ...; empty if it is not."""
        return text_value(self.header, "Modality")

    @property
    def kernel(self) -> str:
        """Convolution kernel of the reconstruction; empty if it is not stated."""
        return text_value(self.header, "ConvolutionKernel")

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie across the body."""
        return self.slices[0].is_axial

    @property
    def rejection_reason(self) -> str | None:
        """Reason why the series is not chosen by itself; None if it may be."""
        if "LOCALIZER" in text_values(self.header, "ImageType"):
            return "localizer"
        if text_value(self.header, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
            return "secondary capture"
        if self.modality != "CT":
            return f"modality {self.modality or 'not stated'}"
        return None

    @property
    def can_be_forced(self) -> bool:
        """Whether its modality is the only reason for its rejection."""
        return (self.rejection_reason or "").startswith("modality")

    @property
    def rank(self) -> tuple[bool, bool, int, bool, float]:
        """Sort key: the series of the highest rank is chosen (see the module's description)."""
        is_ct = self.rejection_reason is None
        has_lung_kernel = _LUNG_KERNEL.search(self.kernel) is not None
        series_number = number_value(self.header, "SeriesNumber") or 0
        return is_ct, self.is_axial, len(self.slices), has_lung_kernel, -series_number

    @property
    def line(self) -> str:
        """Description on one line: UID, number of slices, kernel, and the reason if it is not chosen by itself."""
        facts = [f"{len(self.slices)} slice{'s' if len(self.slices) > 1 else ''}"]
        facts += [f"kernel {self.kernel}"] if self.kernel else []
        facts += [] if self.is_axial else ["not axial"]
        facts += [self.rejection_reason] if self.rejection_reason else []
        return f"{self.uid}: {', '.join(facts)}"


@dataclass(frozen=True, eq=False)
class SeriesListing:
    """The contents of a path.

    Attributes:
        series: The image series, those of higher rank first.
        others: {kind: number} of other files.
    """

    series: tuple[ImageSeries, ...]
    others: dict[str, int]


@contextmanager
def find_series(path: Path) -> Iterator[SeriesListing]:
    """Find the series of a DICOM file, a folder (with all folders below it) or a ZIP archive by their headers.

    Pixels can be read while the context is open. Use it inside `silence_pydicom`.

    Raises:
        NoDicomError: There is no DICOM image.
        FormatError: The archive, or the only file, is damaged.
    """
    if path.is_dir():
        yield _list_series(path, [_file_opener(file) for file in _files_below(path)])
    elif _starts_with(path, b"PK"):
        with open_zip(path) as members:
            yield _list_series(path, [member.open for member in members])
    else:
        yield _list_series(path, [_file_opener(path)])


def _file_opener(path: Path) -> ByteOpener:
    return lambda: open_bounded(path)


def _starts_with(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature


def _files_below(folder: Path) -> list[Path]:
    """List every regular file below a folder, without hidden ones; links to folders are not followed."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        found += [file for file in files if file.is_file()]
        if len(found) > MAX_FILES:
            raise FormatError(f"{shown(folder)} holds more than {MAX_FILES:,} files: name the folder of one scan")
    return found


def _list_series(path: Path, openers: list[ByteOpener]) -> SeriesListing:
    slices_by_uid: dict[str, list[DicomSlice]] = {}
    others: dict[str, int] = {}
    is_only_file = len(openers) == 1 and not path.is_dir()
    for opener in openers:
        instance = _read_header(path, opener, is_only_file)
        if isinstance(instance, str):
            others[instance] = others.get(instance, 0) + 1
            continue
        uid = text_value(instance.header, "SeriesInstanceUID") or "no UID"
        try:
            slices = slices_of(instance)
        except DICOM_ERRORS:
            slices = []
        slices_by_uid.setdefault(uid, []).extend(slices)
        if not slices:
            kind = "DICOM without an image" if text_value(instance.header, "SOPClassUID") else DAMAGED_FILE
            others[kind] = others.get(kind, 0) + 1
    series = [_largest_group(uid, slices) for uid, slices in slices_by_uid.items() if slices]
    if not series:
        contents = ", ".join(f"{n} {kind}" for kind, n in others.items()) or "nothing"
        raise NoDicomError(f"{shown(path)} holds no DICOM image but {contents}: give the folder of the CT series")
    return SeriesListing(tuple(sorted(series, key=lambda found: found.rank, reverse=True)), others)


def _read_header(path: Path, opener: ByteOpener, is_only_file: bool) -> DicomInstance | str:
    """Read a file's header.

    Returns:
        The instance, or for other files their kind.

    Raises:
        FormatError: The file is damaged and the only one, or it unpacks to more than a slice can be.
    """
    try:
        with opener() as stream:
            head = stream.read(1024)
            has_preamble = head[128:132] == b"DICM"
            if not has_preamble and head[:4] not in BARE_STARTS:
                return "other file"
            if DeflatedExplicitVRLittleEndian.encode() in head:
                _check_inflated_size(path, head, stream)
            stream.seek(0)
            header = dcmread(stream, stop_before_pixels=True, force=not has_preamble)
        if text_value(header, "SOPClassUID") == MediaStorageDirectoryStorage:
            return "DICOMDIR"
        return DicomInstance(opener, header)
    except FormatError:
        raise
    except DICOM_ERRORS as error:
        if is_only_file:
            raise FormatError(f"{shown(path)} is damaged or cut short, expected whole DICOM: send it again") from error
        return DAMAGED_FILE


def _check_inflated_size(path: Path, head: bytes, stream: BinaryIO) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that is larger than a slice can be, before pydicom unpacks it."""
    stream.seek(_META_START + int.from_bytes(head[_META_START - 4 : _META_START], "little"))
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), MAX_INFLATED + 1)
    if len(inflated) > MAX_INFLATED:
        raise FormatError(f"{shown(path)} unpacks to more than {MAX_INFLATED:,} bytes: this is no CT slice")


def _largest_group(uid: str, slices: list[DicomSlice]) -> ImageSeries:
    """Return the largest group of slices of one orientation and matrix; of axial ones, if there are any."""
    groups: dict[tuple[object, ...], list[DicomSlice]] = {}
    for dicom_slice in slices:
        axes = None if dicom_slice.directions is None else tuple(np.round(dicom_slice.directions, 2).ravel() + 0.0)
        is_localizer = "LOCALIZER" in text_values(dicom_slice.header, "ImageType")
        groups.setdefault((is_localizer, axes, *dicom_slice.size), []).append(dicom_slice)
    largest = max(groups, key=lambda key: (not key[0], groups[key][0].is_axial, len(groups[key])))
    left_out: dict[str, int] = {}
    for key, group in groups.items():
        if key != largest:
            difference = "orientation" if key[1] != largest[1] else "size"
            reason = "localizer" if key[0] else f"image of another {difference}"
            left_out[reason] = left_out.get(reason, 0) + len(group)
    return ImageSeries(uid, tuple(groups[largest]), left_out)
