"""A follow-up for a person: one HTML file with figure, tables and warnings, which needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from groundglass.report.charts import Chart
from groundglass.report.follow_up import FollowUp, Interval, Visit, VolumeChange
from groundglass.report.html import render, rounded

_SCAN_COLUMNS = (
    *("scan", "% of lung", "95 % of repeats", "lesion, ml", "95 % of repeats", "lung, ml", "slices, mm apart"),
    "warnings",
)
_CHANGE_COLUMNS = ("from, to", "% of lung, points", "95 %", "ml", "95 %", "in words")


def follow_up_page(result: FollowUp) -> str:
    """Render the follow-up as one HTML file without scripts."""
    volumes = [(each.lesion_volume_ml, each.lesion_interval_ml) for each in result.visits]
    shares = [(each.lesion_share_of_lung_percent, each.share_interval_percent) for each in result.visits]
    figures = [
        (title, _figure(points, title, result.visits))
        for points, title in ((shares, "Lesion, % of the lung"), (volumes, "Lesion, ml"))
        if any(value is not None for value, _ in points)
    ]
    return render(
        "follow_up.html",
        f"groundglass: follow-up of {len(result.visits)} scans",
        result=result,
        headline=_headline(result),
        figures=figures,
        scan_columns=_SCAN_COLUMNS,
        scans=[_visit_row(number, each) for number, each in enumerate(result.visits, start=1)],
        change_columns=_CHANGE_COLUMNS,
        changes=[_change_row(each) for each in result.changes],
        explanation=_explanation(result),
    )


def _headline(result: FollowUp) -> str:
    last = result.changes[-1]
    change = last.lesion_share_of_lung_points
    amount = "" if change is None else f" ({change:+.1f} points of % of lung)"
    return f"From scan {last.earlier} to scan {last.later}: {last.verdict}{amount}."


def _explanation(result: FollowUp) -> str:
    if result.repeatability is None:
        return "No intervals: the repeatability of this model was not measured."
    return (
        f"Intervals: what simulated repeats of a scan (other kernels, doses and pixels) differ by, a coefficient of "
        f"variation of {100 * result.repeatability:.1f} %. Breath, contrast and position are not in them: real repeats "
        "differ by more. What the model marks too much or too little is in every scan alike, and is not in them either."
    )


def _named(number: int, each: Visit) -> str:
    return f"{number}" if each.taken is None else f"{number}: {each.taken:%Y-%m-%d}"


def _visit_row(number: int, each: Visit) -> list[str]:
    return [
        Markup('<a href="{}/report.html">{}</a>').format(each.folder, _named(number, each)),
        rounded(each.lesion_share_of_lung_percent),
        _interval(each.share_interval_percent),
        rounded(each.lesion_volume_ml),
        _interval(each.lesion_interval_ml),
        rounded(each.lung_volume_ml, 0),
        rounded(each.slice_distance_mm),
        str(len(each.warnings)),
    ]


def _change_row(each: VolumeChange) -> list[str]:
    return [
        f"{each.earlier} to {each.later}",
        rounded(each.lesion_share_of_lung_points, sign=True),
        _interval(each.share_interval_points),
        rounded(each.lesion_volume_ml, sign=True),
        _interval(each.lesion_interval_ml),
        each.verdict,
    ]


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _figure(points: Sequence[tuple[float | None, Interval | None]], title: str, visits: Sequence[Visit]) -> Markup:
    """A dot for each scan, a bar for its interval and a line between them, along the days where they are known."""
    places = _places(visits)
    chart = Chart((-0.1, 1.1), max(end for value, interval in points for end in (value or 0.0, *(interval or ()))))
    known = [(x, value, interval) for x, (value, interval) in zip(places, points, strict=True) if value is not None]
    chart.line([(x, value) for x, value, _ in known], "trend")
    for x, value, interval in known:
        position = f"{chart.x(x):.1f}"
        if interval:
            low, high = (f"{chart.y(end):.1f}" for end in interval)
            chart.add("line", {"class": "bar", "x1": position, "x2": position, "y1": low, "y2": high})
        chart.add("circle", {"class": "dot", "cx": position, "cy": f"{chart.y(value):.1f}", "r": 5})
    for number, (x, each) in enumerate(zip(places, visits, strict=True), start=1):
        chart.x_label(x, f"{each.taken:%Y-%m-%d}" if each.taken and len(visits) <= 4 else f"{number}")
    values = "; ".join(f"scan {i}: {rounded(value)}" for i, (value, _) in enumerate(points, start=1))
    return chart.svg(f"{title}. {values}")


def _places(visits: Sequence[Visit]) -> list[float]:
    """The horizontal place of each scan, from 0 to 1: by its day, or evenly."""
    days = [each.taken.timestamp() if each.taken else float(i) for i, each in enumerate(visits)]
    span = days[-1] - days[0]
    return [(day - days[0]) / span for day in days] if span else [i / (len(days) - 1) for i in range(len(days))]
