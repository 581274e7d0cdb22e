"""The follow-up report: one self-contained HTML file with figures, tables and warnings."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from groundglass.report.charts import Chart
from groundglass.report.follow_up import FollowUp, Interval, Visit, VolumeChange
from groundglass.report.html import format_number, render

_SCAN_COLUMNS = (
    *("scan", "% of lung", "95 % of repeats", "lesion, ml", "95 % of repeats", "lung, ml", "slices, mm apart"),
    "warnings",
)
_CHANGE_COLUMNS = ("from, to", "% of lung, points", "95 %", "ml", "95 %", "in words")


def render_follow_up(result: FollowUp) -> str:
    """Render the follow-up as one HTML file without scripts."""
    volumes = [(visit.lesion_volume_ml, visit.lesion_interval_ml) for visit in result.visits]
    shares = [(visit.lesion_share_of_lung_percent, visit.share_interval_percent) for visit in result.visits]
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
        scans=[_visit_row(number, visit) for number, visit in enumerate(result.visits, start=1)],
        change_columns=_CHANGE_COLUMNS,
        changes=[_change_row(change) for change in result.changes],
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


def _visit_label(number: int, visit: Visit) -> str:
    return f"{number}" if visit.taken is None else f"{number}: {visit.taken:%Y-%m-%d}"


def _visit_row(number: int, visit: Visit) -> list[str]:
    return [
        Markup('<a href="{}/report.html">{}</a>').format(visit.folder, _visit_label(number, visit)),
        format_number(visit.lesion_share_of_lung_percent),
        _interval(visit.share_interval_percent),
        format_number(visit.lesion_volume_ml),
        _interval(visit.lesion_interval_ml),
        format_number(visit.lung_volume_ml, 0),
        format_number(visit.slice_distance_mm),
        str(len(visit.warnings)),
    ]


def _change_row(change: VolumeChange) -> list[str]:
    return [
        f"{change.earlier} to {change.later}",
        format_number(change.lesion_share_of_lung_points, sign=True),
        _interval(change.share_interval_points),
        format_number(change.lesion_volume_ml, sign=True),
        _interval(change.lesion_interval_ml),
        change.verdict,
    ]


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _figure(points: Sequence[tuple[float | None, Interval | None]], title: str, visits: Sequence[Visit]) -> Markup:
    """Draw a dot for each scan, a bar for its interval, and a line between the dots; by date where dates are known."""
    positions = _positions(visits)
    chart = Chart((-0.1, 1.1), max(end for value, interval in points for end in (value or 0.0, *(interval or ()))))
    known = [(x, value, interval) for x, (value, interval) in zip(positions, points, strict=True) if value is not None]
    chart.line([(x, value) for x, value, _ in known], "trend")
    for x, value, interval in known:
        position = f"{chart.x(x):.1f}"
        if interval:
            low, high = (f"{chart.y(end):.1f}" for end in interval)
            chart.add("line", {"class": "bar", "x1": position, "x2": position, "y1": low, "y2": high})
        chart.add("circle", {"class": "dot", "cx": position, "cy": f"{chart.y(value):.1f}", "r": 5})
    for number, (x, visit) in enumerate(zip(positions, visits, strict=True), start=1):
        chart.x_label(x, f"{visit.taken:%Y-%m-%d}" if visit.taken and len(visits) <= 4 else f"{number}")
    values = "; ".join(f"scan {i}: {format_number(value)}" for i, (value, _) in enumerate(points, start=1))
    return chart.svg(f"{title}. {values}")


def _positions(visits: Sequence[Visit]) -> list[float]:
    """Return the horizontal position of each scan from 0 to 1: by its date, or evenly spaced."""
    days = [visit.taken.timestamp() if visit.taken else float(i) for i, visit in enumerate(visits)]
    span = days[-1] - days[0]
    return [(day - days[0]) / span for day in days] if span else [i / (len(days) - 1) for i in range(len(days))]
