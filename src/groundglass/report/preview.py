"""The preview, on white: slices spread over the lungs' height, with contours, and lungs and lesions in 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from groundglass.font import fit_text, picture_font
from groundglass.inference.pipeline import SegmentedScan
from groundglass.parallel import map_in_threads
from groundglass.report.colours import LUNG, Rgb, named_colours
from groundglass.report.findings import Findings
from groundglass.report.image_numbers import place_image
from groundglass.report.solid_view import Direction, make_solid_model
from groundglass.report.thumbnail import Area, mark_areas
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.morphology import erode
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.scan import ImageStack
from groundglass.workers import available_cores

TILE = 360  # width of a tile, and its largest height, in pixels
COLUMNS, SHOWN = 3, 9
MIN_VIEW = 240  # height of a 3-D view in pixels, or that of the tiles if it is larger
LEAST_HEIGHT_MM = 40.0  # of the lungs in a scan: a slab of a few slices shows nothing in 3-D
SIDE_ROOM = 26  # pixels at both sides of a 3-D view, for the patient's sides
GAP, HEADER, FOOTER, VIEW_TITLE = 8, 58, 28, 24
PAPER, INK, FAINT = (255, 255, 255), (26, 29, 33), (86, 94, 103)
ON_SLICE = (235, 238, 240)  # of words on a slice, with a dark rim
NOTE = "lung window   research use, not a medical device"
VIEWS: dict[Direction, tuple[str, str, str]] = {  # what stands above, at the left and at the right
    "front": ("from the front", "R", "L"),
    "back": ("from the back", "L", "R"),
    "left": ("from the left", "A", "P"),
}


def draw_preview(segmented: SegmentedScan, findings: Findings, with_names: bool = False) -> Image.Image:
    """Draw a montage of up to nine slices and, for a volume, three views of lungs and lesions.

    The height of the lungs is divided into nine parts; each is shown by the slice with most lesion in it, or by its
    middle slice. So the slice with most lesion of all is among them, and is marked. Slices of a volume are in the order
    from head to feet. Of pictures, those with most lesion are shown, in their own order.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        with_names: Label the images of a stack by their file names; other slices are labelled by their number.
    """
    scan, chosen = segmented.scan, choose_slices(segmented)
    colours = tuple(named_colours(findings).values())
    most = int(voxels_per_slice(segmented.lesions).argmax())
    tiles = [
        _tile(segmented, z, _name(segmented, findings, z, with_names), colours, is_most=z == most and len(chosen) > 1)
        for z in chosen
    ]
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    height = max(tile.height for tile in tiles)
    view_height = max(height, MIN_VIEW)
    views = [] if isinstance(scan, ImageStack) else _draw_views(segmented, (TILE, view_height), colours)
    width = max(columns * (TILE + GAP) + GAP + (TILE + GAP if views else 0), _footer_width(findings))
    inner = max(rows * (height + GAP), len(views) * (view_height + GAP))
    sheet = Image.new("RGB", (width, HEADER + inner + FOOTER), PAPER)
    _write_header(sheet, findings)
    left = GAP if views else (width - columns * (TILE + GAP) + GAP) // 2
    placed: list[Area] = []
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        at = (left + column * (TILE + GAP), HEADER + row * (height + GAP) + (height - tile.height) // 2)
        sheet.paste(tile, at)
        placed.append((*at, at[0] + tile.width, at[1] + tile.height))
    for index, view in enumerate(views):
        sheet.paste(view, (width - TILE - GAP, HEADER + index * (view_height + GAP)))
    front: list[Area] = [(width - TILE - GAP, HEADER, width - GAP, HEADER + view_height)] if views else []
    mark_areas(sheet, [placed[chosen.index(most) if most in chosen else len(chosen) // 2], *front])
    return sheet


def choose_slices(segmented: SegmentedScan, count: int = SHOWN) -> list[int]:
    """Return the slices to show: of a volume from head to feet, of pictures in their own order."""
    area = voxels_per_slice(segmented.lesions)
    with_lung = np.flatnonzero(voxels_per_slice(segmented.lung_field.mask))
    if not len(with_lung):
        with_lung = np.array([z for z, box in enumerate(segmented.lung_field.boxes) if box is not None])
    shown = np.union1d(with_lung, np.flatnonzero(area))
    if isinstance(segmented.scan, ImageStack):
        return sorted(int(z) for z in shown[np.argsort(-area[shown], kind="stable")[:count]])
    parts = [part for part in np.array_split(shown, count) if len(part)]
    return [int(part[area[part].argmax()] if area[part].any() else part[len(part) // 2]) for part in parts][::-1]


def _name(segmented: SegmentedScan, findings: Findings, z: int, with_names: bool) -> str:
    number = int(segmented.view.slice_numbers[z])
    if with_names and isinstance(segmented.scan, ImageStack) and segmented.scan.names:
        return segmented.scan.names[number]
    return place_image(findings, number)


def _write_header(sheet: Image.Image, findings: Findings) -> None:
    """Write what the scan is and what was found at the top, and the meaning of the colours at the bottom."""
    draw, width = ImageDraw.Draw(sheet), sheet.width - 2 * GAP - 8
    identity = findings.input.identity
    date = f"{findings.input.scanned:%Y-%m-%d}" if findings.input.scanned else ""
    names = (findings.input.label, identity.source if identity else None, date)
    title = "   ".join(dict.fromkeys(name for name in names if name))
    draw.text((GAP + 4, 8), fit_text(title or "groundglass", width, 18), INK, picture_font(18))
    draw.text((GAP + 4, 33), fit_text(findings.summary, width, 15), FAINT if title else INK, picture_font(15))
    y, (keys, end) = sheet.height - FOOTER + 5, _colour_keys(findings)
    for x, name, colour in keys:
        draw.rectangle((x, y + 3, x + 11, y + 14), fill=colour)
        draw.text((x + 17, y), name, FAINT, picture_font(13))
    draw.text((end, y), NOTE, FAINT, picture_font(13))


def _colour_keys(findings: Findings) -> tuple[list[tuple[int, str, Rgb]], int]:
    """Return where the footer names each colour, the name and the colour, and where the note behind them begins."""
    keys, x = [], GAP + 4
    for name, colour in (*named_colours(findings).items(), ("lung", LUNG)):
        keys.append((x, name, colour))
        x += 17 + round(picture_font(13).getlength(name)) + 16
    return keys, x


def _footer_width(findings: Findings) -> int:
    return _colour_keys(findings)[1] + round(picture_font(13).getlength(NOTE)) + GAP + 4


def _tile(segmented: SegmentedScan, z: int, label: str, colours: Sequence[Rgb], is_most: bool) -> Image.Image:
    """Draw slice `z` around its lungs, with contours, its label and the patient's sides."""
    pixels = draw_slice(segmented, z, TILE, colours)
    tile = Image.new("RGB", (TILE, pixels.height), (0, 0, 0))
    tile.paste(pixels, ((TILE - pixels.width) // 2, 0))
    draw = ImageDraw.Draw(tile)
    _label(draw, (6, 4), fit_text(label, TILE * 2 // 3, 14), "la")
    if segmented.view.geometry.has_directions:
        _label(draw, (6, tile.height // 2), "R", "lm", 18)
        _label(draw, (TILE - 6, tile.height // 2), "L", "rm", 18)
    lung, lesion = segmented.lung_field.mask[z], segmented.lesions[z]
    if lesion.any():
        percent = 100 * int((lesion & lung).sum()) / max(1, int(lung.sum()))
        share = f"{percent:.0f} %" if percent >= 1 else "below 1 %"
        _label(draw, (TILE - 6, 4), f"{share} of lung" if lung.any() else "lesion", "ra")
        if is_most:
            draw.rectangle((0, 0, TILE - 1, tile.height - 1), outline=colours[0], width=2)
            _label(draw, (6, tile.height - 6), "most lesion", "ls")
    return tile


def draw_slice(segmented: SegmentedScan, z: int, side: int, colours: Sequence[Rgb]) -> Image.Image:
    """Draw slice `z` around its lungs with the contours of lungs and lesions.

    Args:
        segmented: The scan with its lungs and lesions.
        z: The slice of the view.
        side: Longest side of the picture in pixels.
        colours: Those of the classes of lesions.
    """
    rows, columns = displayed_region(segmented, z)
    _, dy, dx = segmented.view.geometry.spacing
    height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
    scale = side / max(height, width)
    drawn_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = LUNG_WINDOW.to_grey(segmented.hu[z, rows, columns])
    pixels = np.asarray(Image.fromarray(grey).resize(drawn_size, Image.Resampling.BICUBIC).convert("RGB")).copy()
    classes = segmented.class_map[z, rows, columns]
    lesions = [(classes == number, colour, 1.0) for number, colour in enumerate(colours, start=1)]
    for mask, colour, strength in ((segmented.lung_field.mask[z, rows, columns], LUNG, 0.55), *lesions):
        line = draw_outline(mask, drawn_size)[..., None] * strength
        pixels = (pixels * (1 - line) + np.array(colour) * line).astype(np.uint8)
    return Image.fromarray(pixels)


def _draw_views(segmented: SegmentedScan, size: tuple[int, int], colours: Sequence[Rgb]) -> list[Image.Image]:
    """Draw lungs and lesions from three sides; nothing of few slices, or where it is not known how the patient lies."""
    geometry = segmented.view.geometry
    height_mm = len(np.flatnonzero(voxels_per_slice(segmented.lung_field.mask))) * geometry.spacing[0]
    if not (geometry.in_mm and geometry.has_directions and height_mm >= LEAST_HEIGHT_MM):
        return []
    model = make_solid_model(segmented)
    if model is None:
        return []

    def draw(direction: Direction) -> Image.Image:
        return model.draw(direction, (size[0] - 2 * SIDE_ROOM, size[1] - VIEW_TITLE), colours)

    views = []
    for (name, left, right), drawn in zip(VIEWS.values(), map_in_threads(draw, VIEWS, available_cores()), strict=True):
        view = Image.new("RGB", size, PAPER)
        view.paste(drawn, (SIDE_ROOM, VIEW_TITLE))
        words = ImageDraw.Draw(view)
        words.text((TILE // 2, 4), name, INK, picture_font(14), anchor="ma")
        words.text((6, view.height // 2), left, INK, picture_font(18), anchor="lm")
        words.text((TILE - 6, view.height // 2), right, INK, picture_font(18), anchor="rm")
        views.append(view)
    return views


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
    rim = (inside & ~erode(inside, 2)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(rim, (5, 5), 0.6, borderType=cv2.BORDER_REFLECT) * 1.25, np.float32).clip(0, 1)


def _label(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, anchor: str, size: int = 14) -> None:
    draw.text(position, text, ON_SLICE, picture_font(size), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
