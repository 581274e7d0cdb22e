"""The figures of a study: learning curves, and a comparison of rows after the paper's Figure 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import resolve_split
from groundglass.evaluation.figures import BLUE, GREEN, ORANGE, SKY, VERMILLION, as_png, label_axes, shorten
from groundglass.metrics import Confusion
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.training.callbacks import read_metrics
from groundglass.training.finished_run import open_run
from groundglass.training.study.plan import TrainingJob

ROW_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, "#CC79A7", "#F0E442", "black")
LARGE_COUNT, SMALL_COUNT = 3, 2  # slices of Figure 6 with much and with little lesion
SMALL_QUANTILE = 0.1  # "little lesion" is about this quantile of the lesion area
LONGEST_LINE = 26  # characters of a row's name above its column
FEW_EPOCHS = 10  # up to which each is marked by a point
EDGE = 0.04  # empty share of the axis of epochs at its ends
UNCHANGED, BETTER, WORSE = SKY, GREEN, VERMILLION


def draw_learning_curves(jobs: Sequence[TrainingJob]) -> bytes | None:
    """Draw loss and validation Dice over the epochs: a column for each protocol, a colour for each row.

    Returns:
        A PNG file; None if no training has started.
    """
    started = [job for job in jobs if (job.run / "metrics.csv").is_file()]
    if not started:
        return None
    protocols = list(dict.fromkeys(job.protocol for job in started))
    rows = list(dict.fromkeys(job.row for job in started))
    many = tuple(to_hex(colour) for colour in colormaps["tab20"](range(20)))
    palette = ROW_COLOURS if len(rows) <= len(ROW_COLOURS) else many
    colours = {row: palette[i % len(palette)] for i, row in enumerate(rows)}
    figure = Figure(figsize=(5 * len(protocols) + 2, 6.4), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(protocols), squeeze=False, sharex="col")
    for (loss_axes, dice_axes), protocol in zip(grid.T, protocols, strict=True):
        for job in (job for job in started if job.protocol == protocol):
            _draw_metric(loss_axes, job, "loss", colours[job.row], "-")
            _draw_metric(loss_axes, job, "validation_loss", colours[job.row], ":")
            _draw_metric(dice_axes, job, "validation_dice", colours[job.row], "-")
        label_axes(loss_axes, protocol, "", "loss (dotted: validation)")
        label_axes(dice_axes, "", "epoch", "validation Dice, lesion pooled")
        dice_axes.set_ylim(0, 1)
        longest = max((line.get_xdata()[-1] for line in (*loss_axes.lines, *dice_axes.lines)), default=1)
        edge = max(0.5, EDGE * longest)
        dice_axes.set_xlim(1 - edge, longest + edge)
        dice_axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    handles = [Line2D([], [], color=colours[row], label=row) for row in rows]
    legend = figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return as_png(figure)


def _draw_metric(axes: Axes, job: TrainingJob, name: str, colour: str, style: str) -> None:
    """Draw a metric over the epochs of a run; nothing if it was not logged."""
    lines = read_metrics(job.run / "metrics.csv")
    points = [(int(line["epoch"]) + 1, float(line[name])) for line in lines if line.get(name)]
    if points:
        marker = "o" if len(points) <= FEW_EPOCHS else ""
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.3, marker=marker, markersize=4)


def draw_comparison(jobs: Sequence[TrainingJob], prepared: Path) -> bytes | None:
    """Draw, after Figure 6 of the paper, CT, the mask of each row, and the reference, on slices of the test part.

    The slices are chosen by `choose_slices` and drawn as the network sees them. A row is coloured by its difference
    from the row before it.

    Args:
        jobs: One finished run for each row, all under one protocol.
        prepared: The prepared folder.

    Returns:
        A PNG file; None without jobs or without test slices that show lesion.
    """
    if not jobs:
        return None
    _, slices = read_prepared(prepared)
    candidates = np.flatnonzero(resolve_split(jobs[0].split, slices).test & slices.has_lesion)
    if not len(candidates):
        return None
    indices = candidates[np.sort(choose_slices(slices.where(candidates)))]
    shown = slices.where(indices)
    masks_by_row = [_predict(job, slices, indices) for job in jobs]
    order = np.argsort(-shown.labels.astype(bool).sum((1, 2)), kind="stable")  # most lesion first
    boxes = [_without_letterbox(shown.hu[i]) for i in order]
    columns, heights = len(jobs) + 2, [2.3 * y.size / x.size for y, x in boxes]
    size = (2.3 * columns, sum(heights) + 0.35 * len(shown) + 1)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.subplots(len(shown), columns, squeeze=False, height_ratios=heights)
    for axes_row, i, box in zip(grid, order.tolist(), boxes, strict=True):
        inside = np.ix_(*box)
        image = LUNG_WINDOW.scale(shown.hu[i][inside].astype(np.float32))
        axes_row[0].set_ylabel(f"{shorten(shown.case[i])}\n{shown.number[i]}", fontsize=8, parse_math=False)
        _draw_slice(axes_row, image, [masks[i][inside] for masks in masks_by_row], shown.labels[i][inside] > 0)
    for axes, title in zip(grid[0], ("CT", *(job.row for job in jobs), "reference"), strict=True):
        axes.set_title("\n".join(wrap(title, LONGEST_LINE)), fontsize=9, parse_math=False)
    legend = {
        UNCHANGED: "marked, as in the row before",
        BETTER: "better: lesion newly marked, or background no longer marked",
        WORSE: "worse: lesion no longer marked, or background newly marked",
    }
    handles = [Patch(color=colour, label=text) for colour, text in legend.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, fontsize=9)
    return as_png(figure)


def _draw_slice(
    axes_row: NDArray[np.object_],
    image: NDArray[np.float32],
    masks: Sequence[NDArray[np.bool_]],
    truth: NDArray[np.bool_],
) -> None:
    """Draw a slice into a row of axes: the image alone, with the mask of each row, and with the reference."""
    for axes in axes_row:
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes, mask, before in zip(axes_row[1:-1], masks, [None, *masks[:-1]], strict=True):
        axes.imshow(colour_changes(mask, before, truth))
        axes.set_xlabel(f"Dice {Confusion.count(mask, truth).dice or 0:.2f}", fontsize=8)
    axes_row[-1].imshow(_paint(truth, UNCHANGED))


def _without_letterbox(hu: NDArray[np.int16]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the rows and of the columns that are not letterbox bars."""
    filled = hu != hu[0, 0]
    return np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))


def choose_slices(test: Slices) -> NDArray[np.int64]:
    """Choose slices by the reference alone: those with most lesion, and those about the lowest tenth.

    Within each group the patients are different while there are enough.

    Returns:
        Indices of three slices with much and two with little lesion, or fewer if there are not so many.
    """
    area = test.labels.astype(bool).sum((1, 2))
    large = _of_different_patients(np.argsort(-area, kind="stable"), test.patient, LARGE_COUNT)
    distance = np.abs(area - np.quantile(area, SMALL_QUANTILE)).astype(np.float64)
    distance[large] = np.inf
    nearest = np.argsort(distance, kind="stable")[: len(test) - len(large)]
    return np.array(large + _of_different_patients(nearest, test.patient, SMALL_COUNT))


def _of_different_patients(order: NDArray[np.int64], patient: NDArray[np.str_], count: int) -> list[int]:
    """Return the first `count` indices of an order, from different patients while there are enough."""
    _, first = np.unique(patient[order], return_index=True)
    others = [i for i in range(len(order)) if i not in set(first.tolist())]
    return [int(order[i]) for i in [*sorted(first.tolist()), *others][:count]]


@torch.inference_mode()
def _predict(job: TrainingJob, slices: Slices, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Predict the lesion masks, (n, height, width), of the slices at these indices."""
    module, card = open_run(job.run, job.row)
    images = torch.from_numpy(slices.network_inputs(card.window, card.neighbours_mm, indices))
    return np.asarray(torch.sigmoid(module(images)[:, 0]).numpy() >= card.threshold)


def colour_changes(
    mask: NDArray[np.bool_], before: NDArray[np.bool_] | None, truth: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Colour a mask by its difference from the one before it.

    Args:
        mask: (height, width).
        before: Mask of the row before; None paints `mask` in one colour.
        truth: Reference mask.

    Returns:
        (height, width, 4) RGBA.
    """
    if before is None:
        return _paint(mask, UNCHANGED)
    correct, was_correct = mask == truth, before == truth
    painted = _paint(mask & before, UNCHANGED)
    for changed, colour in ((correct & ~was_correct, BETTER), (~correct & was_correct, WORSE)):
        painted += _paint(changed, colour)
    return painted


def _paint(mask: NDArray[np.bool_], colour: str) -> NDArray[np.float64]:
    """Return (height, width, 4) RGBA, transparent outside the mask."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.asarray(mask[..., None] * np.array([*rgb, 0.65]))
