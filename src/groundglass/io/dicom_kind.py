"""Recognise by its header what a DICOM series shows: plain CT, or a localizer, projection, map or derived series."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom import Dataset

from groundglass.io.dicom_header import (
    DICOM_ERRORS,
    items,
    modality_of,
    number_value,
    stating_groups,
    text_value,
    text_values,
)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_COLOUR = ("RGB", "PALETTE COLOR", "YBR")  # the beginnings of PhotometricInterpretation
_LOCALIZER = re.compile(r"localizer|scout|topogram|scanogram|surview", re.IGNORECASE)
_PROJECTION = re.compile(
    r"(^|[^a-z])(mip|minip|min ip|max ip|vrt|ssd)([^a-z]|$)|max_ip|min_ip|(min|max)imum[ _]*(ip|intensity)|projection"
    r"|^(min|max)imum$|(volume|surface)[ _]render",
    re.IGNORECASE,
)
_MAP = re.compile(
    r"iodine|z[ _-]*eff|effective[ _]*(z|atomic)|eff_atomic|electron[ _]density|(^|[^a-z])rho([^a-z]|$)|uric|pbv"
    r"|perfusion|blood (volume|flow)|colou?r|(^|[^a-z])(fused|fusion)|overlay|material density"
    r"|mat_(specific|fractional|visual)"
    r"|scatter plot|photoelectric|compton",
    re.IGNORECASE,
)
_WATER_OR_IODINE = re.compile(r"(^|[^a-z])(water|iod|fat|calcium|hap)\W*\(|mg */ *(ml|cc|cm)", re.IGNORECASE)
_UNITS_OTHER_THAN_HU = re.compile(r"^(od|mgml|ed|edw|pct|%)$|z_?eff|mg|electron|density|percent|^iod", re.IGNORECASE)
_HU_UNIT_CODES = ("[HNSF'U]", "HU", "1", "")
_CHEST = re.compile(
    r"chest|thora|torax|lung|pulm|poumon|brust|heart|cardi|coronary|whole *body|trunk|(^|[^a-z])(tap|cap)([^a-z]|$)",
    re.IGNORECASE,
)
_ELSEWHERE = re.compile(
    r"abdom|pelvi|liver|kidney|renal|brain|skull|lumbar|shoulder|elbow|sinus|urogra|entero|colon|(^|[^a-z])[cl]-?spine"
    r"|(^|[^a-z])(head|neck|hip|hips|knee|ankle|foot|leg|legs|wrist|hand|orbits?)([^a-z]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SeriesKind:
    """What a series shows.

    Attributes:
        rejection_reason: Why it is never chosen by itself; None for CT that may be.
        can_be_forced: Whether a user may have it read as CT all the same.
        doubt: What its description alone says that it is instead of plain CT; None without such a word.
        is_derived: Whether it was computed from other images.
        is_elsewhere: Whether the header names another part of the body than the chest.
    """

    rejection_reason: str | None
    can_be_forced: bool
    doubt: str | None
    is_derived: bool
    is_elsewhere: bool


def recognise_kind(header: Dataset) -> SeriesKind:
    """Recognise what a series shows by the header of one of its images."""
    types = _image_types(header)
    unusable = _unusable(header)
    other = None if unusable else _no_plain_ct(header)
    described = _named_as(text_value(header, "SeriesDescription"))
    is_derived = "DERIVED" in types
    if is_derived and not unusable and not other:  # a scanner's own image keeps its place whatever it is called
        other, described = described, None
    return SeriesKind(
        rejection_reason=unusable or other,
        can_be_forced=other is not None,
        doubt=described,
        is_derived=is_derived,
        is_elsewhere=_is_elsewhere(header),
    )


def is_localizer(header: Dataset) -> bool:
    """Return whether an image is a localizer: by its type, or without one by its description."""
    types = _image_types(header)
    return any(_LOCALIZER.search(text) for text in types or [text_value(header, "SeriesDescription")])


def stranger_kind(header: Dataset) -> str | None:
    """Return what an image among the slices of a CT is that is no slice: a localizer, or a capture of a screen."""
    if is_localizer(header):
        return "localizer"
    is_capture = text_value(header, "SOPClassUID").startswith(_SECONDARY_CAPTURE)
    return "secondary capture" if is_capture or "SCREEN SAVE" in _image_types(header) else None


def _unusable(header: Dataset) -> str | None:
    """Return why images hold no CT at all; None if they may."""
    if stranger := stranger_kind(header):
        return stranger
    photometric = text_value(header, "PhotometricInterpretation").upper()
    if photometric.startswith(_COLOUR) or (number_value(header, "SamplesPerPixel") or 1) != 1:
        return "colour pictures"
    if modality_of(header) in ("SEG", "RTDOSE", "RTSTRUCT", "SR", "PR", "KO"):
        return f"modality {modality_of(header)}"
    return None


def _no_plain_ct(header: Dataset) -> str | None:
    """Return why images are no plain CT in HU, which a user may overrule; None if they are."""
    modality = modality_of(header)
    if modality != "CT":
        return f"modality {modality or 'not stated'}"
    named = next(filter(None, map(_named_as, (*_image_types(header), *_calculations(header)))), None)
    if named is None and not _is_in_hu(header):
        return "a map in another unit than HU"
    return named


def _named_as(text: str) -> str | None:
    """Return what a text names instead of plain CT; None if it names nothing of the kind."""
    if _PROJECTION.search(text):
        return "a projection, such as a MIP"
    return "a map, such as one of iodine" if _MAP.search(text) or _WATER_OR_IODINE.search(text) else None


def _image_types(header: Dataset) -> list[str]:
    """Return the values of ImageType, and of the FrameType of a multi-frame image."""
    types = text_values(header, "ImageType")
    for group in _frame_types(header):
        types += text_values(group, "FrameType")
    return [text for text in types if text]


def _frame_types(header: Dataset) -> list[Dataset]:
    """Return the data sets that say of which type the frames of a multi-frame image are."""
    return [group for groups in _groups(header) for group in items(groups, "CTImageFrameTypeSequence")]


def _groups(header: Dataset) -> list[Dataset]:
    """Return the functional groups that all frames share, and those of the frame in the middle, as of most frames."""
    groups = items(header, "SharedFunctionalGroupsSequence")
    try:
        frames = header.get("PerFrameFunctionalGroupsSequence") or ()
        return [*groups, frames[len(frames) // 2]] if len(frames) else groups
    except DICOM_ERRORS:
        return groups


def _calculations(header: Dataset) -> list[str]:
    """Return how the voxels of multi-frame images were computed (PS3.3 C.8.16.2.1)."""
    sources = (header, *_frame_types(header))
    techniques = [text_value(source, "VolumeBasedCalculationTechnique").upper() for source in sources]
    return [technique for technique in techniques if technique not in ("NONE", "MPR")]


def _is_in_hu(header: Dataset) -> bool:
    """Return False if the rescale, or a real-world value map (PS3.3 C.7.6.16.2.11), states another unit than HU."""
    for data in (header, *_groups(header)):
        for rescale in (data, *items(data, "PixelValueTransformationSequence")):
            if _UNITS_OTHER_THAN_HU.search(text_value(rescale, "RescaleType")):
                return False
        for value_map in items(data, "RealWorldValueMappingSequence"):
            for unit in items(value_map, "MeasurementUnitsCodeSequence"):
                if text_value(unit, "CodeValue").upper() not in _HU_UNIT_CODES:
                    return False
    return True


def _is_elsewhere(header: Dataset) -> bool:
    texts = [text_value(header, "BodyPartExamined"), text_value(header, "SeriesDescription")]
    for data in stating_groups(header, "FrameAnatomySequence"):
        texts += [text_value(region, "CodeMeaning") for region in items(data, "AnatomicRegionSequence")]
    return any(map(_ELSEWHERE.search, texts)) and not any(map(_CHEST.search, texts))
