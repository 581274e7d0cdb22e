"""What a DICOMDIR (PS3.3 F), the directory of a disc, lists: the images of each series."""

from __future__ import annotations

from collections.abc import Mapping, Set

from pydicom import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from groundglass.io.dicom_header import items, number_value, text_value

_IN_USE = 0xFFFF  # RecordInUseFlag of records that count, which is so without one, too


def is_directory(header: Dataset) -> bool:
    """Return whether a header is that of a DICOMDIR."""
    return text_value(header, "SOPClassUID") == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in header


def images_listed(header: Dataset) -> dict[str, set[str]]:
    """Return {SeriesInstanceUID: SOPInstanceUIDs of its images} of a DICOMDIR; empty where it is damaged."""
    records = items(header, "DirectoryRecordSequence")
    record_at = {int(getattr(record, "seq_item_tell", 0) or 0): record for record in records}
    listed: dict[str, set[str]] = {}
    for series in records:
        if text_value(series, "DirectoryRecordType") != "SERIES":
            continue
        images = listed.setdefault(text_value(series, "SeriesInstanceUID"), set())
        below, seen = _offset(series, "OffsetOfReferencedLowerLevelDirectoryEntity"), set[int]()
        while below in record_at and below not in seen:
            seen.add(below)
            record = record_at[below]
            uid = text_value(record, "ReferencedSOPInstanceUIDInFile")
            is_image = text_value(record, "DirectoryRecordType") == "IMAGE"
            if uid and is_image and number_value(record, "RecordInUseFlag") in (None, _IN_USE):
                images.add(uid)
            below = _offset(record, "OffsetOfTheNextDirectoryRecord")
    return listed


def count_absent(listed: Set[str], found: Set[str]) -> int:
    """Count the images that a DICOMDIR lists and that were not found, also where an anonymiser changed their UIDs."""
    return len(listed - found) if listed & found else max(0, len(listed) - len(found))


def note_on_absent(absent: Mapping[str, int], uids: tuple[str, ...]) -> list[str]:
    """Say how many images of a series that a DICOMDIR lists are not there.

    Args:
        absent: {SeriesInstanceUID: number of them}.
        uids: UIDs of the series.
    """
    count = sum(absent.get(uid, 0) for uid in uids)
    if not count:
        return []
    return [
        f"{count} image{'s' if count > 1 else ''} of the series that the DICOMDIR lists {'are' if count > 1 else 'is'} "
        "not here: volumes are of the others; copy the whole disc"
    ]


def _offset(record: Dataset, keyword: str) -> int:
    return int(number_value(record, keyword) or 0)
