"""Multi-frame series in several files: check that no part is missing, and join their headers."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from groundglass.errors import FormatError
from groundglass.io.dicom_header import DicomInstance, DicomSlice, items, number_value, shallow_copy, text_value

MAX_NUMBER = 1 << 16  # of a frame; above this it is no count


def check_parts(name: str, slices: Sequence[DicomSlice]) -> None:
    """Check that every part of a concatenation (PS3.3 C.7.6.16.2.2.4) is there, and the place of every frame.

    Raises:
        FormatError: A part is missing, or the place of a frame.
    """
    headers = [instance.header for instance in instances_of(slices)]
    by_uid: dict[str, list[Dataset]] = {}
    for header in headers:
        placed = len(items(header, "PerFrameFunctionalGroupsSequence"))
        frames = int(number_value(header, "NumberOfFrames") or 0)
        if 0 < placed < frames:
            raise FormatError(
                f"{name} states {frames} frames, and the position of only {placed} of them: it is damaged or was cut; "
                "export the series again"
            )
        if _is_part(header):
            by_uid.setdefault(text_value(header, "ConcatenationUID"), []).append(header)
    for parts in by_uid.values():
        numbers = sorted({int(number_value(part, "InConcatenationNumber") or 0) for part in parts})
        stated = [int(number_value(part, "InConcatenationTotalNumber") or 0) for part in parts]
        total = max(*stated, max(numbers), 1)
        missing = sorted(set(range(1, total + 1)) - set(numbers))
        if missing or _begins_late(parts):
            found = ", ".join(map(str, numbers))
            lacking = ", ".join(map(str, missing)) or "that lie before them"
            raise FormatError(
                f"{name} holds part {found} of {total if max(stated) else 'several'} of a series in several "
                f"multi-frame files (a concatenation), and lacks part {lacking}: give the folder with all of its parts"
            )


def notes_on_missing_frames(slices: Sequence[DicomSlice]) -> list[str]:
    """Say which frames are missing by the numbers that the others have in their stack (PS3.3 C.7.6.16.2.2).

    It tells part of a series that was cut into several files without the attributes of a concatenation.
    """
    numbers_by_stack: dict[str, set[int]] = {}
    for instance in instances_of(slices):
        for frame in items(instance.header, "PerFrameFunctionalGroupsSequence"):
            for content in items(frame, "FrameContentSequence"):
                number = number_value(content, "InStackPositionNumber")
                if number is not None and 0 < number < MAX_NUMBER:
                    numbers_by_stack.setdefault(text_value(content, "StackID"), set()).add(int(number))
    missing = sum(max(numbers) - len(numbers) for numbers in numbers_by_stack.values())
    if not missing:
        return []
    found = sum(map(len, numbers_by_stack.values()))
    return [
        f"by their numbers {missing} of {found + missing} frames are not here (in another file?): volumes are of those "
        "that are here; give the folder with all files of the series"
    ]


def instances_of(slices: Sequence[DicomSlice]) -> list[DicomInstance]:
    """Return the different instances of slices, in the order of the slices."""
    return list({id(dicom_slice.instance): dicom_slice.instance for dicom_slice in slices}.values())


def join_headers(slices: Sequence[DicomSlice]) -> tuple[Dataset, tuple[int, ...]]:
    """Make one header of the frames of several multi-frame instances, or of some frames of one.

    Returns:
        The header of one instance with the frames of the slices alone, which keep the shared values of their own
        instances; and the index of each slice's frame in it.
    """
    first = slices[0].instance
    groups = {  # {instance: its shared groups, which the joined header lacks, and those of its frames}
        id(instance): (
            [] if instance is first else items(instance.header, "SharedFunctionalGroupsSequence")[:1],
            items(instance.header, "PerFrameFunctionalGroupsSequence"),
        )
        for instance in instances_of(slices)
    }
    frames = list[Dataset]()
    for dicom_slice in slices:
        shared, per_frame = groups[id(dicom_slice.instance)]
        frame = Dataset()
        for part in (*shared, per_frame[dicom_slice.frame or 0]):
            frame.update(part)
        frames.append(frame)
    joined = shallow_copy(first.header)
    joined.file_meta = first.header.file_meta
    joined.PerFrameFunctionalGroupsSequence = Items(frames)
    joined.NumberOfFrames = len(frames)
    return joined, tuple(range(len(frames)))


def _is_part(header: Dataset) -> bool:
    return bool(text_value(header, "ConcatenationUID")) or number_value(header, "InConcatenationNumber") is not None


def _begins_late(parts: Sequence[Dataset]) -> bool:
    offsets = [number_value(part, "ConcatenationFrameOffsetNumber") for part in parts]
    stated = [offset for offset in offsets if offset is not None]
    return len(stated) == len(parts) and min(stated) > 0
