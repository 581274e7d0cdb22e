"""Text that comes from files, made harmless for the terminal, for spreadsheets and for Markdown."""

from __future__ import annotations

import re

_FORMULA_STARTS = ("=", "+", "-", "@", "\t")  # of a cell that a spreadsheet computes instead of showing it
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*(e[-+]?\d+)?|inf|nan)( to [-+]?[\d.,]+(e[-+]?\d+)?)?", re.IGNORECASE)
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")


def printable(text: str) -> str:
    """Return a text on one line, with `?` for what cannot be printed: escapes, changes of direction, breaks."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def printable_lines(text: str) -> str:
    """Return a text whose lines are printable."""
    return "\n".join(map(printable, text.split("\n")))


def inert_cell(value: object) -> object:
    """Return a cell of a CSV that no spreadsheet takes for a formula: it begins with `'` if it would be one."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # Python's writer does not quote it, and it would begin a row
    return f"'{text}" if text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text) else text


def original_cell(text: str) -> str:
    """Return what `inert_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA_STARTS) else text


def inert_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is: without HTML, links, images, cells and breaks of its own."""
    return _TAG.sub("&lt;", printable(text)).replace("](", r"]\(").replace("|", r"\|")
