"""The font of the pictures: DejaVu Sans, which has the letters of Europe, Greek, Cyrillic, Hebrew and Arabic.

Pillow's own has ASCII alone, and draws a box in place of an umlaut.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from io import BytesIO

from PIL import ImageFont


@cache
def picture_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font at a height in pixels."""
    content = (resources.files("groundglass.font") / "DejaVuSans.ttf").read_bytes()
    return ImageFont.truetype(BytesIO(content), size)


def fit_text(text: str, width: int, size: int) -> str:
    """Shorten a text in its middle until it is at most `width` pixels wide."""
    font, remaining = picture_font(size), text
    while font.getlength(text) > width and len(remaining) > 8:
        remaining = remaining[: len(remaining) // 2 - 1] + remaining[len(remaining) // 2 + 1 :]
        text = f"{remaining[: len(remaining) // 2]}…{remaining[len(remaining) // 2 :]}"
    return text
