"""What a prepared folder holds, for a person: tables for a terminal, and Figure 5 of the paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.table import Table

from groundglass.data.duplicates import SAME_ANATOMY, SimilarSlices
from groundglass.data.prepared import Manifest, PreparedCase, read_prepared
from groundglass.data.slices import CLASS_LABELS, UNSTATED, Slices
from groundglass.data.splits import PARTS, Split
from groundglass.errors import DatasetError
from groundglass.files import write_atomic
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.kinds import IntensityKind

NAMES = {**{label: name for name, label in CLASS_LABELS.items()}, UNSTATED: "class not stated"}
COLOURS = {1: (86, 180, 233), 2: (230, 159, 0), 3: (0, 158, 115), UNSTATED: (204, 121, 167)}  # Okabe and Ito's
TILE, GAP, COLUMNS, HEADER, FOOTER = 300, 8, 4, 8, 34
OPACITY = 0.45
PAIR_TILE, PAIR_COLUMNS = 190, 3
PAPER, INK, FAINT, SAME_COLOUR = (16, 18, 22), (235, 238, 240), (150, 156, 162), (230, 159, 0)


def source_table(manifest: Manifest) -> Table:
    """A row a source: cases, patients, slices, lesion pixels by class."""
    classes = sorted({label for case in manifest.cases for label in case.pixels})
    table = _table("source", "cases", "patient\ngroups", "slices\nkept", "lesion\nslices", *map(_pixels_of, classes))
    for source in dict.fromkeys(case.source for case in manifest.cases):
        cases = [case for case in manifest.cases if case.source == source]
        groups = {group for case in cases for group in case.group}
        pixels = (f"{sum(case.pixels.get(label, 0) for case in cases):,}" for label in classes)
        kept, lesion = (sum(n) for n in zip(*((len(c.number), c.lesion_slices) for c in cases), strict=True))
        table.add_row(source, f"{len(cases)}", f"{len(groups)}", f"{kept}", f"{lesion}", *pixels)
    return table


def _pixels_of(label: int) -> str:
    """The head of a column of pixel counts."""
    name = {2: "consoli-\ndation", UNSTATED: "class not\nstated"}.get(label, NAMES[label].replace("-", "-\n"))
    return f"{name}, px"


def case_table(manifest: Manifest) -> Table:
    """A row a case with its intensities and notes; single pictures of one kind without notes share a row."""
    table = _table("case", "lesion\nslices", "intensities", "HU at grey\n0 and 255", "spacing\nmm (z y x)", "notes")
    rows: dict[object, list[PreparedCase]] = {}
    for case in manifest.cases:
        shared = case.spacing_mm is None and not case.notes
        rows.setdefault((case.source, case.kind) if shared else case.name, []).append(case)
    for cases in rows.values():
        first = cases[0]
        name = first.name if len(cases) == 1 else f"{first.source}, {len(cases)}"
        spacing = "-" if first.spacing_mm is None else " ".join(f"{mm:.3g}" for mm in first.spacing_mm)
        lesion = f"{sum(case.lesion_slices for case in cases)}"
        table.add_row(name, lesion, first.kind.value, _window(cases), spacing, "; ".join(first.notes))
    return table


def joined_groups(manifest: Manifest) -> tuple[str, ...]:
    """The patient groups of more than one case, a line each."""
    members: dict[str, list[str]] = {}
    for case in manifest.cases:
        for group in dict.fromkeys(case.group):
            members.setdefault(group, []).append(case.name)
    return tuple(f"one patient: {', '.join(names)}" for names in members.values() if len(names) > 1)


def _table(*columns: str) -> Table:
    """Without lines between columns, to fit a narrow terminal; only the last column is folded."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1], overflow="fold", vertical="top")
    return table


def split_table(splits: Sequence[Split]) -> Table:
    """A row a protocol: members of each part, a case or a single slice each."""
    table = _table("split", "train", "validation", "test", "rule")
    for split in splits:
        table.add_row(split.name, *(_counted(split.part(part)) for part in PARTS), split.rule)
    return table


def _counted(members: Sequence[str]) -> str:
    slices = sum(":" in member for member in members)
    counts = {"cases": len(members) - slices, "slices": slices}
    return "\n".join(f"{count} {what}" for what, count in counts.items() if count) or "-"


def _window(cases: Sequence[PreparedCase]) -> str:
    """The HU that grey levels 0 and 255 stand for; over several pictures, the mean of each."""
    if cases[0].kind is not IntensityKind.LUNG_WINDOW_8BIT:
        return "-"
    low = np.concatenate([case.intercept for case in cases])
    high = low + 255 * np.concatenate([case.slope for case in cases])
    return f"{'about ' if len(cases) > 1 else ''}{low.mean():.0f}, {high.mean():.0f}"


def write_examples(prepared: Path, path: Path, count: int = 12) -> None:
    """Draw examples of a prepared folder as a PNG.

    Raises:
        DatasetError: The folder is not whole, or no slice shows lesion.
        OutputError: The picture cannot be written.
    """
    _, slices = read_prepared(prepared)
    if not slices.has_lesion.any():
        raise DatasetError(f"{prepared} holds no slice with lesion: there is nothing to show")
    buffer = io.BytesIO()
    draw_examples(slices, count).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def draw_examples(slices: Slices, count: int = 12) -> Image.Image:
    """Figure 5 of the paper: slices over the whole range of lesion sizes, a colour for each class.

    Args:
        slices: Of a prepared folder.
        count: How many, at most.
    """
    chosen = _spread(slices, count)
    height, width = (round(n * TILE / slices.hu.shape[2]) for n in slices.hu.shape[1:])
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, HEADER + rows * (height + GAP) + FOOTER), PAPER)
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        name = f"{slices.case[index]}:{slices.number[index]}"
        tile = _example(slices.hu[index], slices.labels[index], (width, height), name)
        sheet.paste(tile, (GAP + column * (width + GAP), HEADER + row * (height + GAP)))
    _legend(ImageDraw.Draw(sheet), sorted(set(np.unique(slices.labels[chosen]).tolist()) - {0}), sheet.height - FOOTER)
    return sheet


def draw_pairs(slices: Slices, pairs: Sequence[SimilarSlices], most: int = 24) -> Image.Image:
    """The closest pairs of slices of different patients, side by side; those taken for one patient framed.

    Args:
        slices: That the pairs are of.
        pairs: Most alike first.
        most: Pairs shown; all that are taken for one patient are.
    """
    same = sum(pair.similarity >= SAME_ANATOMY for pair in pairs)
    shown = pairs[: max(most, same)]
    height, width = (round(n * PAIR_TILE / slices.hu.shape[2]) for n in slices.hu.shape[1:])
    across, down = 2 * width + 3 * GAP, height + GAP + FOOTER
    rows = -(-len(shown) // PAIR_COLUMNS)
    sheet = Image.new("RGB", (PAIR_COLUMNS * across + GAP, rows * down + FOOTER), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, pair in enumerate(shown):
        top, left = place // PAIR_COLUMNS * down + GAP, place % PAIR_COLUMNS * across + GAP
        for step, index in enumerate((pair.first, pair.second)):
            labels = np.zeros_like(slices.labels[index])
            tile = _example(slices.hu[index], labels, (width, height), f"{slices.case[index]}:{slices.number[index]}")
            sheet.paste(tile, (left + step * (width + GAP // 2), top))
        is_same = pair.similarity >= SAME_ANATOMY
        if is_same:
            draw.rectangle((left - 3, top - 3, left + 2 * width + GAP // 2 + 2, top + height + 2), None, SAME_COLOUR, 3)
        verdict = "one patient" if is_same else "below the line"
        text = f"{pair.similarity:.2f}{', mirrored' if pair.mirrored else ''}: {verdict}"
        draw.text((left, top + height + 6), text, SAME_COLOUR if is_same else FAINT, ImageFont.load_default(14))
    note = (
        f"closest slices of different patients; from a similarity of {SAME_ANATOMY} on (framed) taken for one patient"
    )
    draw.text((GAP, rows * down + 6), note, INK, ImageFont.load_default(14))
    return sheet


def _spread(slices: Slices, count: int) -> NDArray[np.int64]:
    """Evenly over each source's lesion slices in the order of their lesion area, one a case while there are others."""
    area = (slices.labels > 0).sum((1, 2))
    sources = list(dict.fromkeys(slices.source[slices.has_lesion].tolist()))
    chosen: list[int] = []
    for rank, source in enumerate(sources):
        members = np.flatnonzero(slices.has_lesion & (slices.source == source))
        ordered = members[np.argsort(area[members], kind="stable")]
        share = count // len(sources) + (rank < count % len(sources))
        spots = np.linspace(0, len(ordered) - 1, min(share, len(ordered))).round().astype(int)
        chosen += ordered[spots].tolist()
    return np.array(chosen, dtype=np.int64)


def _example(hu: NDArray[np.int16], labels: NDArray[np.uint8], size: tuple[int, int], name: str) -> Image.Image:
    grey = Image.fromarray(LUNG_WINDOW.to_grey(hu.astype(np.float32)))
    pixels = np.asarray(grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")).astype(np.float32)
    drawn = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    for label, colour in COLOURS.items():
        pixels[drawn == label] = (1 - OPACITY) * pixels[drawn == label] + OPACITY * np.array(colour)
    tile = Image.fromarray(pixels.astype(np.uint8))
    font = ImageFont.load_default(13)
    ImageDraw.Draw(tile).text((5, 3), name, INK, font, stroke_width=2, stroke_fill=(0, 0, 0))
    return tile


def _legend(draw: ImageDraw.ImageDraw, labels: Sequence[int], top: int) -> None:
    left, font = GAP + 4, ImageFont.load_default(14)
    for label in labels:
        draw.rectangle((left, top + 9, left + 14, top + 23), COLOURS[label])
        draw.text((left + 20, top + 7), NAMES[label], INK, font)
        left += 48 + int(font.getlength(NAMES[label]))
