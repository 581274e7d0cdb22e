"""What values DICOM allows (PS3.5 6.2), and a copy of a header that holds no others."""

from __future__ import annotations

import copy
import re

from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM, validate_value

from groundglass.io.dicom_header import DICOM_ERRORS
from groundglass.io.dicom_text import UNICODE
from groundglass.plain_text import is_visible

_PARAGRAPHS = ("LT", "ST", "UT")  # text that may have several lines
_TEXT = (*_PARAGRAPHS, "LO", "PN", "SH", "UC")
_CHECKED = (*_TEXT, "AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR")
_ENUMERATED = {"PatientSex": ("M", "F", "O"), "LossyImageCompression": ("00", "01")}
_TOGETHER = (  # attributes of an item that need each other
    ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
    ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    ("PatientID", "TypeOfPatientID"),
)
_FUNCTIONAL_GROUPS = 0x5200  # group of the sequences that hold the frames of a multi-frame instance
_JOINERS = "\u200c\u200d"  # which tell how letters of Persian and Indian scripts meet
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LEGAL_UID = re.compile(r"[012](\.(0|[1-9][0-9]*))*")  # PS3.5 9.1, and the roots of ISO/IEC 9834-1
_MAX_UID_LENGTH = 64


def is_uid(text: str) -> bool:
    """Return whether a text can be a UID, by which archives find things; DICOM may not allow it.

    Many programs make UIDs of dates and times, whose numbers begin with 0, and archives accept them.
    """
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def is_legal_uid(text: str) -> bool:
    """Return whether DICOM allows a UID: no number in it begins with 0 but 0 itself, and the first is 0, 1 or 2."""
    return is_uid(text) and _LEGAL_UID.fullmatch(text) is not None


def legal_copy(header: Dataset) -> Dataset:
    """Copy a header without private attributes, and without values that DICOM does not allow; its text is Unicode."""
    legal = Dataset()
    for tag in list(header.keys()):
        if tag.is_private:
            continue
        try:
            element = copy.copy(_cleaned(_in_its_representation(header[tag])))
            if tag.group == _FUNCTIONAL_GROUPS or is_legal(element):
                legal[tag] = element
        except DICOM_ERRORS:
            continue
    is_ascii = all(str(element.value).isascii() for element in legal if element.VR in _TEXT)
    if "SpecificCharacterSet" in header or not is_ascii:
        legal.SpecificCharacterSet = UNICODE
    return legal


def _in_its_representation(element: DataElement) -> DataElement:
    """Return an element in the value representation that the standard gives its tag (PS3.6), whatever the file states.

    Raises:
        ValueError, TypeError: The value has no such representation.
    """
    try:
        stated = dictionary_VR(element.tag).split(" or ")
    except KeyError:  # a tag that no standard knows
        return element
    return element if element.VR in stated else DataElement(element.tag, stated[0], element.value)


def is_legal(element: DataElement) -> bool:
    """Return whether DICOM allows a value: its characters, its length, and for sequences that nothing is missing.

    Scanners and anonymisers leave dates such as `00000000`, ages such as `70`, and codes without a meaning.
    """
    if element.keyword in _ENUMERATED:
        return element.value in _ENUMERATED[element.keyword]
    if element.VR == "SQ":
        return bool(element.value) and all(map(_is_complete, element.value))
    if element.VR not in _CHECKED or not element.value:
        return True
    is_multiple = isinstance(element.value, MultiValue)
    if is_multiple and dictionary_VM(element.tag) == "1":
        return False
    try:
        for value in element.value if is_multiple else [element.value]:
            written = str(value)
            if element.VR == "UI":
                if not is_legal_uid(written):
                    return False
                continue
            validate_value(element.VR, written, RAISE)
            {"DA": DA, "TM": TM}.get(element.VR, str)(written)
    except DICOM_ERRORS:
        return False
    return True


def _is_complete(item: Dataset) -> bool:
    """Return whether an item of a sequence is legal, and states whole codes and references or none."""
    stated = [[name in item for name in names] for names in _TOGETHER]
    is_whole = all(all(found) or not any(found) for found in stated)
    return len(item) > 0 and is_whole and all(element.value and is_legal(element) for element in item)


def _cleaned(element: DataElement) -> DataElement:
    """Return an element with its text as plain strings, without control characters; of names, what DICOM allows."""
    if element.VR not in _TEXT or not element.value:
        return element
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    kept = "\r\n\t\f" if element.VR in _PARAGRAPHS else ""
    texts = ["".join(c if is_visible(c) or c in kept + _JOINERS else " " for c in str(value)) for value in values]
    if element.VR == "PN":
        is_single = dictionary_VM(element.tag) == "1"
        texts = [_legal_name(text) for text in ([" ".join(texts)] if is_single else texts)]
    return DataElement(element.tag, element.VR, texts if len(texts) > 1 else texts[0])


def _legal_name(name: str) -> str:
    """Return at most three groups of at most five components and 64 characters each (PS3.5 6.2.1)."""
    groups = []
    for group in name.split("=")[:3]:
        *components, rest = group.split("^", 4)
        groups.append("^".join([*components, rest.replace("^", " ")])[:64])
    return "=".join(groups)
