"""The text of DICOM headers: decoded by their character set (PS3.3 C.12.1.1.2), or as well as can be where it is wrong.

Where no character set is stated, or none that exists, text is UTF-8 if it can be, otherwise that of the escape
sequences in it, otherwise Latin-1. Characters that cannot be decoded become the replacement character.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from pydicom import DataElement, Dataset
from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

UNICODE = "ISO_IR 192"
_CHARACTER_SET = BaseTag(0x00080005)
_TEXT = ("PN", "LO", "SH", "LT", "ST", "UC", "UT")
_DELIMITERS = {0x5E, 0x3D, 0x5C, 0x0D, 0x0A, 0x09, 0x0C}  # ^ = \ and control characters: they end a code extension
_ESCAPE = b"\x1b"
_ESCAPE_SEQUENCE = re.compile(r"\x1b[ -/]+[0-~]")  # ISO 2022: intermediate bytes, then a final one
# {number of the ISO registry in a defined term: Python's codec}, as tables C.12-2 to C.12-5 have them.
_CODECS = {
    **{100: "latin_1", 101: "iso8859_2", 109: "iso8859_3", 110: "iso8859_4", 144: "iso8859_5", 127: "iso8859_6"},
    **{126: "iso8859_7", 138: "iso8859_8", 148: "iso8859_9", 203: "iso8859_15", 166: "iso8859_11", 13: "shift_jis"},
    **{87: "iso2022_jp", 159: "iso2022_jp_2", 149: "euc_kr", 58: "iso_ir_58", 192: "utf_8"},
}
# Codecs of text without escape sequences under the multi-byte sets, which need such sequences.
_WITHOUT_ESCAPES = {"iso2022_jp": "shift_jis", "iso2022_jp_2": "euc_jp", "iso_ir_58": "gb18030", "euc_kr": "cp949"}
# Characters of Windows-1252 where ISO sets have control characters: programs write it under the names of these.
_OF_WINDOWS = {n: bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(0x80, 0xA0)}
# What an escape sequence may switch to; pydicom decodes by those that it is given.
_EXTENSIONS = (
    *("iso8859", "latin_1", "shift_jis", "iso2022_jp", "iso2022_jp_2", "euc_kr", "iso_ir_58"),
    *("iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_126", "iso_ir_127", "iso_ir_138", "iso_ir_144", "iso_ir_148"),
    "iso_ir_166",
)
# Codecs under names of their own that some programs write, such as `UTF-8`, `ISO-8859-1` or `windows-1251`.
_OWN_NAMES = re.compile(r"utf-?8|iso8859-\d+|cp\d+|koi8-r|gb2312|gbk|gb18030|big5|shift_jis|euc_jp|euc_kr")
_DEFINED_TERM = re.compile(r"(?:ISO)?[\W_]*(?:2022)?[\W_]*(?:IR)?[\W_]*(\d+)")


def decode_header(header: Dataset) -> None:
    """Decode the text of a header that pydicom has read, in place, if anything in it is more than plain ASCII.

    Use it inside `silence_pydicom`, before the header's text is used.
    """
    stated = [_codec(term) for term in _terms(header)]
    for element in list(header.values()):  # as they were read: pydicom converts them when they are asked for by tag
        if isinstance(element, RawDataElement) and _is_beyond_ascii(element):
            stored = (element.value or b"").rstrip(b"\0 ")  # padding damages a text that ends in a set of two bytes
            text = decode_bytes(stored, _encodings(stated, stored), _DELIMITERS)
            text = _ESCAPE_SEQUENCE.sub("", text).rstrip("\0 ").translate(_OF_WINDOWS)
            header[element.tag] = DataElement(element.tag, _representation(element), text)
    is_implicit, is_little_endian = header.original_encoding
    header.set_original_encoding(is_implicit, is_little_endian, _encodings(stated, b""))  # for what is decoded later


def _is_beyond_ascii(element: RawDataElement) -> bool:
    """Return whether an element holds bytes of text that are not all plain ASCII."""
    if not isinstance(element.value, bytes):
        return False
    return (not element.value.isascii() or _ESCAPE in element.value) and _representation(element) in _TEXT


def _representation(element: RawDataElement) -> str:
    try:
        return element.VR or dictionary_VR(element.tag)
    except KeyError:  # a private element without a value representation
        return "UN"


def _encodings(stated: Sequence[str | None], text: bytes) -> list[str]:
    """Return Python's codecs for a text: that of what comes before an escape sequence, and those that may follow one.

    Args:
        stated: The codecs of the values of Specific Character Set; None for plain ASCII and for unknown terms.
        text: The bytes of the text.
    """
    first = stated[0] if stated else None
    if first in (None, "latin_1") and _can_decode(text, "utf_8"):
        first = "utf_8"
    elif _ESCAPE not in text:
        candidates = (_WITHOUT_ESCAPES.get(codec, codec) for codec in stated if codec)
        first = next((codec for codec in candidates if _can_decode(text, codec)), first)
    return [first or "latin_1", *_EXTENSIONS]


def _terms(header: Dataset) -> list[str]:
    """Return the values of Specific Character Set, as they are written."""
    element = header.get_item(_CHARACTER_SET, keep_deferred=True)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("latin_1").split("\\")
    values = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
    return [str(each).strip(" \0") for each in values]


def _codec(term: str) -> str | None:
    """Return Python's codec for a defined term, also a misspelt one; None for plain ASCII, and for unknown terms."""
    defined = _DEFINED_TERM.fullmatch(term.upper())
    if defined and int(defined[1]) in _CODECS:
        return _CODECS[int(defined[1])]
    try:
        name = codecs.lookup(term).name
    except (LookupError, ValueError):
        return "gb18030" if "GB" in term.upper() else None
    return name if _OWN_NAMES.fullmatch(name) else None


def _can_decode(text: bytes, codec: str) -> bool:
    try:
        text.decode(codec)
    except (UnicodeError, LookupError):
        return False
    return True
