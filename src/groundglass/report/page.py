"""The report: one HTML file that needs nothing else, for a screen, a phone and paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from groundglass.report.charts import HEIGHT, Chart
from groundglass.report.findings import Findings
from groundglass.report.html import document, rounded, table, warnings_box
from groundglass.report.viewer import jpeg, viewer, viewer_slices
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import HuVolume
from groundglass.scan.lungs import LungField
from groundglass.scan.packed import MaskSlices


@dataclass(frozen=True)
class About:
    """What a reader should know of the model.

    Attributes:
        name: Of the model.
        sha256: Of its file.
        training_data: What it was trained on.
        never_trained_on: The public test part.
        test_dice: Pooled over whole volumes of that; None: not scored.
        intended_use: What it is for.
        limits: What it is not for, and where it is known to fail.
    """

    name: str
    sha256: str
    training_data: Sequence[str]
    never_trained_on: Sequence[str]
    test_dice: float | None
    intended_use: str
    limits: Sequence[str]


def page(
    findings: Findings,
    hu: HuVolume,
    view: AxialView,
    lungs: LungField,
    lesions: MaskSlices,
    montage: Image.Image,
    about: About,
    sizes: tuple[tuple[int, int], ...] | None = None,
) -> str:
    """The whole report.

    Args:
        findings: The numbers.
        hu: (z, y, x) upright axial slices, HU or estimated HU.
        view: The view that they are in.
        lungs: The lung field, lesions counted in.
        lesions: (z, y, x) bool.
        montage: The slices with most lesion, for paper.
        about: The model.
        sizes: For pictures, the true (height, width) of each slice.
    """
    profile = _profile(findings)
    slices = json.dumps(viewer_slices(findings, hu, view, lungs, lesions, sizes, profile)).replace("<", "\\u003c")
    body = f"""<main>
<h1>{escape(findings.summary[0].upper() + findings.summary[1:])}</h1>
{_identity(findings)}
{warnings_box("Before you use these numbers:", findings.warnings)}
{_burdens(findings)}
<h2>Slices</h2>
{viewer(lungs)}
<figure class="print"><img src="{jpeg(montage)}" alt="The slices with most lesion, contours drawn, sides marked">
<figcaption>The slices with most lesion, from head to feet; where none was found, slices evenly apart.</figcaption>
</figure>
<div class="columns">
<figure><figcaption>{_profile_caption(findings)}</figcaption>{profile.svg("Lesion of each slice")}</figure>
<figure><figcaption>{_histogram_caption(findings)}</figcaption>{_histogram(findings)}</figure>
</div>
{_zones(findings)}
{_largest(findings)}
{_unknown(findings)}
{_about(findings, about)}
</main>
<script type="application/json" id="slices">{slices}</script>"""
    return document(f"groundglass: {findings.summary}", body, "page.js")


def _identity(findings: Findings) -> str:
    known = findings.input.identity
    if known is None:
        return ""
    named = (
        ("Scan", known.source),
        ("Patient", known.patient_name),
        ("ID", known.patient_id),
        ("Born", known.birth_date),
    )
    return f'<p class="lead">{escape("; ".join(f"{what}: {value}" for what, value in named if value))}</p>'


def _burdens(findings: Findings) -> str:
    sides = (
        ("both lungs", findings.both_lungs),
        ("right lung", findings.right_lung),
        ("left lung", findings.left_lung),
    )
    rows = [
        [
            name,
            rounded(each.lesion_share_of_lung_percent),
            rounded(each.lesion_volume_ml),
            rounded(each.lung_volume_ml, 0),
        ]
        for name, each in sides
    ]
    means = findings.mean_intensity
    density = (
        f'<p class="note">Mean density: lesion {means.lesion_hu:.0f} HU, lung {means.lung_hu:.0f} HU.</p>'
        if means.lesion_hu is not None and means.lung_hu is not None
        else ""
    )
    head = ("", "lesion, % of lung", "lesion, ml", "lung, ml")
    return f"<h2>Burden</h2>{table('Burden by lung', head, rows)}{density}"


def _profile(findings: Findings) -> Chart:
    lesion, count = findings.profile.lesion, findings.slices
    chart = Chart((0, count), max(lesion))
    for place, value in enumerate(lesion):
        x, next_x, y = chart.x(place), chart.x(place + 1), chart.y(value)
        chart.add(
            f'<rect class="area jump" data-slice="{place}" x="{x:.2f}" width="{max(0.4, next_x - x - 0.2):.2f}" '
            f'y="{y:.1f}" height="{chart.y(0) - y:.1f}"/>'
        )
    chart.add(f'<line class="here" id="here" x1="-9" x2="-9" y1="{chart.y(chart.top):.0f}" y2="{chart.y(0):.0f}"/>')
    for place in sorted({0, count // 2, count - 1}):
        chart.x_label(place + 0.5, str(place))
    chart.add(f'<text x="{chart.x(count / 2):.0f}" y="{HEIGHT - 4}" text-anchor="middle">slice in the file</text>')
    return chart


def _profile_caption(findings: Findings) -> str:
    unit = "ml" if findings.profile.unit == "ml" else "pixels"
    return f"Lesion of each slice, {unit}. A click on a bar shows its slice."


def _histogram(findings: Findings) -> str:
    told = findings.histogram
    totals = [sum(told.lung), sum(told.lesion)]
    shares = [
        [100 * n / total if total else 0.0 for n in counts]
        for counts, total in zip((told.lung, told.lesion), totals, strict=True)
    ]
    middles = [told.start_hu + told.width_hu * (i + 0.5) for i in range(len(told.lung))]
    stop = told.start_hu + told.width_hu * len(told.lung)
    chart = Chart((told.start_hu, stop), max(map(max, shares)))
    for share, name in zip(shares, ("of-lung", "of-lesion"), strict=True):
        chart.line(list(zip(middles, share, strict=True)), name)
    for hu in range(-1000, stop, 250):
        chart.x_label(hu, str(hu))
    chart.add(f'<text x="{chart.x(-450):.0f}" y="{HEIGHT - 4}" text-anchor="middle">HU</text>')
    return chart.svg("Density of lung and lesion")


def _histogram_caption(findings: Findings) -> str:
    how = " HU are estimated from a lung window." if findings.histogram.estimated else ""
    keys = '<span class="key-lung">lung without lesion</span> and <span class="key-lesion">lesion</span>'
    return f"Density of {keys}, % of voxels for each {findings.histogram.width_hu} HU.{how}"


def _zones(findings: Findings) -> str:
    if findings.zones is None:
        return f'<h2>Zones</h2><p class="note">Unknown: {escape(findings.unknown["zones"])}.</p>'
    rows = [
        [
            f"{each.side} {each.third}",
            rounded(each.lesion_share_of_lung_percent),
            rounded(each.lesion_volume_ml),
            rounded(each.lung_volume_ml, 0),
            str(each.score),
        ]
        for each in findings.zones
    ]
    total = sum(each.score for each in findings.zones)
    head = ("zone", "lesion, % of zone", "lesion, ml", "lung, ml", "score")
    return f"""<h2>Zones</h2>{table("Burden by zone", head, rows)}
<p>Zone score: <strong>{total} of {4 * len(findings.zones)}</strong>.</p>
<p class="note">Zones are thirds of the height of each lung that the scan shows. A zone's score is 0 without lesion,
1 up to 25 %, 2 up to 50 %, 3 up to 75 %, 4 above. The CT severity score of the five lobes is not given: lobes are not
segmented here, and thirds are no lobes.</p>"""


def _largest(findings: Findings) -> str:
    if not findings.largest_lesions:
        return ""
    rows = []
    for i, each in enumerate(findings.largest_lesions, start=1):
        size = f"{each.area_px} px" if each.volume_ml is None else f"{each.volume_ml:.1f} ml"
        centre = each.centre_lps_mm
        rows.append([str(i), size, str(each.slice), "-" if centre is None else ", ".join(f"{mm:.0f}" for mm in centre)])
    head = ("", "size", "slice", "centre: left, back, up, mm")
    return f"<h2>Largest lesions</h2>{table('Largest lesions', head, rows)}"


def _unknown(findings: Findings) -> str:
    reasons: dict[str, list[str]] = {}
    for name, reason in findings.unknown.items():
        if not name.startswith(("largest_lesions", "input.identity", "zones")):
            reasons.setdefault(reason, []).append(name.replace("_", " ").replace(".", ": "))
    if not reasons:
        return ""
    items = "".join(f"<li>{escape(', '.join(names))}: {escape(why)}</li>" for why, names in reasons.items())
    return f"<h2>Not known</h2><ul>{items}</ul>"


def _about(findings: Findings, about: About) -> str:
    given: Mapping[str, str] = {
        "Intensities": f"{findings.intensity.reason}.",
        "Model": f"{about.name} (sha256 {about.sha256[:12]}), groundglass {findings.version}.",
        "For": about.intended_use,
        "Trained on": "; ".join(about.training_data) + "." if about.training_data else "not stated.",
        "Never trained on": ", ".join(about.never_trained_on) + "." if about.never_trained_on else "",
        "Dice on those, whole volumes": "" if about.test_dice is None else f"{100 * about.test_dice:.0f} %.",
        "Limits": " ".join(about.limits),
    }
    rows = "".join(f"<p><strong>{escape(name)}:</strong> {escape(text)}</p>" for name, text in given.items() if text)
    return f"""<h2>What this is, and is not</h2>{rows}
<p><strong>Not a medical device.</strong> For research: not for the diagnosis or treatment of a patient. A program
marked what looks like lesions of COVID-19 to it; other disease looks alike, and it misses some. Look at the slices.</p>
"""
