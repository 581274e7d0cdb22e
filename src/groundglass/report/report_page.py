"""The report: one self-contained HTML file for screens, phones and paper."""

from __future__ import annotations

from markupsafe import Markup
from PIL import Image

from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.charts import Chart
from groundglass.report.findings import Findings
from groundglass.report.html import format_number, render
from groundglass.report.viewer import draw_viewer_slices, jpeg_uri


def render_report(segmented: SegmentedScan, findings: Findings, montage: Image.Image | None, card: ModelCard) -> str:
    """Render the report.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        montage: The preview, which replaces the viewer on paper; None if there is none.
        card: The card of the model that was used.
    """
    profile = _profile(findings)
    slices = draw_viewer_slices(segmented, findings, profile)
    return render(
        "report.html",
        f"groundglass: {findings.summary}",
        "report.js",
        headline=findings.summary[0].upper() + findings.summary[1:],
        findings=findings,
        identity=_identity(findings),
        burdens=_burdens(findings),
        density=_density(findings),
        slices=slices,
        left_out=len(segmented.lung_field.boxes) - len(slices),
        montage=jpeg_uri(montage) if montage else None,
        profile=profile.svg("Lesion of each slice"),
        histogram=_histogram(findings),
        zones=_zones(findings),
        largest=_largest(findings),
        unknown=_unknown(findings),
        about=_about(findings, card),
    )


def _identity(findings: Findings) -> list[str]:
    identity = findings.input.identity
    if identity is None:
        return []
    parts = {
        "Scan": identity.source,
        "Patient": identity.patient_name,
        "ID": identity.patient_id,
        "Born": identity.birth_date,
    }
    return [f"{name}: {value}" for name, value in parts.items() if value]


def _burdens(findings: Findings) -> list[list[str]]:
    sides = {"both lungs": findings.both_lungs, "right lung": findings.right_lung, "left lung": findings.left_lung}
    return [
        [
            name,
            format_number(burden.lesion_share_of_lung_percent),
            format_number(burden.lesion_volume_ml),
            format_number(burden.lung_volume_ml, 0),
        ]
        for name, burden in sides.items()
    ]


def _density(findings: Findings) -> str:
    lesion_hu, lung_hu = findings.mean_intensity.lesion_hu, findings.mean_intensity.lung_hu
    if lesion_hu is None or lung_hu is None:
        return ""
    return f"Mean density: lesion {lesion_hu:.0f} HU, lung {lung_hu:.0f} HU."


def _profile(findings: Findings) -> Chart:
    """Draw a bar for each slice of the file, and a line that marks the slice that the viewer shows."""
    lesion, count = findings.profile.lesion, findings.slices
    chart = Chart((0, count), max(lesion))
    for index, value in enumerate(lesion):
        x, next_x, y = chart.x(index), chart.x(index + 1), chart.y(value)
        bar = {"x": f"{x:.2f}", "width": f"{max(0.4, next_x - x - 0.2):.2f}", "y": f"{y:.1f}"}
        height = f"{chart.y(0) - y:.1f}"
        chart.add("rect", {"class": "area jump", "data-slice": index, **bar, "height": height})
    ends = {"y1": f"{chart.y(chart.top):.0f}", "y2": f"{chart.y(0):.0f}"}
    chart.add("line", {"class": "here", "id": "here", "x1": -9, "x2": -9, **ends})
    for index in sorted({0, count // 2, count - 1}):
        chart.x_label(index + 0.5, str(index))
    chart.x_title(count / 2, "slice in the file")
    return chart


def _histogram(findings: Findings) -> Markup:
    histogram = findings.histogram
    stop_hu = histogram.start_hu + histogram.width_hu * len(histogram.lung)
    middles = [histogram.start_hu + histogram.width_hu * (i + 0.5) for i in range(len(histogram.lung))]
    percent = {}
    for css_class, voxels in (("of-lung", histogram.lung), ("of-lesion", histogram.lesion)):
        total = sum(voxels)
        percent[css_class] = [100 * n / total if total else 0.0 for n in voxels]
    chart = Chart((histogram.start_hu, stop_hu), max(map(max, percent.values())))
    for css_class, values in percent.items():
        chart.line(list(zip(middles, values, strict=True)), css_class)
    for hu in range(-1000, stop_hu, 250):
        chart.x_label(hu, str(hu))
    chart.x_title(-450, "HU")
    return chart.svg("Density of lung and lesion")


def _zones(findings: Findings) -> list[list[str]]:
    return [
        [
            f"{zone.side} {zone.third}",
            format_number(zone.lesion_share_of_lung_percent),
            format_number(zone.lesion_volume_ml),
            format_number(zone.lung_volume_ml, 0),
            str(zone.score),
        ]
        for zone in findings.zones or ()
    ]


def _largest(findings: Findings) -> list[list[str]]:
    rows = []
    for rank, lesion in enumerate(findings.largest_lesions, start=1):
        area = "unknown" if lesion.area_px is None else f"{lesion.area_px} px"
        size = area if lesion.volume_ml is None else f"{lesion.volume_ml:.1f} ml"
        centre = "-" if lesion.centre_lps_mm is None else ", ".join(f"{mm:.0f}" for mm in lesion.centre_lps_mm)
        rows.append([str(rank), size, str(lesion.slice), centre])
    return rows


def _unknown(findings: Findings) -> dict[str, list[str]]:
    """Return {reason: names of the unknown values}, without those that other parts of the report explain."""
    reasons: dict[str, list[str]] = {}
    for path, reason in findings.unknown.items():
        if not path.startswith(("largest_lesions", "input.identity", "zones")):
            reasons.setdefault(reason, []).append(path.replace("_", " ").replace(".", ": "))
    return reasons


def _about(findings: Findings, card: ModelCard) -> dict[str, str]:
    """Return {title: text} about intensities and model; an empty text is left out."""
    test_dice = card.scores.get("test", {}).get("pooled", {}).get("whole", {}).get("dice")
    return {
        "Intensities": f"{findings.intensity.reason}.",
        "Model": f"{card.name} (sha256 {card.sha256[:12]}), groundglass {findings.version}.",
        "For": card.intended_use,
        "Trained on": "; ".join(card.training_data) + "." if card.training_data else "not stated.",
        "Never trained on": ", ".join(card.never_trained_on) + "." if card.never_trained_on else "",
        "Dice on those, whole volumes": "" if test_dice is None else f"{100 * test_dice:.0f} %.",
        "Limits": " ".join(card.limits),
    }
