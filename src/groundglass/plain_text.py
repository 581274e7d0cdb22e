"""Text that comes from files, made harmless for the terminal, for spreadsheets and for Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# The start of a cell that a spreadsheet computes instead of showing it; some take the wide forms of East Asia too.
_FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*(e[-+]?\d+)?|inf|nan)( to [-+]?[\d.,]+(e[-+]?\d+)?)?", re.IGNORECASE)
# Within a cell: where a spreadsheet separates cells by semicolons, another one begins behind each.
_INNER_FORMULA = re.compile(rf"(?<=;)(?={_FORMULA.pattern})")
_INNER_QUOTED = re.compile(rf"(?<=;)'(?={_FORMULA.pattern})")
_BREAK = re.compile(r"[\t\n\r\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # and changes of direction
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")


def printable(text: str) -> str:
    """Return a text on one line, with `?` for what cannot be printed: escapes, changes of direction, breaks."""
    return text if text.isprintable() else "".join(c if is_visible(c) else "?" for c in text)


def in_unicode(text: str) -> str:
    """Return a text that files can hold, with `?` for bytes and halves of characters that are no characters.

    They come from names of files, from the terminal, and from JSON.
    """
    return text.encode("utf-8", "replace").decode()


def is_visible(character: str) -> bool:
    """Return whether a character can be printed; all kinds of blanks can, such as the ideographic one."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def printable_lines(text: str) -> str:
    """Return a text whose lines are printable."""
    return "\n".join(map(printable, text.split("\n")))


def inert_cell(value: object) -> object:
    """Return a cell of a CSV on one line, without control characters, that no spreadsheet takes for a formula.

    It begins with `'` if it would be one, and so does what follows a semicolon in it.
    """
    if not isinstance(value, str):
        return value
    text = _INNER_FORMULA.sub("'", _CONTROL.sub("?", _BREAK.sub(" ", value)))
    return f"'{text}" if _is_formula(text) and not _NUMBER.fullmatch(text) else text


def original_cell(text: str) -> str:
    """Return what `inert_cell` was given, but for control characters."""
    text = text[1:] if text.startswith("'") and _is_formula(text[1:]) else text
    return _INNER_QUOTED.sub("", text)


def _is_formula(text: str) -> bool:
    return _FORMULA.match(text) is not None


def inert_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: without HTML, links, images, cells and breaks of its own."""
    return _TAG.sub("&lt;", printable(text).replace("\\", r"\\")).replace("](", r"]\(").replace("|", r"\|")


def first_names(names: Sequence[str], most: int) -> str:
    """Return the first names, `most` of them, and an ellipsis if there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
