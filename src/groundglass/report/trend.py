"""A follow-up for a person: one HTML file with figure, tables and warnings, which needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from groundglass.report.charts import Chart
from groundglass.report.follow_up import Change, FollowUp, Interval, Visit
from groundglass.report.page import content_hash, page_text


def trend_page(result: FollowUp) -> str:
    """The follow-up as one HTML file: no script, no network."""
    volumes = [(each.lesion_volume_ml, each.lesion_interval_ml) for each in result.visits]
    shares = [(each.lesion_share_of_lung_percent, each.share_interval_percent) for each in result.visits]
    figures = [
        _figure(points, title, result.visits)
        for points, title in ((shares, "Lesion, % of the lung"), (volumes, "Lesion, ml"))
        if any(value is not None for value, _ in points)
    ]
    style = page_text("style.css")
    warnings = "".join(f"<li>{escape(text)}</li>" for text in result.warnings)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src {content_hash(style)}">
<title>groundglass: follow-up of {len(result.visits)} scans</title>
<style>{style}</style>
</head>
<body>
<h1>Lesions over time: {len(result.visits)} scans</h1>
<p>{escape(_headline(result))}</p>
{f'<div class="warnings" role="note"><strong>Before you compare:</strong><ul>{warnings}</ul></div>' if warnings else ""}
<div class="columns">{"".join(figures)}</div>
<h2>Scans</h2>
{
        _table(
            (
                "scan",
                "% of lung",
                "95 % of repeats",
                "lesion, ml",
                "95 % of repeats",
                "lung, ml",
                "slices, mm apart",
                "warnings",
            ),
            [_visit_row(i, each) for i, each in enumerate(result.visits, start=1)],
        )
    }
<h2>Changes</h2>
{
        _table(
            ("from, to", "% of lung, points", "95 %", "ml", "95 %", "in words"),
            [_change_row(each) for each in result.changes],
        )
    }
<p class="note">{escape(_explained(result))}</p>
<p class="note">Model {escape(result.model.name)} ({escape(result.model.sha256[:12])}), groundglass {
        escape(result.version)
    }.
Research use: not a medical device, and not for the treatment of a patient.</p>
</body>
</html>
"""


def _headline(result: FollowUp) -> str:
    last = result.changes[-1]
    change = last.lesion_share_of_lung_points
    amount = "" if change is None else f" ({change:+.1f} points of % of lung)"
    return f"From scan {last.earlier} to scan {last.later}: {last.verdict}{amount}."


def _explained(result: FollowUp) -> str:
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
        f'<a href="{escape(each.folder)}/report.html">{_named(number, each)}</a>',
        _number(each.lesion_share_of_lung_percent),
        _interval(each.share_interval_percent),
        _number(each.lesion_volume_ml),
        _interval(each.lesion_interval_ml),
        _number(each.lung_volume_ml, 0),
        _number(each.slice_distance_mm),
        str(len(each.warnings)),
    ]


def _change_row(each: Change) -> list[str]:
    return [
        f"{each.earlier} to {each.later}",
        _number(each.lesion_share_of_lung_points, sign=True),
        _interval(each.share_interval_points),
        _number(each.lesion_volume_ml, sign=True),
        _interval(each.lesion_interval_ml),
        each.verdict,
    ]


def _number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    return "unknown" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(points: Sequence[tuple[float | None, Interval | None]], title: str, visits: Sequence[Visit]) -> str:
    """A chart: a dot a scan, a bar of repeats, a line between; along the days where they are known."""
    places = _places(visits)
    chart = Chart((-0.1, 1.1), max(end for value, interval in points for end in (value or 0.0, *(interval or ()))))
    known = [(x, value, interval) for x, (value, interval) in zip(places, points, strict=True) if value is not None]
    chart.line([(x, value) for x, value, _ in known], "trend")
    for x, value, interval in known:
        at = f"{chart.x(x):.1f}"
        if interval:
            low, high = (f"{chart.y(end):.1f}" for end in interval)
            chart.add(f'<line class="bar" x1="{at}" x2="{at}" y1="{low}" y2="{high}"/>')
        chart.add(f'<circle class="dot" cx="{at}" cy="{chart.y(value):.1f}" r="5"/>')
    for number, (x, each) in enumerate(zip(places, visits, strict=True), start=1):
        chart.x_label(x, f"{each.taken:%Y-%m-%d}" if each.taken and len(visits) <= 4 else f"{number}")
    spoken = "; ".join(f"scan {i}: {_number(value)}" for i, (value, _) in enumerate(points, start=1))
    return f"<figure><figcaption>{title}</figcaption>{chart.svg(f'{title}. {spoken}')}</figure>"


def _places(visits: Sequence[Visit]) -> list[float]:
    """Where along the chart each scan stands, from 0 to 1: by its day, or evenly."""
    days = [each.taken.timestamp() if each.taken else float(i) for i, each in enumerate(visits)]
    span = days[-1] - days[0]
    return [(day - days[0]) / span for day in days] if span else [i / (len(days) - 1) for i in range(len(days))]
