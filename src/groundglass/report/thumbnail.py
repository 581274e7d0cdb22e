"""A small picture of a result, cut out of its preview: the slice with most lesion, and the view from the front.

`preview.png` tells in its text chunk `thumbnail` where they are: `left,top,right,bottom` in pixels, joined by blanks.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "thumbnail"
COMPRESSION = 3  # of 9: less than half the time of 6, for a file of the same size
Area = tuple[int, int, int, int]


def mark_areas(preview: Image.Image, areas: list[Area]) -> None:
    """Note in a preview which areas of it make its thumbnail."""
    preview.info[KEY] = " ".join(",".join(map(str, area)) for area in areas)


def save_preview(preview: Image.Image, path: Path) -> None:
    """Write a preview as a PNG file, with the areas of its thumbnail."""
    text = PngInfo()
    text.add_text(KEY, preview.info.get(KEY, ""))
    preview.save(path, pnginfo=text, compress_level=COMPRESSION)


def read_thumbnail(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read the thumbnail of a preview; the whole preview where it names no areas.

    Args:
        path: The preview.
        size: Largest width and height in pixels.

    Raises:
        OSError, ValueError, SyntaxError: The file is missing or damaged.
    """
    with Image.open(path) as image:
        preview = image.convert("RGB")
        areas = [tuple(map(int, area.split(","))) for area in image.info.get(KEY, "").split()]
    parts = [preview.crop(area) for area in areas if len(area) == 4] or [preview]
    height = max(part.height for part in parts)
    joined = Image.new("RGB", (sum(part.width for part in parts), height), preview.getpixel((0, 0)))
    left = 0
    for part in parts:
        joined.paste(part, (left, (height - part.height) // 2))
        left += part.width
    joined.thumbnail(size)
    return joined
