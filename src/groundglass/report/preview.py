"""The preview: a montage of the slices with most lesion, with contours and the patient's sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from groundglass.inference.pipeline import SegmentedScan
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.scan import ImageStack

TILE = 360  # width of a tile, and its largest height, in pixels
COLUMNS, SHOWN = 3, 9
GAP, HEADER, FOOTER = 8, 40, 28
LESION_COLOUR, LUNG_COLOUR = (255, 110, 30), (70, 190, 200)
PAPER, INK, FAINT = (16, 18, 22), (235, 238, 240), (150, 156, 162)
NOTE = "lesion: orange   lung: blue   lung window   research use, not a medical device"


def draw_preview(segmented: SegmentedScan, title: str, with_names: bool = False) -> Image.Image:
    """Draw a montage of up to nine slices: those with most lesion, or evenly spaced lung slices where there is none.

    Slices of a volume are in the order from head to feet, images in their own order.

    Args:
        segmented: The scan with its lungs and lesions.
        title: Text at the top.
        with_names: Label the images of a stack by their file names; other slices are labelled by their number.
    """
    scan, chosen = segmented.scan, _choose(segmented)
    labels = [f"slice {number}" for number in segmented.view.slice_numbers]
    if isinstance(scan, ImageStack):
        labels = list(scan.names) if with_names and scan.names else labels
    else:
        chosen = chosen[::-1]
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    tiles = [_tile(segmented, z, _fit(labels[z], TILE // 2, 14)) for z in chosen]
    height = max(tile.height for tile in tiles)
    width = max(columns * (TILE + GAP) + GAP, 560)
    sheet = Image.new("RGB", (width, HEADER + rows * (height + GAP) + FOOTER), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP + 4, 10), _fit(title, width - 2 * GAP, 17), INK, _font(17))
    draw.text((GAP + 4, sheet.height - FOOTER + 5), NOTE, FAINT, _font(13))
    left = (width - columns * (TILE + GAP) + GAP) // 2
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet.paste(tile, (left + column * (TILE + GAP), HEADER + row * (height + GAP) + (height - tile.height) // 2))
    return sheet


def _choose(segmented: SegmentedScan) -> list[int]:
    """Return the slices to draw, from feet to head."""
    area = voxels_per_slice(segmented.lesions)
    if area.any():
        order = np.argsort(-area, kind="stable")[:SHOWN]
        return sorted(int(z) for z in order if area[z])
    with_lung = np.flatnonzero(voxels_per_slice(segmented.lung_field.mask))
    if not len(with_lung):
        with_lung = np.array([z for z, box in enumerate(segmented.lung_field.boxes) if box is not None])
    steps = np.linspace(0, len(with_lung) - 1, min(SHOWN, len(with_lung))).round().astype(int)
    return [int(z) for z in with_lung[steps]]


def _tile(segmented: SegmentedScan, z: int, label: str) -> Image.Image:
    """Draw slice `z` around its lungs, with contours, its label and the patient's sides."""
    rows, columns = displayed_region(segmented, z)
    _, dy, dx = segmented.view.geometry.spacing
    height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
    scale = TILE / max(height, width)
    drawn_size = (max(1, round(width * scale)), max(1, round(height * scale)))

    grey = LUNG_WINDOW.to_grey(segmented.hu[z, rows, columns])
    image = Image.fromarray(grey).resize(drawn_size, Image.Resampling.BICUBIC).convert("RGB")
    pixels = np.asarray(image).copy()
    lung, lesion = segmented.lung_field.mask[z], segmented.lesions[z]
    for mask, colour, strength in ((lung, LUNG_COLOUR, 0.55), (lesion, LESION_COLOUR, 1.0)):
        line = draw_outline(mask[rows, columns], drawn_size)[..., None] * strength
        pixels = (pixels * (1 - line) + np.array(colour) * line).astype(np.uint8)

    tile = Image.new("RGB", (TILE, drawn_size[1]), (0, 0, 0))
    tile.paste(Image.fromarray(pixels), ((TILE - drawn_size[0]) // 2, 0))
    draw = ImageDraw.Draw(tile)
    _label(draw, (6, 4), label, "la")
    if segmented.view.geometry.has_directions:
        _label(draw, (6, tile.height // 2), "R", "lm", 18)
        _label(draw, (TILE - 6, tile.height // 2), "L", "rm", 18)
    if lesion.any():
        share = f"{100 * int((lesion & lung).sum()) / int(lung.sum()):.0f} % of lung" if lung.any() else "lesion"
        _label(draw, (TILE - 6, 4), share, "ra")
    return tile


def displayed_region(segmented: SegmentedScan, z: int) -> tuple[slice, slice]:
    """Return rows and columns of slice `z` around its lungs with a margin; the whole slice where there is no lung."""
    box, size = segmented.lung_field.boxes[z], segmented.slice_size(z)
    if box is None:
        return slice(0, size[0]), slice(0, size[1])
    margin = round(0.06 * (box.right - box.left))
    return (
        slice(max(0, box.top - margin), min(size[0], box.bottom + margin)),
        slice(max(0, box.left - margin), min(size[1], box.right + margin)),
    )


def draw_outline(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.float32]:
    """Draw a smooth line about two pixels wide along the rim of a mask.

    Args:
        mask: (y, x) bool.
        size: (width, height) of the drawing in pixels.

    Returns:
        (height, width) opacity in [0, 1].
    """
    if not mask.any():
        return np.zeros((size[1], size[0]), dtype=np.float32)
    padded = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(padded) > 0.5
    inner = ndimage.binary_erosion(inside, iterations=2)
    return np.asarray(ndimage.gaussian_filter((inside & ~inner).astype(np.float32), 0.6) * 1.25).clip(0, 1)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _label(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, anchor: str, size: int = 14) -> None:
    draw.text(position, text, INK, _font(size), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _fit(text: str, width: int, size: int) -> str:
    """Shorten a text in its middle until it is at most `width` pixels wide."""
    font, remaining = _font(size), text
    while font.getlength(text) > width and len(remaining) > 8:
        remaining = remaining[: len(remaining) // 2 - 1] + remaining[len(remaining) // 2 + 1 :]
        text = f"{remaining[: len(remaining) // 2]}…{remaining[len(remaining) // 2 :]}"
    return text
