"""The figures of an evaluation as PNG, in the colour-blind safe palette of Okabe and Ito (2008)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from groundglass.evaluation.agreement import Agreement, PairedMeasurement
from groundglass.evaluation.calibration import expected_calibration_error, precision_recall_curve, reliability_bins
from groundglass.evaluation.intervals import Estimate
from groundglass.evaluation.lesions import ALL_SIZES, MIN_OVERLAP_PERCENT, SIZE_EDGES, Region, score_by_size
from groundglass.evaluation.results import Evaluation, Example
from groundglass.plain_text import printable

BLUE, VERMILLION, GREEN, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#777777"
LABELLED_POINTS = 3  # the points with the largest errors carry a number, which the legend explains
NEAR = 0.08  # of the range of the data: points so near share a label
LONGEST_NAME = 34  # characters of a case's name
DPI = 150


def draw_figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw {file name: PNG}; a figure that would show nothing is left out."""
    figures = {
        "slices.png": _draw_slices(evaluation.examples),
        "bland-altman.png": _draw_bland_altman(evaluation),
        "lesion-size.png": _draw_lesion_size(evaluation.regions),
        "precision-recall.png": _draw_precision_recall(evaluation),
        "reliability.png": _draw_reliability(evaluation),
    }
    return {name: as_png(figure) for name, figure in figures.items() if figure is not None}


def as_png(figure: Figure) -> bytes:
    """Render a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def shorten(name: str) -> str:
    """Return a name that can be drawn, with its middle left out if it is too long for a figure."""
    name = printable(name)  # bytes in the name of a file that are no characters would end the drawing
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def label_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Set the title and the labels of the axes in the style of every figure."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _draw_slices(examples: Sequence[Example]) -> Figure | None:
    """Draw CT slices with the contours of reference and prediction, one row for each rank."""
    ranks = list(dict.fromkeys(example.rank for example in examples))
    if not ranks:
        return None
    columns = max(sum(example.rank == rank for example in examples) for rank in ranks)
    figure = Figure(figsize=(3.2 * columns, 2.75 * len(ranks) + 0.4), layout="constrained", facecolor="white")
    grid = figure.subplots(len(ranks), columns, squeeze=False)
    for row, rank in zip(grid, ranks, strict=True):
        shown = [example for example in examples if example.rank == rank]
        for axes in row:
            axes.set_axis_off()
        for axes, example in zip(row, shown, strict=False):
            axes.imshow(example.grey, cmap="gray", vmin=0, vmax=255, aspect=example.aspect)
            for mask, colour in ((example.reference, SKY), (example.predicted, ORANGE)):
                if mask.any() and not mask.all():
                    axes.contour(mask, levels=[0.5], colors=colour, linewidths=1.1)
            axes.set_title(
                f"{rank}, Dice {example.dice:.2f}\n{shorten(example.title)}", fontsize=8, loc="left", parse_math=False
            )
    lines = [Line2D([], [], color=colour, label=name) for name, colour in (("reference", SKY), ("prediction", ORANGE))]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_bland_altman(evaluation: Evaluation) -> Figure | None:
    """Draw the error against the mean of prediction and reference, for volume and burden."""
    if not evaluation.paired_measurements("volume_ml"):
        return None
    figure = Figure(figsize=(12, 4), layout="constrained")
    quantities = (
        ("volume_ml", "Lesion volume", "ml", "ml"),
        ("burden_percent", "Burden", "% of lung", "percentage points"),
    )
    for axes, (quantity, title, unit, error_unit) in zip(figure.subplots(1, 2), quantities, strict=True):
        _draw_agreement(axes, evaluation.paired_measurements(quantity), evaluation.agreement(quantity))
        label_axes(axes, title, f"mean of prediction and reference ({unit})", f"prediction - reference ({error_unit})")
    return figure


def _draw_agreement(axes: Axes, pairs: dict[str, PairedMeasurement], agreement: Agreement) -> None:
    means = [(pair.predicted + pair.reference) / 2 for pair in pairs.values()]
    errors = [pair.error for pair in pairs.values()]
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.scatter(means, errors, color=BLUE, s=24, zorder=3)
    axes.margins(x=0.1, y=0.15)
    largest = sorted(zip(pairs, means, errors, strict=True), key=lambda point: -abs(point[2]))[:LABELLED_POINTS]
    for number, (name, _, _) in enumerate(largest, start=1):  # names beside the figure: they are too long for a point
        axes.plot([], [], " ", label=f"{number}: {shorten(name)}")
    for numbers, x, y in _join_near([(x, y) for _, x, y in largest], np.ptp(means), np.ptp(errors)):
        axes.annotate(numbers, (x, y), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")
    low, high = agreement.limits or (None, None)
    for name, height, style in (
        ("bias + 1.96 SD", high, "--"),
        ("bias", agreement.bias.value, "-"),
        ("bias - 1.96 SD", low, "--"),
    ):
        if height is not None:
            axes.axhline(height, color=VERMILLION, linewidth=1.2, linestyle=style, label=f"{name}: {height:+.3g}")
    _legend_beside(axes)


def _join_near(points: Sequence[tuple[float, float]], width: float, height: float) -> list[tuple[str, float, float]]:
    """Return (numbers, x, y) of points numbered from 1; those that lie almost on one another get one label."""
    groups: list[tuple[list[int], float, float]] = []
    for number, (x, y) in enumerate(points, start=1):
        for numbers, other_x, other_y in groups:
            if abs(x - other_x) <= NEAR * width and abs(y - other_y) <= NEAR * height:
                numbers.append(number)
                break
        else:
            groups.append(([number], x, y))
    return [(", ".join(map(str, numbers)), x, y) for numbers, x, y in groups]


def _legend_beside(axes: Axes) -> None:
    """Put the legend at the right of the axes, where it covers no data."""
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False, borderaxespad=0)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_lesion_size(regions: Sequence[Region]) -> Figure | None:
    """Draw the predicted share of each lesion above, and recall and precision by size class below."""
    lesions = [region for region in regions if region.origin == "reference"]
    units = [unit for unit in SIZE_EDGES if any(lesion.unit == unit for lesion in lesions)]
    if not units:
        return None
    figure = Figure(figsize=(7.6 * len(units), 6.8), layout="constrained")
    grid = figure.subplots(2, len(units), squeeze=False, height_ratios=(1.2, 1))
    for above, below, unit in zip(*grid, units, strict=True):
        _draw_overlap(above, [lesion for lesion in lesions if lesion.unit == unit], unit)
        _draw_recall_and_precision(below, regions, unit)
    return figure


def _draw_overlap(axes: Axes, lesions: Sequence[Region], unit: str) -> None:
    for hit, name, colour, marker in ((True, "found", BLUE, "o"), (False, "missed", VERMILLION, "x")):
        points = [lesion for lesion in lesions if lesion.hit == hit]
        size, share = [lesion.size for lesion in points], [100 * lesion.overlap for lesion in points]
        axes.scatter(size, share, s=22, color=colour, marker=marker, label=f"{name} ({len(points)})", alpha=0.75)
    for edge in SIZE_EDGES[unit]:
        axes.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(MIN_OVERLAP_PERCENT, color=GREY, linewidth=0.8, label=f"found from {MIN_OVERLAP_PERCENT} % on")
    axes.set_xscale("log")
    axes.set_ylim(-5, 105)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels of minor ticks would lie over each other
    _legend_beside(axes)
    unit_name = "ml" if unit == "ml" else "pixels of its slice"
    label_axes(axes, "Lesions of the reference, by size", f"size ({unit_name})", "predicted share of the lesion (%)")


def _draw_recall_and_precision(axes: Axes, regions: Sequence[Region], unit: str) -> None:
    rows = [row for row in score_by_size(regions, unit) if row.size_class != ALL_SIZES]
    centres = np.arange(len(rows))
    recalls = "lesions found", BLUE, -0.19, [row.recall for row in rows]
    precisions = "predicted regions that are right", GREEN, 0.19, [row.precision for row in rows]
    for name, colour, shift, estimates in (recalls, precisions):
        heights = [100 * (estimate.value or 0) for estimate in estimates]
        axes.bar(centres + shift, heights, 0.36, color=colour, alpha=0.8, label=name)
        for x, estimate in zip(centres + shift, estimates, strict=True):
            _draw_interval(axes, float(x), estimate)
    axes.set_ylim(0, 105)
    _legend_beside(axes)
    label_axes(axes, "Found and right, by size", "size class", "share (%)")
    names = [f"{row.size_class}\n{row.recall.rows} lesions\n{row.precision.rows} predicted" for row in rows]
    axes.set_xticks(centres, names)
    axes.tick_params(axis="x", length=0, labelsize=7)
    axes.grid(visible=False, axis="x")


def _draw_interval(axes: Axes, x: float, estimate: Estimate) -> None:
    if estimate.interval is not None:
        low, high = (100 * end for end in estimate.interval)
        axes.vlines(x, low, high, color="black", linewidth=1)


def _draw_precision_recall(evaluation: Evaluation) -> Figure | None:
    histogram, curve = evaluation.histogram, precision_recall_curve(evaluation.histogram)
    if curve is None:
        return None
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    label = f"network, average precision {curve.average_precision:.3f}"
    axes.plot(curve.recall, curve.precision, color=BLUE, linewidth=1.6, label=label)
    prevalence = float(histogram.lesion.sum()) / histogram.pixels
    axes.axhline(prevalence, color=GREY, linewidth=1, linestyle="--", label=f"no skill, {prevalence:.3f}")
    precision, recall = curve.at_threshold(evaluation.threshold)
    if precision is not None:
        label = f"threshold {evaluation.threshold:g}:\nprecision {precision:.2f}, recall {recall:.2f}"
        axes.scatter([recall], [precision], color=VERMILLION, s=45, zorder=3, label=label)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    _legend_beside(axes)
    label_axes(axes, "Precision and recall over thresholds, pixels looked at", "recall", "precision")
    return figure


def _draw_reliability(evaluation: Evaluation) -> Figure | None:
    bins = reliability_bins(evaluation.histogram)
    error = expected_calibration_error(bins)
    if error is None:
        return None
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    known = [each for each in bins if each.mean_probability is not None and each.lesion_share is not None]
    probabilities, shares = (
        [each.mean_probability or 0.0 for each in known],
        [each.lesion_share or 0.0 for each in known],
    )
    above.plot(probabilities, shares, color=BLUE, marker="o", markersize=4, label=f"network, ECE {error:.4f}")
    above.set(xlim=(0, 1), ylim=(0, 1))
    _legend_beside(above)
    label_axes(above, "Reliability, pixels looked at", "", "share that is lesion")
    low, width = [each.low for each in bins], bins[0].high
    below.bar(low, [each.pixels for each in bins], width, align="edge", color=SKY, edgecolor="white", linewidth=0.6)
    below.set_yscale("log")
    fewest = min(each.pixels for each in bins if each.pixels)
    below.set_ylim(bottom=10 ** np.floor(np.log10(fewest)) / 2)  # so that at least one power of ten is labelled
    below.yaxis.set_minor_formatter(NullFormatter())
    label_axes(below, "", "probability of lesion", "pixels")
    return figure
