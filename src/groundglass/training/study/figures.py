"""The figures of a study: learning curves, and the paper's Figure 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import sides_of
from groundglass.evaluation.figures import BLUE, GREEN, ORANGE, SKY, VERMILLION, as_png, label_axes
from groundglass.metrics import Confusion
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.training.callbacks import read_metrics
from groundglass.training.provenance import open_run
from groundglass.training.study.plan import TrainingJob

LINES = (BLUE, ORANGE, GREEN, VERMILLION, SKY, "#CC79A7", "#F0E442", "black")
MUCH, LITTLE = 3, 2  # slices of Figure 6
LITTLE_QUANTILE = 0.1
BOTH, WON, LOST = SKY, GREEN, VERMILLION


def learning_curves(jobs: Sequence[TrainingJob]) -> bytes | None:
    """PNG: loss and validation Dice over the epochs, a column a protocol, a colour a row, a line a seed."""
    known = [job for job in jobs if (job.run / "metrics.csv").is_file()]
    if not known:
        return None
    protocols, rows = (list(dict.fromkeys(getattr(job, part) for job in known)) for part in ("protocol", "row"))
    figure = Figure(figsize=(5 * len(protocols), 6.4), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(protocols), squeeze=False, sharex="col")
    for column, protocol in enumerate(protocols):
        above, below = grid[:, column]
        for job in (job for job in known if job.protocol == protocol):
            colour = LINES[rows.index(job.row) % len(LINES)]
            lines = read_metrics(job.run / "metrics.csv")
            for axes, name, style in (
                (above, "loss", "-"),
                (above, "validation_loss", ":"),
                (below, "validation_dice", "-"),
            ):
                points = [(int(line["epoch"]) + 1, float(line[name])) for line in lines if line.get(name)]
                if points:
                    axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.3)
        label_axes(above, protocol, "", "loss (dotted: validation)")
        label_axes(below, "", "epoch", "validation Dice, lesion pooled")
        below.set_ylim(0, 1)
    handles = [Line2D([], [], color=LINES[i % len(LINES)], label=row) for i, row in enumerate(rows)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return as_png(figure)


def comparison(jobs: Sequence[TrainingJob], prepared: Path) -> bytes | None:
    """PNG, after Figure 6 of the paper: CT, what each row marks, and the truth, on slices of the test part.

    Three slices with much lesion and two with little, of different patients, chosen by the reference alone. A row is
    coloured by what it won and lost against the row before it, and is drawn as the network sees the slices.

    Args:
        jobs: One finished run for each row, all under one protocol.
        prepared: The prepared folder.
    """
    if not jobs:
        return None
    _, slices = read_prepared(prepared)
    test = np.flatnonzero(sides_of(jobs[0].split, slices).test & slices.has_lesion)
    if not len(test):
        return None
    places = test[np.sort(_chosen(slices.where(test)))]
    shown = slices.where(places)
    marked = [_marked(job, slices, places) for job in jobs]
    order = np.argsort(-shown.labels.astype(bool).sum((1, 2)), kind="stable")
    columns = len(jobs) + 2
    boxes = [_content(shown.hu[i]) for i in order]
    heights = [2.3 * box[0].size / box[1].size for box in boxes]
    size = (2.3 * columns, sum(heights) + 0.35 * len(shown) + 1)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.subplots(len(shown), columns, squeeze=False, height_ratios=heights)
    for axes, i, box in zip(grid, order.tolist(), boxes, strict=True):
        inside = np.ix_(*box)
        truth, grey = shown.labels[i][inside] > 0, LUNG_WINDOW.scale(shown.hu[i][inside].astype(np.float32))
        masks = [each[i][inside] for each in marked]
        for each in axes:
            each.imshow(grey, cmap="gray", vmin=0, vmax=1)
            each.set_xticks([])
            each.set_yticks([])
            each.spines[:].set_visible(False)
        axes[0].set_ylabel(f"{shown.case[i]}, {shown.number[i]}", fontsize=8, parse_math=False)
        for each, mask, before in zip(axes[1:-1], masks, [None, *masks[:-1]], strict=True):
            each.imshow(_coloured(mask, before, truth))
            each.set_xlabel(f"Dice {Confusion.count(mask, truth).dice or 0:.2f}", fontsize=8)
        axes[-1].imshow(_painted(truth, BOTH))
    for each, title in zip(grid[0], ("CT", *(job.row for job in jobs), "reference"), strict=True):
        each.set_title(title, fontsize=9)
    handles = [
        Patch(color=colour, label=text)
        for colour, text in (
            (BOTH, "marked, as in the row before"),
            (WON, "won: newly marked lesion, or no longer marked where there is none"),
            (LOST, "lost: lesion no longer marked, or newly marked where there is none"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, fontsize=9)
    return as_png(figure)


def _content(hu: NDArray[np.int16]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows and the columns of a slice that are no bars of a letterbox."""
    filled = hu != hu[0, 0]
    return np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))


def _chosen(test: Slices) -> NDArray[np.int64]:
    """Places of the slices with most lesion, and of those about the lowest tenth, of different patients each."""
    area = test.labels.astype(bool).sum((1, 2))
    much = _apart(np.argsort(-area, kind="stable"), test.patient, MUCH)
    far = np.abs(area - np.quantile(area, LITTLE_QUANTILE)).astype(np.float64)
    far[much] = np.inf
    return np.array(much + _apart(np.argsort(far, kind="stable")[: len(test) - len(much)], test.patient, LITTLE))


def _apart(order: NDArray[np.int64], patient: NDArray[np.str_], count: int) -> list[int]:
    """The first `count` of an order, of different patients while there are such."""
    _, first = np.unique(patient[order], return_index=True)
    places = [*sorted(first.tolist()), *(i for i in range(len(order)) if i not in set(first.tolist()))]
    return [int(order[i]) for i in places[:count]]


@torch.inference_mode()
def _marked(job: TrainingJob, slices: Slices, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n, height, width) of the slices at these places."""
    module, card = open_run(job.run, job.row)
    images = torch.from_numpy(slices.images(card.window, card.neighbours_mm, places))
    return np.asarray(torch.sigmoid(module(images)[:, 0]).numpy() >= card.threshold)


def _coloured(
    mask: NDArray[np.bool_], before: NDArray[np.bool_] | None, truth: NDArray[np.bool_]
) -> NDArray[np.float64]:
    if before is None:
        return _painted(mask, BOTH)
    right, was_right = mask == truth, before == truth
    painted = _painted(mask & before, BOTH)
    for place, colour in ((right & ~was_right, WON), (~right & was_right, LOST)):
        painted += _painted(place, colour)
    return painted


def _painted(mask: NDArray[np.bool_], colour: str) -> NDArray[np.float64]:
    """(height, width, 4): RGBA, clear outside the mask."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.asarray(mask[..., None] * np.array([*rgb, 0.65]))
