"""Whether the words of a figure can be read: none over another, over an axis, or outside the picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0  # pixels by which boxes may touch


def layout_faults(figure: Figure) -> list[str]:
    """Return what is wrong with the places of a figure's words; empty if all can be read."""
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.draw_without_rendering()
    words = [(text.get_text(), _shrunk(text.get_window_extent())) for text in _texts(figure)]
    faults = [f"{a!r} over {b!r}" for (a, one), (b, other) in combinations(words, 2) if one.overlaps(other)]
    paper = figure.bbox.padded(SLACK)
    faults += [f"{word!r} is cut off" for word, box in words if not _holds(paper, box)]
    for axes in figure.axes:
        frame = _shrunk(axes.get_window_extent())
        labels = _labels(axes)
        faults += [
            f"{label.get_text()!r} over its axes"
            for label in labels
            if _shrunk(label.get_window_extent()).overlaps(frame)
        ]
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        if legend is not None:
            box = _shrunk(legend.get_window_extent())
            faults += ["a legend over data" for axes in figure.axes if box.overlaps(_shrunk(axes.get_window_extent()))]
    return faults


def _texts(figure: Figure) -> Iterator[Text]:
    for axes in figure.axes:
        titles = (axes.title, axes._left_title, axes._right_title)  # type: ignore[attr-defined]
        yield from (text for text in (*titles, *_labels(axes), *axes.texts) if text.get_text())
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        if legend is not None:
            yield from legend.get_texts()


def _labels(axes: Axes) -> list[Text]:
    """The labels of axes and ticks that are drawn."""
    return [axes.xaxis.label, axes.yaxis.label, *_ticks(axes)] if axes.axison else []


def _ticks(axes: Axes) -> Iterator[Text]:
    """The labels of the ticks that are drawn."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        for tick in axis.get_major_ticks():
            label = tick.label1
            if label.get_visible() and label.get_text() and min(low, high) <= tick.get_loc() <= max(low, high):
                yield label


def _shrunk(box: Bbox) -> Bbox:
    return box.padded(-SLACK)


def _holds(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1)
