"""Find the image series of a DICOM file, a folder or a ZIP archive, and choose the chest CT among them.

CT is preferred, then axial slices, then what no header says to be another part of the body, then images that are not
derived from others, then more slices, then a lung kernel over a soft one, then the lowest series number. Localizers,
secondary captures, colour pictures, projections and maps are never chosen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from pydicom import Dataset
from pydicom.uid import UID

from groundglass.io.decoding import start_decoder
from groundglass.io.dicom_directory import count_absent, images_listed, is_directory
from groundglass.io.dicom_files import file_opener, files_below, read_header, starts_with
from groundglass.io.dicom_grid import count_places, distance_between, is_same_orientation
from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    ByteOpener,
    DicomSlice,
    kernel_of,
    modality_of,
    number_value,
    slices_of,
    text_value,
    transfer_syntax,
)
from groundglass.io.dicom_join import SeriesPiece, join_pieces
from groundglass.io.dicom_kind import SeriesKind, recognise_kind, stranger_kind
from groundglass.io.limits import shown
from groundglass.io.other_files import (
    DAMAGED_FILE,
    NO_IMAGE,
    OTHER_FILE,
    OTHER_ORIENTATION,
    OTHER_SIZE,
    NoDicomError,
    count_named_alike,
    counted,
)
from groundglass.io.other_formats import advice_on_archive
from groundglass.io.zip_file import open_zip

_NO_UID = "?"  # begins the names of pieces without a UID, which no UID can begin with
# Kernels by name, and by the codes of Siemens (B50 and up, Bl, Br5, I5), Canon (FC5x, FC8x) and Philips (L, YC, YD, E).
_LUNG_KERNEL = re.compile(r"lung|bone|edge|sharp|^(b[5-9]\d|bl\d|br[5-9]\d|i[5-9]\d|fc[58]\d|l|yc|yd|e)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """The slices of one series that belong together: those of one orientation and one matrix.

    Attributes:
        uids: Series Instance UIDs: one, or several if a series was split into pieces.
        slices: The slices in the order in which they were found.
        left_out: {reason: number} of images of the series that are left out.
        label: What people call it: its series number, with a letter if others have the same.
    """

    uids: tuple[str, ...]
    slices: tuple[DicomSlice, ...]
    left_out: dict[str, int]
    label: str = ""

    @property
    def uid(self) -> str:
        """Series Instance UID; the first one, if a series was split into pieces."""
        return self.uids[0] or "no UID"

    @property
    def header(self) -> Dataset:
        """Header of the first slice's instance."""
        return self.slices[0].header

    @property
    def modality(self) -> str:
        """Modality in capitals: `CT`, `MR`, ...; empty if it is not known."""
        return modality_of(self.header)

    @property
    def number(self) -> int | None:
        """Series number; None if it is not stated."""
        number = number_value(self.header, "SeriesNumber")
        return None if number is None else int(number)

    @property
    def kernel(self) -> str:
        """Convolution kernel of the reconstruction; empty if it is not stated."""
        return kernel_of(self.header, self.slices[0].frame or 0)

    @property
    def description(self) -> str:
        """Series description, a free text that may name the patient; empty if it is not stated."""
        return text_value(self.header, "SeriesDescription")

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie across the body."""
        return self.slices[0].is_axial

    @cached_property
    def slice_distance_mm(self) -> float | None:
        """Usual distance between slices; None if positions are not stated."""
        return distance_between(self.slices)

    @cached_property
    def kind(self) -> SeriesKind:
        """What the series shows by its header."""
        return recognise_kind(self.header)

    @property
    def rejection_reason(self) -> str | None:
        """Reason why the series is not chosen by itself; None if it may be."""
        return self.kind.rejection_reason

    @property
    def can_be_forced(self) -> bool:
        """Whether a user may have it read as CT in spite of the reason for its rejection."""
        return self.kind.can_be_forced

    @property
    def is_offered(self) -> bool:
        """Whether the series is plain CT for all that its header says, and so an alternative to another series."""
        return self.kind.rejection_reason is None and self.kind.doubt is None

    @property
    def rank(self) -> tuple[bool, bool, bool, bool, bool, int, bool, float]:
        """Sort key: the series of the highest rank is chosen (see the module's description)."""
        kind = self.kind
        has_lung_kernel = _LUNG_KERNEL.search(self.kernel) is not None
        return (
            *(kind.rejection_reason is None, kind.doubt is None, self.is_axial),
            *(not kind.is_elsewhere, not kind.is_derived),
            *(count_places(self.slices) or len(self.slices), has_lung_kernel, -(self.number or 0)),
        )

    def name(self, with_identity: bool = False) -> str:
        """Name the series for people: number, kernel, number and distance of slices, and what is special about it.

        Args:
            with_identity: Whether to include its description, which may name the patient.
        """
        count, distance_mm = len(self.slices), self.slice_distance_mm
        slices = f"{count} slice{'s' if count > 1 else ''}"
        slices += f" {distance_mm:.3g} mm apart" if distance_mm else ""
        facts = [f'"{self.description}"'] if with_identity and self.description else []
        facts += [f"kernel {self.kernel}"] if self.kernel else []
        facts += [slices, *([] if self.is_axial else ["not axial"])]
        facts += ["of another part of the body by its header"] if self.kind.is_elsewhere else []
        facts += ["derived"] if self.kind.is_derived and self.rejection_reason is None else []
        facts += [self.rejection_reason] if self.rejection_reason else []
        return f"{self.label} ({', '.join(facts)})"


@dataclass(frozen=True, eq=False)
class SeriesListing:
    """The contents of a path.

    Attributes:
        series: The image series, those of higher rank first.
        others: {kind: number} of other files.
        absent: {SeriesInstanceUID: number of its images that a DICOMDIR lists and that are not there}.
    """

    series: tuple[ImageSeries, ...]
    others: dict[str, int]
    absent: dict[str, int] = field(default_factory=dict)


@contextmanager
def find_series(path: Path, openers: Sequence[ByteOpener] = ()) -> Iterator[SeriesListing]:
    """Find the series of a DICOM file, a folder (with all folders below it) or a ZIP archive by their headers.

    Pixels can be read while the context is open. Use it inside `silence_pydicom`.

    Args:
        path: The file, folder or archive.
        openers: Functions that open the files; `path` only names them then. Empty: all files that `path` holds.

    Raises:
        NoDicomError: There is no DICOM image.
        FormatError: The archive, or the only file, is damaged.
    """
    if openers:
        yield _list_series(path, list(openers), {})
    elif path.is_dir():
        files, others = files_below(path)
        yield _list_series(path, [file_opener(file) for file in files], others, [file.name for file in files])
    elif starts_with(path, b"PK"):
        with open_zip(path) as archive:
            try:
                names = [PurePosixPath(member.name).name for member in archive.members]
                listing = _list_series(path, [member.open for member in archive.members], archive.others, names)
            except NoDicomError as error:
                advice = advice_on_archive(shown(path), [member.name for member in archive.members])
                raise NoDicomError(advice or str(error), error.others) from None
            yield listing
    else:
        yield _list_series(path, [file_opener(path)], {})


def _list_series(
    path: Path, openers: list[ByteOpener], others: dict[str, int], names: Sequence[str] = ()
) -> SeriesListing:
    """List the series in files that `openers` open; `names` are their names, where they have any."""
    images: set[int] = set()
    strangers: set[int] = set()
    slices_by_uid: dict[str, list[DicomSlice]] = {}
    listed: dict[str, set[str]] = {}
    is_only_file = len(openers) == 1 and not path.is_dir()
    for number, opener in enumerate(openers):
        instance = read_header(path, opener, is_only_file)
        if isinstance(instance, str):
            others[instance] = others.get(instance, 0) + 1
            if instance == OTHER_FILE:
                strangers.add(number)
            continue
        if is_directory(instance.header):
            others["DICOMDIR"] = others.get("DICOMDIR", 0) + 1
            for uid, instances in images_listed(instance.header).items():
                listed.setdefault(uid, set()).update(instances)
            continue
        start_decoder(transfer_syntax(instance.header))
        uid = text_value(instance.header, "SeriesInstanceUID") or f"{_NO_UID}{number}"
        try:
            slices = slices_of(instance)
        except DICOM_ERRORS:
            slices = []
        slices_by_uid.setdefault(uid, []).extend(slices)
        if slices:
            images.add(number)
        else:
            kind = DAMAGED_FILE if _should_be_image(instance.header) else "DICOM without an image"
            others[kind] = others.get(kind, 0) + 1
    if names and (alike := count_named_alike((names[i] for i in strangers), (names[i] for i in images))):
        others[NO_IMAGE], others[OTHER_FILE] = alike, others[OTHER_FILE] - alike
    pieces = [
        SeriesPiece(("" if uid.startswith(_NO_UID) else uid,), tuple(slices))
        for uid, slices in slices_by_uid.items()
        if slices
    ]
    if not pieces:
        contents = ", ".join(counted(n, kind) for kind, n in others.items()) or "no file"
        if total := sum(map(len, listed.values())):
            contents += f" that lists {counted(total, 'image')}"
        but, advice = "no DICOM image but " if others else "", "give the folder of the CT series"
        raise NoDicomError(f"{shown(path)} holds {but}{contents}: {advice}", others)
    series = sorted(map(_largest_group, join_pieces(pieces)), key=lambda found: found.rank, reverse=True)
    found = {uid: {text_value(one.header, "SOPInstanceUID") for one in slices_by_uid.get(uid, ())} for uid in listed}
    absent = {uid: count_absent(instances, found[uid]) for uid, instances in listed.items() if found[uid]}
    return SeriesListing(_labelled(series), others, absent)


def _should_be_image(header: Dataset) -> bool:
    """Return whether a header says that pixels follow, or nothing about what follows."""
    sop_class = text_value(header, "SOPClassUID")
    return not sop_class or UID(sop_class).name.endswith("Image Storage")


def _labelled(series: Sequence[ImageSeries]) -> tuple[ImageSeries, ...]:
    """Give each series its number as its label, and letters where several have the same number or none."""
    counts = Counter(found.number for found in series)
    seen: Counter[int | None] = Counter()
    labelled = []
    for found in series:
        number = "unnumbered" if found.number is None else str(found.number)
        letter = _letters(seen[found.number]) if counts[found.number] > 1 else ""
        labelled.append(replace(found, label=f"{number}{'-' if letter and found.number is None else ''}{letter}"))
        seen[found.number] += 1
    return tuple(labelled)


def _letters(index: int) -> str:
    """Return a, b, ... z, aa, ab, ... for 0, 1, ..."""
    last = chr(ord("a") + index % 26)
    return last if index < 26 else _letters(index // 26 - 1) + last


def _largest_group(piece: SeriesPiece) -> ImageSeries:
    """Return the largest group of slices of one orientation and matrix; of axial ones, if there are any.

    Slices that state no orientation belong to the first group of their matrix, and get its orientation.
    """
    keyed: list[tuple[tuple[object, ...], list[DicomSlice]]] = []
    for dicom_slice in piece.slices:
        key = (stranger_kind(dicom_slice.header), *dicom_slice.size)
        fitting = (group for k, group in keyed if k == key and _may_be_parallel(group[0], dicom_slice))
        group = next(fitting, None)
        if group is None:
            keyed.append((key, [dicom_slice]))
        else:
            group.append(dicom_slice)
    groups = [_oriented(group) for _, group in keyed]
    largest = max(groups, key=lambda group: (not stranger_kind(group[0].header), group[0].is_axial, len(group)))
    left_out: dict[str, int] = {}
    for group in groups:
        if group is not largest:
            has_same_axes = is_same_orientation(group[0].directions, largest[0].directions)
            reason = OTHER_SIZE if has_same_axes else OTHER_ORIENTATION
            reason = stranger_kind(group[0].header) or reason
            left_out[reason] = left_out.get(reason, 0) + len(group)
    return ImageSeries(piece.uids, tuple(largest), left_out)


def _oriented(group: Sequence[DicomSlice]) -> list[DicomSlice]:
    """Give the slices that state a position, but no orientation, that of the others."""
    stated = next((each.directions for each in group if each.directions is not None), None)
    return [
        replace(each, directions=stated) if each.directions is None and each.position_mm is not None else each
        for each in group
    ]


def _may_be_parallel(one: DicomSlice, other: DicomSlice) -> bool:
    is_unknown = one.directions is None or other.directions is None
    return is_unknown or is_same_orientation(one.directions, other.directions)
