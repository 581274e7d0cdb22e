"""Tell apart the acquisitions that one DICOM series holds, such as time points or reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundglass.errors import FormatError
from groundglass.io.dicom_grid import count_places, sort_slices
from groundglass.io.dicom_header import DicomSlice, kernel_of, number_value, stating_groups, text_value

# Attributes that tell acquisitions apart, the most telling one first; frames state some under other names.
_TELLING = (
    ("AcquisitionNumber", "FrameAcquisitionNumber"),
    ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    *(("SeriesTime",), ("ConvolutionKernel",), ("KVP",), ("SliceThickness",), ("ImageType",), ("SeriesDescription",)),
    ("AcquisitionDateTime", "FrameAcquisitionDateTime"),
    *(("AcquisitionTime",), ("ContentTime",)),
)
_GROUPS = ("FrameContentSequence", "CTReconstructionSequence", "PixelMeasuresSequence")  # that state these of frames
_TIMES = ("AcquisitionTime", "ContentTime", "SeriesTime")


@dataclass(frozen=True, eq=False)
class Acquisition:
    """The slices of a series that belong together.

    Attributes:
        label: Its AcquisitionNumber, or if that does not tell acquisitions apart its place among them, from 1.
        slices: The slices.
    """

    label: str
    slices: tuple[DicomSlice, ...]

    @property
    def name(self) -> str:
        """Label, number of images, kernel and time, as far as they are stated."""
        header = self.slices[0].header
        time = next(filter(None, (_clock(text_value(header, keyword)) for keyword in _TIMES)), "")
        facts = [f"{len(self.slices)} image{'s' if len(self.slices) > 1 else ''}"]
        kernel = kernel_of(header, self.slices[0].frame or 0)
        facts += [f"kernel {kernel}"] if kernel else []
        facts += [f"at {time}"] if time else []
        return f"{self.label} ({', '.join(facts)})"


def find_acquisitions(slices: Sequence[DicomSlice]) -> tuple[Acquisition, ...]:
    """Return the acquisitions of slices that form a stack apart but not together; none if nothing tells them apart."""
    places = count_places(slices)
    is_repeated = 0 < places < len(slices)
    for keywords in _TELLING:
        groups: dict[str, list[DicomSlice]] = {}
        for dicom_slice in slices:
            groups.setdefault(_stated(dicom_slice, keywords), []).append(dicom_slice)
        if 1 < len(groups) <= len(slices) // 2 and all(_is_stack(group, is_repeated) for group in groups.values()):
            return _labelled(groups, by_number=keywords[0] == "AcquisitionNumber")
    return _by_turns(slices, places) if is_repeated and places > 1 and len(slices) % places == 0 else ()


def choose_acquisition(name: str, slices: Sequence[DicomSlice], label: str) -> tuple[DicomSlice, ...]:
    """Return the slices of one acquisition.

    Raises:
        FormatError: There is no such acquisition.
    """
    found = find_acquisitions(slices)
    if not found:
        groups: dict[str, list[DicomSlice]] = {}
        for dicom_slice in slices:
            groups.setdefault(_stated(dicom_slice, _TELLING[0]), []).append(dicom_slice)
        found = _labelled(groups, by_number=True)
    chosen = [acquisition for acquisition in found if acquisition.label == label.strip()]
    if not chosen:
        raise FormatError(f"{name} holds no acquisition {label}, expected one of: {list_acquisitions(found)}")
    return chosen[0].slices


def list_acquisitions(acquisitions: Sequence[Acquisition]) -> str:
    """Name acquisitions in one line, at most eight of them."""
    more = f", and {len(acquisitions) - 8} more" if len(acquisitions) > 8 else ""
    return ", ".join(acquisition.name for acquisition in acquisitions[:8]) + more


def _labelled(groups: dict[str, list[DicomSlice]], by_number: bool) -> tuple[Acquisition, ...]:
    ordered = sorted(groups, key=lambda value: (len(value), value) if by_number else (0, value))
    labels = [value or "none" for value in ordered] if by_number else [str(n + 1) for n in range(len(ordered))]
    return tuple(Acquisition(label, tuple(groups[value])) for label, value in zip(labels, ordered, strict=True))


def _by_turns(slices: Sequence[DicomSlice], places: int) -> tuple[Acquisition, ...]:
    """Divide slices in the order of their InstanceNumber into runs that show every place once."""
    in_order = sorted(slices, key=lambda s: (number_value(s.header, "InstanceNumber") or 0, s.frame or 0))
    runs = [in_order[begin : begin + places] for begin in range(0, len(in_order), places)]
    if any(count_places(run) < places for run in runs):  # the turns are taken place by place
        runs = [in_order[begin :: len(runs)] for begin in range(len(runs))]
    if any(count_places(run) < places for run in runs):
        return ()
    return tuple(Acquisition(str(n), tuple(run)) for n, run in enumerate(runs, start=1))


def _is_stack(slices: Sequence[DicomSlice], may_be_uneven: bool) -> bool:
    if count_places(slices) < len(slices):
        return False
    if may_be_uneven:
        return True
    try:
        sort_slices("", slices)
    except FormatError:
        return False
    return True


def _stated(dicom_slice: DicomSlice, keywords: Sequence[str]) -> str:
    """Return the first of these attributes that a slice states: of its frame, or of its instance."""
    header = dicom_slice.header
    sources = [header]
    if dicom_slice.frame is not None:
        frame = header.PerFrameFunctionalGroupsSequence[dicom_slice.frame]
        sources = [frame, *stating_groups(header, *_GROUPS, frame=dicom_slice.frame)]
    values = (text_value(source, keyword) for source in sources for keyword in keywords)
    return next(filter(None, values), "")


def _clock(time: str) -> str:
    """Return a DICOM time such as 101500.25 as 10:15:00; empty if it is none."""
    digits = time.partition(".")[0]
    is_time = len(digits) in (4, 6) and digits.isdecimal()  # seconds may be left out
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)) if is_time else ""
