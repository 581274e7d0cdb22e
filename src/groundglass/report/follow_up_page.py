"""The follow-up report: one self-contained HTML file with figures, tables and warnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise

from markupsafe import Markup

from groundglass.report.amounts import format_ml, format_number, ml_digits, true_minus
from groundglass.report.charts import Chart
from groundglass.report.findings import Interval
from groundglass.report.follow_up import FollowUp, Visit, VolumeChange
from groundglass.report.html import render
from groundglass.report.level_images import LevelImage, choose_levels

_CHANGE_COLUMNS = ("from, to", "percentage points", "95 % of repeats", "ml", "95 % of repeats", "in words")
DATE_WIDTH = 90  # distance of scans in a chart, in its units, at which their dates fit beside each other
NUMBER_WIDTH = 24  # the same for their numbers


def render_follow_up(result: FollowUp, images: Sequence[Sequence[LevelImage]] = ()) -> str:
    """Render the follow-up as one HTML file without scripts.

    Args:
        result: The follow-up.
        images: For each scan the images of `draw_levels`, in the same order; empty to show none.
    """
    volumes = [(visit.lesion_volume_ml, visit.lesion_interval_ml) for visit in result.visits]
    shares = [(visit.lesion_share_of_lung_percent, visit.share_interval_percent) for visit in result.visits]
    figures = [
        (title, _figure(points, title, result.visits))
        for points, title in ((shares, "Lesion, % of the lung"), (volumes, "Lesion, ml"))
        if any(value is not None for value, _ in points)
    ]
    columns = _scan_columns(result.visits)
    return render(
        "follow_up.html",
        f"groundglass: follow-up of {len(result.visits)} scans",
        result=result,
        headline=_headline(result),
        figures=figures,
        scan_columns=["scan", *columns],
        scans=[
            [_visit_link(number, visit), *(value(visit) for value in columns.values())]
            for number, visit in enumerate(result.visits, start=1)
        ],
        change_columns=_CHANGE_COLUMNS,
        changes=[_change_row(change) for change in result.changes],
        scan_names=[_visit_label(number, visit) for number, visit in enumerate(result.visits, start=1)],
        levels=_level_rows(images),
        explanation=_explanation(result),
    )


def _scan_columns(visits: Sequence[Visit]) -> dict[str, Callable[[Visit], str]]:
    """Return {title: function that gives a scan's cell}, without columns that would be empty."""

    def class_share(name: str) -> Callable[[Visit], str]:
        return lambda visit: next(
            (format_number(each.lesion_share_of_lung_percent) for each in visit.classes if each.name == name), "-"
        )

    columns: dict[str, Callable[[Visit], str]] = {
        "% of lung": lambda visit: format_number(visit.lesion_share_of_lung_percent),
        "95 % of repeats": lambda visit: _interval(visit.share_interval_percent),
        "80 % by calibration": lambda visit: _interval(visit.lesion_share_interval_percent),
        "lesion, ml": lambda visit: format_ml(visit.lesion_volume_ml),
        "ml, 95 % of repeats": lambda visit: _interval_ml(visit.lesion_interval_ml),
        "ml, 80 % by calibration": lambda visit: _interval_ml(visit.lesion_volume_interval_ml),
        **{f"{name}, % of lung": class_share(name) for name in _class_names(visits)},
        "lung, ml": lambda visit: format_number(visit.lung_volume_ml, 0),
        "slices, mm apart": lambda visit: format_number(visit.slice_distance_mm),
        "kernel": lambda visit: visit.kernel or "-",
        "warnings": lambda visit: str(len(visit.warnings)) if visit.warnings else "-",
    }
    return {title: value for title, value in columns.items() if any(value(visit) != "-" for visit in visits)}


def _class_names(visits: Sequence[Visit]) -> list[str]:
    return list(dict.fromkeys(each.name for visit in visits for each in visit.classes))


def _level_rows(images: Sequence[Sequence[LevelImage]]) -> list[list[LevelImage]]:
    """Return a row for each level that is shown, with an image of each scan."""
    if not images or not all(images):
        return []
    return [[of_scan[level] for of_scan in images] for level in choose_levels(images)]


def _headline(result: FollowUp) -> str:
    last = result.changes[-1]
    return f"From scan {last.earlier} to scan {last.later}: {last.in_words}."


def _explanation(result: FollowUp) -> str:
    calibrated = any(visit.lesion_share_interval_percent for visit in result.visits)
    by_calibration = " By calibration: 80 % of readings in held-out scans and pictures." if calibrated else ""
    if result.repeatability is None:
        return f"No intervals of repeats: the repeatability of this model was not measured.{by_calibration}"
    return (
        f"Repeats: what simulated repeats of a scan (other kernels, doses and pixels) differ by, a coefficient of "
        f"variation of {100 * result.repeatability:.1f} %. Breath, contrast and position are not in them: real repeats "
        "differ by more. What the model marks too much or too little is in every scan alike, and is not in them either."
        f"{by_calibration}"
    )


def _visit_label(number: int, visit: Visit) -> str:
    return f"{number}" if visit.taken is None else f"{number}: {visit.taken:%Y-%m-%d}"


def _visit_link(number: int, visit: Visit) -> Markup:
    return Markup('<a href="{}/report.html">{}</a>').format(visit.folder, _visit_label(number, visit))


def _change_row(change: VolumeChange) -> list[str]:
    return [
        f"{change.earlier} to {change.later}",
        format_number(change.lesion_share_of_lung_points, sign=True),
        _interval(change.share_interval_points),
        format_number(change.lesion_volume_ml, ml_digits(change.lesion_volume_ml or 0.0), sign=True),
        _interval_ml(change.lesion_interval_ml),
        change.verdict,
    ]


def _interval(interval: Interval | None, digits: int = 1) -> str:
    return "-" if interval is None else true_minus(f"{interval[0]:z.{digits}f} to {interval[1]:z.{digits}f}")


def _interval_ml(interval: Interval | None) -> str:
    return _interval(interval, ml_digits(max(map(abs, interval or (0.0,)))))


def _figure(points: Sequence[tuple[float | None, Interval | None]], title: str, visits: Sequence[Visit]) -> Markup:
    """Draw a dot for each scan, a bar for its interval, and a line between the dots; by date where dates are known."""
    positions = _positions(visits)
    chart = Chart((-0.12, 1.12), max(end for value, interval in points for end in (value or 0.0, *(interval or ()))))
    known = [(x, value, interval) for x, (value, interval) in zip(positions, points, strict=True) if value is not None]
    ends = [(x, interval) for x, _, interval in known if interval]
    if len(ends) > 1:
        chart.area([(x, high) for x, (_, high) in ends] + [(x, low) for x, (low, _) in reversed(ends)], "range")
    chart.line([(x, value) for x, value, _ in known], "trend")
    for x, value, interval in known:
        position = f"{chart.x(x):.1f}"
        if interval:
            low, high = (f"{chart.y(end):.1f}" for end in interval)
            chart.add("line", {"class": "bar", "x1": position, "x2": position, "y1": low, "y2": high})
        chart.add("circle", {"class": "dot", "cx": position, "cy": f"{chart.y(value):.1f}", "r": 5})
    if visits[0].taken and all(chart.x(after) - chart.x(before) > DATE_WIDTH for before, after in pairwise(positions)):
        for x, visit in zip(positions, visits, strict=True):
            chart.x_label(x, f"{visit.taken:%Y-%m-%d}")
    else:
        for group in _grouped([chart.x(x) for x in positions]):
            chart.x_label((positions[group[0]] + positions[group[-1]]) / 2, ", ".join(f"{i + 1}" for i in group))
        chart.x_title(0.5, "scan")
    values = "; ".join(f"scan {i}: {format_number(value)}" for i, (value, _) in enumerate(points, start=1))
    return chart.svg(f"{title}. {values}")


def _grouped(places: Sequence[float]) -> list[list[int]]:
    """Return the indices of places from left to right, those together whose numbers would lie over each other."""
    groups: list[list[int]] = []
    for index, place in enumerate(places):
        if groups and place - places[groups[-1][-1]] < NUMBER_WIDTH:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _positions(visits: Sequence[Visit]) -> list[float]:
    """Return the horizontal position of each scan from 0 to 1: by its date, or evenly spaced."""
    first = visits[0].taken
    days = [(each.taken - first) / timedelta(1) if each.taken and first else float(i) for i, each in enumerate(visits)]
    return [day / days[-1] for day in days] if days[-1] else [i / (len(days) - 1) for i in range(len(days))]
