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
