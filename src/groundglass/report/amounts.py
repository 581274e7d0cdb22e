"""How numbers are written: in every report, sentence and table with the same decimal places."""

from __future__ import annotations

import re

_HYPHEN_OF_NUMBER = re.compile(r"(?<![\w.,\N{MINUS SIGN}-])-(?=\d)")  # of a date or a name it stands after a character


def format_number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """Format a number with this many decimal places.

    None becomes `unknown`. What is more than 0 is never written as 0, but as `<0.1`, unless its sign is asked for.
    """
    if value is None:
        return "unknown"
    text = true_minus(f"{value:{'+' if sign else ''}z.{digits}f}")
    return f"<{10**-digits:.{digits}f}" if value > 0 and not sign and float(text) == 0 else text


def format_level(value: float | None) -> str:
    """Format HU, or a position in mm, without decimal places: 0 is a value as any other there, and not nothing."""
    return "unknown" if value is None else true_minus(f"{value:z.0f}")


def true_minus(text: str) -> str:
    """Return a text for people in which negative numbers have a minus sign, where programs write a hyphen."""
    return _HYPHEN_OF_NUMBER.sub("\N{MINUS SIGN}", text)


def percent_of(part: int, whole: int) -> float:
    """Return a share in % with two decimal places; with two digits where those would be 0, as of a tiny lesion."""
    share = 100 * part / whole
    return round(share, 2) or float(f"{share:.2g}")


def format_ml(volume_ml: float | None) -> str:
    """Format a volume with as many decimal places as are worth stating."""
    return format_number(volume_ml, ml_digits(volume_ml or 0.0))


def ml_digits(volume_ml: float) -> int:
    """Return how many decimal places of a volume are worth stating."""
    if abs(volume_ml) >= 10:
        return 0
    return 1 if abs(volume_ml) >= 1 or volume_ml == 0 else 2
