"""`overview.html`: a cohort on one page, with distributions, outliers and a thumbnail of each case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from groundglass.apps.batch.records import ItemRecord, ItemStatus, KeyNumbers
from groundglass.report.amounts import format_level, format_ml, format_number
from groundglass.report.charts import Chart, round_up
from groundglass.report.extent import NAMES
from groundglass.report.html import render
from groundglass.report.thumbnail import read_thumbnail
from groundglass.report.viewer import jpeg_uri

MOST_CARDS = 200  # cases that get a thumbnail: outliers, then those with most lesion
THUMBNAIL = (560, 300)  # largest width and height in pixels
BINS = 20
FEWEST = 8  # cases with a value, without which no case is called an outlier
LITRE = 1000.0  # in ml
FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey 1977)
_INTERVAL = "80 % interval"
_COLUMNS = (
    *("case", "lesion, % of lung", _INTERVAL, "lesion, ml", "lung, ml"),
    *("extent", "largest, ml", "lesion, HU", "thickness, mm", "remarks"),
)
_JUDGED = {  # columns in which outliers are looked for, with their names, units and decimal places
    "lesion_percent": ("lesion's share of the lung", "%", 1),
    "lung_ml": ("lung volume", "ml", 0),
    "lung_hu": ("density of the lung", "HU", 0),
    "lesion_hu": ("density of the lesions", "HU", 0),
}


def render_overview(records: Sequence[ItemRecord], folder: Path) -> str:
    """Render the overview.

    Args:
        records: All cases, done or not.
        folder: Folder of the results, whose previews the thumbnails are made from.
    """
    done = [record for record in records if record.numbers]
    marks = find_outliers({record.case: record.numbers for record in done if record.numbers})
    by_share = sorted(done, key=lambda record: -_share(record))
    cards = sorted(by_share, key=lambda record: record.case not in marks)[:MOST_CARDS]
    shares = [_share(record) for record in done if _share(record) >= 0]
    with_interval = any(record.numbers.lesion_percent_low is not None for record in done if record.numbers)
    return render(
        "cohort.html",
        f"groundglass: {len(records)} cases",
        "cohort.js",
        headline=_headline(records, shares),
        extents=_extents(done),
        histogram=_histogram(shares) if shares else None,
        scatter=_scatter(done, marks),
        outliers=[[_link(case), ", ".join(reasons)] for case, reasons in sorted(marks.items())],
        outlier_rule=f"More than {FENCE:g} interquartile ranges beyond the quartiles of this cohort; looked for "
        f"in {FEWEST} cases or more",
        failed=[
            [record.case, str(record.status), record.reason or ""]
            for record in records
            if record.status is not ItemStatus.DONE
        ],
        columns=[title for title in _COLUMNS if with_interval or title != _INTERVAL],
        rows=[_row(record, marks.get(record.case, ()), with_interval) for record in by_share],
        cards=[_card(record, marks.get(record.case, ()), folder) for record in cards],
        without_card=len(done) - len(cards),
        models=sorted({f"{record.model.name} ({record.model.sha256[:12]})" for record in records}),
    )


def find_outliers(cases: dict[str, KeyNumbers]) -> dict[str, list[str]]:
    """Return {case: what is unusual about it} by Tukey's fences over all cases."""
    found: dict[str, list[str]] = {}
    for column, (title, unit, digits) in _JUDGED.items():
        values = {case: value for case, numbers in cases.items() if (value := getattr(numbers, column)) is not None}
        if len(values) < FEWEST:
            continue
        low, high = np.percentile(list(values.values()), [25, 75])
        reach = FENCE * (high - low)
        for case, value in values.items():
            if not low - reach <= value <= high + reach:
                which = "low" if value < low else "high"
                stated = format_level(value) if unit == "HU" else format_number(value, digits)
                found.setdefault(case, []).append(f"{title} {which} ({stated} {unit})")
    return found


def _share(record: ItemRecord) -> float:
    """Return the lesion's share of the lung, -1 if it is unknown."""
    known = record.numbers.lesion_percent if record.numbers else None
    return -1.0 if known is None else known


def _headline(records: Sequence[ItemRecord], shares: Sequence[float]) -> str:
    done = sum(record.status is ItemStatus.DONE for record in records)
    text = f"{done} of {len(records)} cases are done."
    if shares:
        low, middle, high = np.percentile(shares, [25, 50, 75])
        text += f" Lesions fill {middle:.1f} % of the lung in the median case (quartiles {low:.1f} and {high:.1f} %)."
    return text


def _extents(done: Sequence[ItemRecord]) -> list[list[str]]:
    names = [record.numbers.extent for record in done if record.numbers]
    counts = {name: names.count(name) for name in ("none", *NAMES)} | {"unknown": names.count(None)}
    return [[name, str(count)] for name, count in counts.items() if count or name != "unknown"]


def _histogram(shares: Sequence[float]) -> Markup:
    top = round_up(max(shares))
    counts, edges = np.histogram(shares, BINS, (0, top))
    chart = Chart((0, top), 4 * math.ceil(counts.max() / 4))  # ticks at whole numbers
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        x, y = chart.x(low), chart.y(count)
        box = {"x": f"{x:.1f}", "width": f"{chart.x(high) - x - 1:.1f}", "y": f"{y:.1f}"}
        chart.add("rect", {"class": "area", **box, "height": f"{chart.y(0) - y:.1f}"})
    for share in np.linspace(0, top, 5):
        chart.x_label(float(share), f"{share:.3g}")
    chart.x_title(top / 2, "lesion, % of the lung")
    return chart.svg(f"Distribution of the lesion's share of the lung over {len(shares)} cases")


def _scatter(done: Sequence[ItemRecord], marks: dict[str, list[str]]) -> Markup | None:
    """Draw lesion against lung volume; outliers are filled."""
    points = [
        (record.case, record.numbers.lung_ml, record.numbers.lesion_percent)
        for record in done
        if record.numbers and record.numbers.lung_ml is not None and record.numbers.lesion_percent is not None
    ]
    if not points:
        return None
    volumes = [lung for _, lung, _ in points]
    left, right = LITRE * math.floor(min(volumes) / LITRE), LITRE * (math.floor(max(volumes) / LITRE) + 1)
    chart = Chart((left, right), max(share for _, _, share in points))
    for case, lung, share in points:
        place = {"cx": f"{chart.x(lung):.1f}", "cy": f"{chart.y(share):.1f}", "r": 4}
        chart.add("circle", {"class": "dot" if case in marks else "ring", **place})
    for lung in np.linspace(left, right, 5):
        chart.x_label(float(lung), f"{lung:.0f}")
    chart.x_title((left + right) / 2, "lung, ml")
    return chart.svg("Share of lesion against lung volume of each case")


def _link(case: str) -> Markup:
    return Markup('<a href="{}/report.html">{}</a>').format(quote(case), case)


def _row(record: ItemRecord, reasons: Sequence[str], with_interval: bool) -> list[str]:
    numbers = record.numbers
    assert numbers is not None, "the case is done"
    largest = "-"
    if numbers.largest_lesion_ml is not None:
        where = numbers.largest_lesion_where
        largest = format_ml(numbers.largest_lesion_ml) + (f" {where}" if where else "")
    return [
        _link(record.case),
        format_number(numbers.lesion_percent),
        *([_interval(numbers) or "-"] if with_interval else []),
        format_ml(numbers.lesion_ml),
        format_number(numbers.lung_ml, 0),
        numbers.extent or "unknown",
        largest,
        format_level(numbers.lesion_hu),
        format_number(numbers.slice_thickness_mm or numbers.slice_distance_mm),
        "; ".join([*reasons, *([numbers.warnings] if numbers.warnings else [])]) or "-",
    ]


def _interval(numbers: KeyNumbers) -> str | None:
    """Return the interval of the share in words; None if the model states none."""
    low, high = numbers.lesion_percent_low, numbers.lesion_percent_high
    return None if low is None or high is None else f"{low:.1f} to {high:.1f}"


def _card(record: ItemRecord, reasons: Sequence[str], folder: Path) -> dict[str, str | None]:
    numbers = record.numbers
    assert numbers is not None, "the case is done"
    interval = _interval(numbers)
    within = f" ({interval})" if interval else ""
    amounts = [f"{format_number(numbers.lesion_percent)} %{within}"] if numbers.lesion_percent is not None else []
    amounts += [f"{format_ml(numbers.lesion_ml)} ml"] if numbers.lesion_ml is not None else []
    return {
        "case": record.case,
        "href": f"{quote(record.case)}/report.html",
        "image": _thumbnail(folder / record.case / "preview.png"),
        "words": ", ".join(amounts) or "burden unknown",
        "mark": ", ".join(reasons) or ("warnings" if numbers.warnings else ""),
    }


def _thumbnail(preview: Path) -> str | None:
    """Shrink a preview to a JPEG in a data URI; None if there is none that can be read."""
    try:
        return jpeg_uri(read_thumbnail(preview, THUMBNAIL))
    except (OSError, ValueError, SyntaxError):  # Pillow raises each of these for a damaged file
        return None
