"""Overview of a prepared folder: tables for a terminal, and Figure 5 of the paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich import box
from rich.table import Table

from groundglass.data.duplicates import SAME_ANATOMY, SimilarSlices
from groundglass.data.labels import CLASS_LABELS, UNSTATED
from groundglass.data.prepared import Manifest, PreparedCase, read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import PARTS, Split
from groundglass.errors import DatasetError
from groundglass.files import write_atomic
from groundglass.font import fit_text, picture_font
from groundglass.plain_text import printable
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.kinds import IntensityKind

CLASS_NAMES = {**{label: name for name, label in CLASS_LABELS.items()}, UNSTATED: "class not stated"}
CLASS_COLOURS = {1: (86, 180, 233), 2: (230, 159, 0), 3: (0, 158, 115), UNSTATED: (204, 121, 167)}  # of Okabe and Ito
CLASS_OPACITY = 0.45
# Lengths in pixels: width of a slice among the examples and in a pair, gaps and margins.
EXAMPLE_WIDTH, PAIR_WIDTH, GAP, HEADER, FOOTER = 300, 190, 8, 8, 34
NAME_SIZE, LEGEND_LINE = 13, 24
EXAMPLE_COLUMNS, PAIR_COLUMNS = 4, 3
BACKGROUND, TEXT, FAINT_TEXT, SAME_PATIENT = (16, 18, 22), (235, 238, 240), (150, 156, 162), (230, 159, 0)


def source_table(manifest: Manifest) -> Table:
    """Return a table with a row for each source: cases, patients, slices, lesion pixels by class."""
    classes = sorted({label for case in manifest.cases for label in case.pixels})
    table = _table(
        "source", "cases", "patient\ngroups", "slices\nkept", "lesion\nslices", *map(_pixel_heading, classes)
    )
    for source in dict.fromkeys(case.source for case in manifest.cases):
        cases = [case for case in manifest.cases if case.source == source]
        groups = {group for case in cases for group in case.group}
        pixels = (f"{sum(case.pixels.get(label, 0) for case in cases):,}" for label in classes)
        kept, with_lesion = sum(len(case.number) for case in cases), sum(case.lesion_slices for case in cases)
        table.add_row(source, f"{len(cases)}", f"{len(groups)}", f"{kept}", f"{with_lesion}", *pixels)
    return table


def _pixel_heading(label: int) -> str:
    """Return the heading of a column of pixel counts."""
    name = {2: "consoli-\ndation", UNSTATED: "class not\nstated"}.get(label, CLASS_NAMES[label].replace("-", "-\n"))
    return f"{name}, px"


def case_table(manifest: Manifest) -> Table:
    """Return a table with a row for each case: intensities and notes.

    Single pictures of the same source and kind share a row if they have no notes.
    """
    table = _table("case", "lesion\nslices", "intensities", "HU at grey\n0 and 255", "spacing\nmm (z y x)", "notes")
    rows: dict[object, list[PreparedCase]] = {}
    for case in manifest.cases:
        shares_row = case.spacing_mm is None and not case.notes
        rows.setdefault((case.source, case.kind) if shares_row else case.name, []).append(case)
    for cases in rows.values():
        first = cases[0]
        name = first.name if len(cases) == 1 else f"{first.source}, {len(cases)}"
        spacing = "-" if first.spacing_mm is None else " ".join(f"{mm:.3g}" for mm in first.spacing_mm)
        lesion = f"{sum(case.lesion_slices for case in cases)}"
        table.add_row(name, lesion, first.kind.value, _window_hu(cases), spacing, "; ".join(first.notes))
    return table


def joined_groups(manifest: Manifest) -> tuple[str, ...]:
    """Describe each patient group of more than one case on a line."""
    members: dict[str, list[str]] = {}
    for case in manifest.cases:
        for group in dict.fromkeys(case.group):
            members.setdefault(group, []).append(case.name)
    return tuple(f"one patient: {', '.join(names)}" for names in members.values() if len(names) > 1)


def _table(*columns: str) -> Table:
    """Return an empty table without lines between columns, to fit a narrow terminal; the last column is folded."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1], overflow="fold", vertical="top")
    return table


def split_table(splits: Sequence[Split]) -> Table:
    """Return a table with a row for each split: the number of cases or slices in each part, and the rule."""
    table = _table("split", "train", "validation", "test", "rule")
    for split in splits:
        table.add_row(split.name, *(_describe_members(split.part(part)) for part in PARTS), split.rule)
    return table


def _describe_members(members: Sequence[str]) -> str:
    """Return the number of whole cases and of single slices, a line each."""
    slices = sum(":" in member for member in members)
    counts = {"cases": len(members) - slices, "slices": slices}
    return "\n".join(f"{count} {unit}" for unit, count in counts.items() if count) or "-"


def _window_hu(cases: Sequence[PreparedCase]) -> str:
    """Return the HU of grey levels 0 and 255, averaged over pictures that share a row; "-" if not a window."""
    if cases[0].kind is not IntensityKind.WINDOW_8BIT:
        return "-"
    low = np.concatenate([case.intercept for case in cases])
    high = low + 255 * np.concatenate([case.slope for case in cases])
    return f"{'about ' if len(cases) > 1 else ''}{low.mean():.0f}, {high.mean():.0f}"


def write_examples(prepared: Path, path: Path, count: int = 12) -> None:
    """Draw examples of a prepared folder as a PNG.

    Raises:
        DatasetError: The folder is not complete, or no slice shows lesion.
        OutputError: The picture cannot be written.
    """
    _, slices = read_prepared(prepared)
    if not slices.has_lesion.any():
        raise DatasetError(f"{prepared} holds no slice with lesion: there are no examples to draw")
    buffer = io.BytesIO()
    draw_examples(slices, count).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def draw_examples(slices: Slices, count: int = 12) -> Image.Image:
    """Draw slices over the whole range of lesion sizes, with a colour for each class, as in Figure 5 of the paper.

    Args:
        slices: The slices of a prepared folder.
        count: Largest number of slices to draw.
    """
    chosen = _choose_examples(slices, count)
    height, width = (round(n * EXAMPLE_WIDTH / slices.hu.shape[2]) for n in slices.hu.shape[1:])
    columns = min(EXAMPLE_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    labels = sorted(set(np.unique(slices.labels[chosen]).tolist()) - {0})
    sheet_width, legend_top = columns * (width + GAP) + GAP, HEADER + rows * (height + GAP)
    legend = _place_legend(labels, sheet_width)
    legend_height = FOOTER + max((down for _, _, down in legend), default=0)
    sheet = Image.new("RGB", (sheet_width, legend_top + legend_height), BACKGROUND)
    for position, index in enumerate(chosen):
        row, column = divmod(position, columns)
        tile = _draw_slice(slices.hu[index], slices.labels[index], (width, height), slices.name[index])
        sheet.paste(tile, (GAP + column * (width + GAP), HEADER + row * (height + GAP)))
    _draw_legend(ImageDraw.Draw(sheet), legend, legend_top)
    return sheet


def draw_pairs(slices: Slices, pairs: Sequence[SimilarSlices], count: int = 24) -> Image.Image:
    """Draw the closest pairs of slices of different patients side by side, with a frame around near-duplicates.

    Args:
        slices: The slices that the pairs point to.
        pairs: Pairs in descending order of similarity.
        count: Number of pairs to draw at most, unless more are near-duplicates.
    """
    near_duplicates = sum(pair.similarity >= SAME_ANATOMY for pair in pairs)
    shown = pairs[: max(count, near_duplicates)]
    height, width = (round(n * PAIR_WIDTH / slices.hu.shape[2]) for n in slices.hu.shape[1:])
    column_width, row_height = 2 * width + 3 * GAP, height + GAP + FOOTER
    rows = -(-len(shown) // PAIR_COLUMNS)
    sheet = Image.new("RGB", (PAIR_COLUMNS * column_width + GAP, rows * row_height + FOOTER), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    names, unlabelled = slices.name, np.zeros_like(slices.labels[0])
    for position, pair in enumerate(shown):
        row, column = divmod(position, PAIR_COLUMNS)
        top, left = row * row_height + GAP, column * column_width + GAP
        for side, index in enumerate((pair.first, pair.second)):
            tile = _draw_slice(slices.hu[index], unlabelled, (width, height), names[index])
            sheet.paste(tile, (left + side * (width + GAP // 2), top))
        is_same = pair.similarity >= SAME_ANATOMY
        if is_same:
            frame = (left - 3, top - 3, left + 2 * width + GAP // 2 + 2, top + height + 2)
            draw.rectangle(frame, None, SAME_PATIENT, 3)
        verdict = "one patient" if is_same else "below the limit"
        text = f"{pair.similarity:.2f}{', mirrored' if pair.mirrored else ''}: {verdict}"
        draw.text((left, top + height + 6), text, SAME_PATIENT if is_same else FAINT_TEXT, picture_font(14))
    note = f"closest slices of different patients; framed: similarity of {SAME_ANATOMY} or more, taken for one patient"
    draw.text((GAP, rows * row_height + 6), note, TEXT, picture_font(14))
    return sheet


def _choose_examples(slices: Slices, count: int) -> NDArray[np.int64]:
    """Return indices of lesion slices, evenly spaced in the order of lesion area within each source."""
    area = (slices.labels > 0).sum((1, 2))
    sources = list(dict.fromkeys(slices.source[slices.has_lesion].tolist()))
    chosen: list[int] = []
    for rank, source in enumerate(sources):
        indices = np.flatnonzero(slices.has_lesion & (slices.source == source))
        ordered = indices[np.argsort(area[indices], kind="stable")]
        share = count // len(sources) + (rank < count % len(sources))
        positions = np.linspace(0, len(ordered) - 1, min(share, len(ordered))).round().astype(int)
        chosen += ordered[positions].tolist()
    return np.array(chosen, dtype=np.int64)


def _draw_slice(hu: NDArray[np.int16], labels: NDArray[np.uint8], size: tuple[int, int], name: str) -> Image.Image:
    """Draw a slice of (height, width) pixels at `size` (width, height), with its labels in colour and its name."""
    grey = Image.fromarray(LUNG_WINDOW.to_grey(hu.astype(np.float32)))
    pixels = np.asarray(grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")).astype(np.float32)
    resized = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    for label, colour in CLASS_COLOURS.items():
        inside = resized == label
        pixels[inside] = (1 - CLASS_OPACITY) * pixels[inside] + CLASS_OPACITY * np.array(colour)
    tile = Image.fromarray(pixels.astype(np.uint8))
    text = fit_text(printable(name), size[0] - 10, NAME_SIZE)
    ImageDraw.Draw(tile).text((5, 3), text, TEXT, picture_font(NAME_SIZE), stroke_width=2, stroke_fill=(0, 0, 0))
    return tile


def _place_legend(labels: Sequence[int], width: int) -> list[tuple[int, int, int]]:
    """Return (label, left, down) in pixels of each label, on as many lines as a sheet of this width needs."""
    placed: list[tuple[int, int, int]] = []
    left, down = GAP + 4, 0
    for label in labels:
        length = 20 + int(picture_font(14).getlength(CLASS_NAMES[label]))
        if placed and left + length > width - GAP:
            left, down = GAP + 4, down + LEGEND_LINE
        placed.append((label, left, down))
        left += length + 28
    return placed


def _draw_legend(draw: ImageDraw.ImageDraw, legend: Sequence[tuple[int, int, int]], top: int) -> None:
    """Draw the colour and the name of each label in its place."""
    for label, left, down in legend:
        draw.rectangle((left, top + down + 9, left + 14, top + down + 23), CLASS_COLOURS[label])
        draw.text((left + 20, top + down + 7), CLASS_NAMES[label], TEXT, picture_font(14))
