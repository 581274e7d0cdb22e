"""Names of patients that spreadsheets wrote in several ways: 001, 1, 1.0 and 1,0 are one patient."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from decimal import Decimal

_WHOLE_NUMBER = re.compile(r"0*(\d+)(\.0+|,0)?")
_UNKNOWN = (
    *("", "nan", "none", "null", "#n/a", "na", "n/a", "n.a.", "<na>", "nil", "-", "--", "\u2013", "?", ".", "unknown"),
    *("unbekannt", "k.a.", "inconnu", "desconocido", "sconosciuto", "desconhecido", "未知", "不明"),
)
_ROUNDED_NUMBER = re.compile(r"\d([.,]\d+)?e\+?\d{1,2}")  # as spreadsheets show long ones


def same_patients(names: Iterable[str], on_note: Callable[[str], None]) -> dict[str, str]:
    """Return for each name the first one that is equal but for case, zeros in front and `.0` behind.

    Args:
        names: Names of patients, as they are stated.
        on_note: Called with a sentence where names are taken for one, or are numbers that were rounded.
    """
    first: dict[str, str] = {}
    same = {name: first.setdefault(_key(name), name) for name in names}
    joined = [f"{name} and {other}" for name, other in same.items() if name != other]
    if joined:
        more = f" (and {len(joined) - 3} more)" if len(joined) > 3 else ""
        on_note(f"taken for one patient each: {', '.join(joined[:3])}{more}")
    rounded = next((name for name in same if _ROUNDED_NUMBER.fullmatch(name.casefold())), None)
    if rounded:
        on_note(
            f"the patient {rounded} was probably rounded by a spreadsheet, so that several may have become one: "
            "format the column as text, and enter the numbers anew"
        )
    return same


def _key(name: str) -> str:
    key = re.sub(r'^="?(.*?)"?$', r"\1", unicodedata.normalize("NFKC", name).casefold())
    if _ROUNDED_NUMBER.fullmatch(key):
        return f"{Decimal(key.replace(',', '.')):f}"
    number = _WHOLE_NUMBER.fullmatch(key)
    return number[1] if number else " ".join(key.split())


def is_unknown(patient: str) -> bool:
    """Return whether a cell states no patient, as programs and people write it."""
    return patient.lower() in _UNKNOWN
