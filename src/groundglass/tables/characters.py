"""The characters of a CSV: UTF-8, UTF-16 or UTF-32, or Windows-1252 where it cannot be anything else."""

from __future__ import annotations

import codecs
import re

from groundglass.errors import FormatError

_SAVE_AS_UTF8 = "save it as CSV UTF-8 in the spreadsheet"
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The letters of Western languages in Windows-1252, and the signs that texts in them hold.
_WESTERN = frozenset(
    "ªºµßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿŠšŽžŒœŸ\xa0¡¿«»°–—‘’“”•…€£§©®±×·"
)
# First bytes of other files that are given for a CSV.
_OTHER_FORMATS = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}


def decode_table(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, and a note where its characters had to be guessed.

    Args:
        data: The content of the file.

    Raises:
        FormatError: It is no text, or its characters are unknown.
    """
    kind = next((kind for magic, kind in _OTHER_FORMATS.items() if data.startswith(magic)), None)
    if kind is not None:
        raise FormatError(f"it is {kind}, not a CSV: {_SAVE_AS_UTF8}")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:
        encoding = "utf-16-le" if data[1:200:2].count(0) >= data[:200:2].count(0) else "utf-16-be"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = _decode_western(data) if encoding is None else "\0"
        if "\0" in text:
            raise FormatError(f"its characters are neither UTF-8 nor Windows-1252: {_SAVE_AS_UTF8}") from None
        return text, ("it is not UTF-8: its letters were read as those of Windows-1252",)
    if "\0" in text:
        raise FormatError(f"it is damaged, or no text: {_SAVE_AS_UTF8}")
    return text, ()


def _decode_western(data: bytes) -> str:
    """Return the text of a file in Windows-1252, which holds Latin-1, or a NUL if it is in another character set.

    In texts of Western languages no three letters in a row are accented, hardly ever two, in words of small or of
    capital letters, and no quotation mark opens within a word; those of other character sets look so.
    """
    text = data.decode("cp1252", errors="replace")
    if any(not character.isascii() and character not in _WESTERN for character in text):
        return "\0"
    for before, accented, after in re.findall(r"([A-Za-z]?)([^\x00-\x7f\xa0]{2,})([A-Za-z]?)", text):
        word = before + accented + after
        if len(accented) > 2 or word == accented or not (accented.islower() or word.isupper()):
            return "\0"
    return "\0" if re.search(r"[^\W\d_][“„‘]|”[^\W\d_]", text) else text
