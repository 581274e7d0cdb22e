"""Complete the headers of a series, so that a Segmentation and a Structured Report can refer to it and be legal DICOM.

Anonymisers remove, empty and damage attributes, or give each file a UID of its own where all should share one. What is
missing is filled in, what differs is unified, and what no DICOM value may hold is left out. Only the instances cannot
be invented: without a SOP instance UID of its own for each there is nothing to refer to.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DSfloat

from groundglass.errors import FormatError
from groundglass.io.dicom_header import (
    DicomInstance,
    attribute_alone,
    items,
    number_value,
    number_values,
    shallow_copy,
    silence_pydicom,
    slices_of,
    text_value,
)
from groundglass.io.dicom_legal import is_legal, is_legal_uid, is_uid, legal_copy
from groundglass.io.dicom_text import decode_header
from groundglass.scan.scan import DicomSeries

# Attributes that every composite instance has (type 2): they may be empty.
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
_IDENTIFYING = ("PatientName", "PatientID", "AccessionNumber")  # a change of one of them is worth a note
_SHARED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")  # type 1, the same in each instance
_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
_SINGLE_FRAME = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage, SecondaryCaptureImageStorage)
_MULTI_FRAME = (
    *(EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage, LegacyConvertedEnhancedCTImageStorage),
    *(LegacyConvertedEnhancedMRImageStorage, LegacyConvertedEnhancedPETImageStorage),
)


@dataclass(frozen=True, eq=False)
class CompletedSeries:
    """A series whose headers have all that instances which refer to it need.

    Attributes:
        series: The series with copies of its headers. They may state several series, if it was joined from several.
        notes: Sentences for the user on what was filled in, unified, mended or emptied.
    """

    series: DicomSeries
    notes: tuple[str, ...]


@silence_pydicom()
def complete_series(series: DicomSeries) -> CompletedSeries:
    """Copy the headers of a series, and repair in the copies what an anonymiser removed or damaged.

    Args:
        series: The series; one that is complete is returned as it is.

    Raises:
        FormatError: The instances cannot be referred to.
    """
    if series.is_complete:
        return CompletedSeries(series, ())
    first, statements, notes = _complete(series)
    copies = [first]
    for header, stated in zip(series.headers[1:], statements[1:], strict=True):
        copy = shallow_copy(header)
        copy.file_meta = _file_meta(header)
        _complete_geometry(header, copy)
        for keyword, value in stated.items():
            _state(copy, keyword, value)
        _state(copy, "ImageOrientationPatient", first.ImageOrientationPatient)  # they differ by noise at most
        copies.append(copy)
    return CompletedSeries(replace(series, headers=tuple(copies), is_complete=True), notes)


@silence_pydicom()
def foretell_completion(series: DicomSeries) -> tuple[str, ...]:
    """Return the notes of `complete_series` without copying all headers, in a third of the time.

    Raises:
        FormatError: As in `complete_series`.
    """
    _, _, notes = _complete(series)
    return notes


def _complete(series: DicomSeries) -> tuple[Dataset, list[dict[str, str]], tuple[str, ...]]:
    """Return the completed copy of the first header, for each header its classes and UIDs, and notes for the user."""
    for header in series.headers:
        decode_header(header)
    statements = [{"SOPInstanceUID": uid} for uid in _instance_uids(series)]
    _check_places(series)
    changes = [*_complete_classes(series, statements), *_complete_uids(series.headers, statements)]
    first, copy = series.headers[0], legal_copy(series.headers[0])
    copy.file_meta = _file_meta(first)
    _complete_geometry(first, copy)
    for keyword, value in statements[0].items():
        _state(copy, keyword, value)
    changes += [*_complete_type_2(first, copy), *_complete_measures(series, copy)]
    return copy, statements, (*_notes(changes), *_uid_notes(series, statements))


def derived_uid(*parts: object) -> UID:
    """Derive a UID under 2.25 (PS3.5 B.2) from these parts."""
    digest = hashlib.sha256("/".join(map(str, ("groundglass", *parts))).encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}")


def _notes(changes: Sequence[str]) -> tuple[str, ...]:
    if not changes:
        return ()
    return (
        "in the DICOM Segmentation and the Structured Report these were filled in, unified, mended or emptied, since "
        f"the headers do not state them as DICOM demands: {', '.join(changes)}",
    )


def _uid_notes(series: DicomSeries, statements: Sequence[dict[str, str]]) -> list[str]:
    """Name the UIDs that are kept though DICOM does not allow them: a reference has to be what the archive holds."""
    stated = [*(item for each in statements for item in each.items())]
    stated += [("SOPInstanceUID", uid) for uid, _ in series.origins or ()]
    names = dict.fromkeys(keyword for keyword, uid in stated if not is_legal_uid(uid))
    if not names:
        return []
    return [
        f"{', '.join(names)} {'is a UID' if len(names) == 1 else 'are UIDs'} that DICOM does not allow (a number "
        "begins with 0, or the first is above 2): kept in the DICOM Segmentation and the Structured Report, since "
        "study and images are found by it; a strict archive may refuse these files"
    ]


def _instance_uids(series: DicomSeries) -> list[str]:
    """Return the SOP instance UID of each instance; that of the file meta header where the data set has none.

    Raises:
        FormatError: An instance has none of its own.
    """
    uids = [
        text_value(header, "SOPInstanceUID") or text_value(_file_meta(header), "MediaStorageSOPInstanceUID")
        for header in series.headers
    ]
    referenced = list(dict.fromkeys(uid for uid, _ in series.origins)) if series.origins else uids
    for number, fault in (
        (referenced.count(""), "no SOPInstanceUID"),
        (sum(not is_uid(uid) for uid in referenced if uid), "a SOPInstanceUID that is no legal UID"),
        (sum(n for n in Counter(referenced).values() if n > 1), "the SOPInstanceUID of another instance"),
    ):
        if number:
            raise FormatError(
                f"{number} of {len(referenced)} instance{'s' if len(referenced) > 1 else ''} "
                f"state{'s' if number == 1 else ''} {fault}, so that they cannot refer to the images"
            )
    return uids


def _check_places(series: DicomSeries) -> None:
    """Check that each image states where it lies.

    Raises:
        FormatError: It does not.
    """
    if series.frames:
        slices = slices_of(DicomInstance(io.BytesIO, series.headers[0]))
        slices = [slices[index] for index in series.frames]
        has_position = all(each.position_mm is not None for each in slices)
        has_orientation = all(each.directions is not None for each in slices)
    else:
        axes = [number_values(header, "ImageOrientationPatient", 6) for header in series.headers]
        has_position = all(number_values(header, "ImagePositionPatient", 3) is not None for header in series.headers)
        has_orientation = all(each is not None and np.cross(each[:3], each[3:]).any() for each in axes)
    for name, is_stated in (("position", has_position), ("orientation", has_orientation)):
        if not is_stated:
            raise FormatError(f"the images state no {name}, so that they cannot be placed")


def _file_meta(header: Dataset) -> FileMetaDataset:
    return getattr(header, "file_meta", FileMetaDataset())


def _state(dataset: Dataset, keyword: str, value: object) -> None:
    """State an attribute anew; pydicom would first decode what the header states, which may be damaged."""
    dataset.pop(keyword, None)
    setattr(dataset, keyword, value)


def _complete_geometry(header: Dataset, copy: Dataset) -> None:
    """State numbers as DICOM writes them where a header states them otherwise, such as with decimal commas."""
    for keyword, count in _GEOMETRY.items():
        values = number_values(header, keyword, count)
        if values is not None and (keyword not in copy or not is_legal(copy[keyword])):
            _state(copy, keyword, [DSfloat(float(value), auto_format=True) for value in values])


def _complete_classes(series: DicomSeries, statements: Sequence[dict[str, str]]) -> list[str]:
    """State the class of images where it is missing, or is none of those that hold a scan in this way."""
    expected = _MULTI_FRAME if series.frames else _SINGLE_FRAME
    is_changed = False
    for header, statement in zip(series.headers, statements, strict=True):
        if text_value(header, "SOPClassUID") not in expected:
            stated = text_value(_file_meta(header), "MediaStorageSOPClassUID")
            statement["SOPClassUID"] = UID(stated) if stated in expected else expected[0]
            is_changed = True
    return ["SOPClassUID (missing, or not that of such images)"] if is_changed else []


def _complete_uids(headers: Sequence[Dataset], statements: Sequence[dict[str, str]]) -> list[str]:
    """State one UID of study and frame of reference for all headers, that of most; and a UID of the series."""
    changes = []
    for keyword in _SHARED_UIDS:
        stated = Counter(text_value(header, keyword) for header in headers)
        missing = stated.pop("", 0)
        uid = max(stated, key=lambda value: stated[value], default="")  # the first of several
        if not uid:
            changes.append(f"{keyword} (missing)")
            uid = derived_uid("missing", keyword, statements[0]["SOPInstanceUID"])
        elif not all(map(is_uid, stated)):
            changes.append(f"{keyword} (not a legal UID)")
            uid = derived_uid("replaced", keyword, uid)
        elif missing:
            changes.append(f"{keyword} (missing in {missing} instance{'s' if missing > 1 else ''})")
        elif len(stated) > 1 and keyword != "SeriesInstanceUID":
            changes.append(f"{keyword} ({len(stated)} different ones)")
        elif len(stated) > 1:  # series that were joined to one: each instance is referred to in its own
            for header, statement in zip(headers, statements, strict=True):
                statement[keyword] = UID(text_value(header, keyword))
            continue
        for statement in statements:
            statement[keyword] = UID(uid)
    return changes


def _complete_type_2(header: Dataset, copy: Dataset) -> list[str]:
    changes = []
    for keyword in _TYPE_2:
        if keyword not in copy:
            setattr(copy, keyword, None)
        if keyword in _IDENTIFYING and text_value(header, keyword) != text_value(copy, keyword):
            changes.append(f"{keyword} (not a legal value)")
    return changes


def _complete_measures(series: DicomSeries, copy: Dataset) -> list[str]:
    """State pixel spacing and thickness of a slice; of frames, orientation and pixel spacing for all together."""
    if series.frames:
        return _complete_shared_groups(series.frames, copy)
    changes = _drop_other_distance(copy, series.headers, copy)
    if number_values(copy, "PixelSpacing", 2) is None:  # that of the others was taken
        spacings = (number_values(header, "PixelSpacing", 2) for header in series.headers)
        spacing = next(values for values in spacings if values is not None)
        copy.PixelSpacing = [DSfloat(float(value), auto_format=True) for value in spacing]
        changes.append("PixelSpacing (missing in the first instance)")
    if (number_value(copy, "SliceThickness") or 0) <= 0:
        copy.SliceThickness = DSfloat(_slice_distance(series.headers), auto_format=True)
        changes.append("SliceThickness (missing)")
    return changes


def _complete_shared_groups(order: Sequence[int], copy: Dataset) -> list[str]:
    """State orientation, pixel spacing and thickness for all frames together, and numbers as DICOM writes them.

    Args:
        order: Indices of the frames along the body.
        copy: The header, which is changed.

    Returns:
        What was filled in.
    """
    shared = Dataset()
    for item in reversed(items(copy, "SharedFunctionalGroupsSequence")):  # DICOM allows one
        shared.update(shallow_copy(item))
    groups = [shared, *items(copy, "PerFrameFunctionalGroupsSequence")]
    for sequence, keyword in (
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        stated = (*(item for group in groups for item in items(group, sequence)), attribute_alone(copy, keyword))
        usable = next((item for item in stated if number_values(item, keyword, _GEOMETRY[keyword]) is not None), None)
        if usable is not None:
            setattr(shared, sequence, [_completed_item(usable)])
    changes = list[str]()
    places = [(items(group, "PlanePositionSequence") or [Dataset()])[0] for group in groups[1:]]
    in_order = [places[index] for index in order]
    for measures in items(shared, "PixelMeasuresSequence"):
        for axes in items(shared, "PlaneOrientationSequence"):
            changes += _drop_other_distance(measures, in_order, axes)
        if (number_value(measures, "SliceThickness") or 0) <= 0:
            measures.SliceThickness = DSfloat(_slice_distance(in_order), auto_format=True)
            changes.append("SliceThickness (missing)")
    copy.SharedFunctionalGroupsSequence = [shared]
    frames = groups[1:]
    completed = [_completed_frame(frame) for frame in frames]
    if any(new is not old for new, old in zip(completed, frames, strict=True)):
        copy.PerFrameFunctionalGroupsSequence = completed
    return changes


def _completed_frame(frame: Dataset) -> Dataset:
    """Return a frame's groups with its position as DICOM writes it; the frame itself if that is so."""
    place = next(iter(items(frame, "PlanePositionSequence")), None)
    is_stated = place is not None and number_values(place, "ImagePositionPatient", 3) is not None
    if place is None or not is_stated or is_legal(place["ImagePositionPatient"]):
        return frame
    completed = shallow_copy(frame)
    completed.PlanePositionSequence = [_completed_item(place)]
    return completed


def _completed_item(item: Dataset) -> Dataset:
    completed = legal_copy(item)
    _complete_geometry(item, completed)
    return completed


def _drop_other_distance(measures: Dataset, places: Sequence[Dataset], orientation: Dataset) -> list[str]:
    """Leave out a SpacingBetweenSlices that is none, or by which a program would put slices where others lie.

    Args:
        measures: What may state it, which is changed.
        places: The data sets that state where the slices lie.
        orientation: The data set that states their orientation.

    Returns:
        What was left out, if it may be a distance.
    """
    stated = number_value(measures, "SpacingBetweenSlices")
    if stated is None:
        measures.pop("SpacingBetweenSlices", None)
        return []
    distance_mm = distance_along_normal(places, orientation)
    is_other = distance_mm is not None and abs(stated - distance_mm) * (len(places) - 1) > distance_mm / 2
    if stated <= 0 or is_other:
        measures.pop("SpacingBetweenSlices")
    return ["SpacingBetweenSlices (not the distance of the images)"] if stated > 0 and is_other else []


def distance_along_normal(places: Sequence[Dataset], orientation: Dataset) -> float | None:
    """Return the mean distance of neighbouring slices along their normal in mm; None of one slice.

    Args:
        places: The data sets that state where the slices lie, in any order.
        orientation: The data set that states their orientation.
    """
    axes = number_values(orientation, "ImageOrientationPatient", 6)
    positions = [number_values(place, "ImagePositionPatient", 3) for place in places]
    stated = [position for position in positions if position is not None]
    if axes is None or len(stated) < max(2, len(positions)):
        return None
    return float(np.ptp(np.array(stated) @ np.cross(axes[:3], axes[3:]))) / (len(stated) - 1)


def _slice_distance(places: Sequence[Dataset]) -> float:
    """Return the usual distance in mm between neighbouring slices by the data sets that place them; 1 for one."""
    positions = np.array([number_values(place, "ImagePositionPatient", 3) for place in places])
    distances = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    return round(float(np.median(distances)), 3) if len(distances) else 1.0
