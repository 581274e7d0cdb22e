"""The report: one self-contained HTML file for screens, phones and paper."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup
from PIL import Image

from groundglass.inference.model_card import ModelCard
from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.amounts import format_level, format_ml, format_number, ml_digits
from groundglass.report.charts import Chart
from groundglass.report.colours import Rgb, named_colours
from groundglass.report.extent import SOURCE
from groundglass.report.findings import Findings, Identity
from groundglass.report.html import render
from groundglass.report.image_numbers import place_image
from groundglass.report.sentence import report_sentence, state_uncertainty
from groundglass.report.viewer import draw_viewer_slices, jpeg_uri


def render_report(segmented: SegmentedScan, findings: Findings, montage: Image.Image | None, card: ModelCard) -> str:
    """Render the report.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        montage: The preview; None if there is none.
        card: The card of the model that was used.
    """
    profile = _profile(findings)
    slices = draw_viewer_slices(segmented, findings, profile)
    title = report_title(findings)
    return render(
        "report.html",
        f"{title}: {findings.summary}",
        "report.js",
        heading=title,
        facts=_facts(findings),
        sentence=report_sentence(findings),
        findings=findings,
        headline=_headline(findings),
        uncertainty=state_uncertainty(findings, card),
        extent_source=SOURCE,
        burdens=_burdens(findings),
        bands=_bands(findings),
        density=_density(findings),
        slices=slices,
        keys={name: _key(colour) for name, colour in named_colours(findings).items()},
        sides_known=segmented.view.geometry.has_directions,
        left_out=len(segmented.lung_field.boxes) - len(slices),
        montage=jpeg_uri(montage) if montage else None,
        profile=profile.svg("Lesion of each image"),
        histogram=_histogram(findings),
        zones=_zones(findings),
        lesions=_lesions(findings),
        lesions_in_hu=any(lesion.mean_hu is not None for lesion in findings.largest_lesions),
        lesion_note=_lesion_note(findings),
        unknown=_unknown(findings),
        about=_about(findings, card),
    )


def report_title(findings: Findings) -> str:
    """Name the scan by its label, its identity or, without both, by what it is."""
    identity = findings.input.identity
    named = findings.input.label or (identity and (_person(identity) or identity.source))
    slices = "Slice of chest CT" if findings.slices == 1 else "Slices of chest CT"
    return named or (slices if findings.input.kind == "pictures" else "Chest CT")


def _person(identity: Identity) -> str | None:
    """Return a patient's name as it is read; DICOM parts family name and others by `^`."""
    return identity.patient_name and ", ".join(part for part in identity.patient_name.split("^") if part)


def _born(identity: Identity) -> str | None:
    """Return the date of birth, which DICOM writes without hyphens, as the other dates."""
    stated = identity.birth_date
    return f"{stated[:4]}-{stated[4:6]}-{stated[6:]}" if stated and re.fullmatch(r"\d{8}", stated) else stated


def _facts(findings: Findings) -> dict[str, str]:
    """Return {name: value} of what a reader wants to know of the scan and the analysis; what is unknown is left out."""
    scan, identity = findings.input, findings.input.identity
    spacing = scan.spacing_mm
    facts = {
        "Patient": _person(identity) if identity else None,
        "Patient ID": identity.patient_id if identity else None,
        "Born": _born(identity) if identity else None,
        "Source": identity.source if identity else None,
        "Scan date": f"{scan.scanned:%Y-%m-%d %H:%M}".removesuffix(" 00:00") if scan.scanned else None,
        "Series": scan.series,
        "Images": str(findings.slices),
        "Slice thickness": f"{scan.slice_thickness_mm:g} mm" if scan.slice_thickness_mm else None,
        "Spacing": " × ".join(f"{mm:.3g}" for mm in reversed(spacing)) + " mm" if spacing else None,
        "Kernel": scan.kernel,
        "Analysed": f"{findings.analysed:%Y-%m-%d %H:%M}",
        "Program": f"groundglass {findings.version}",
        "Model": f"{findings.model.name} ({findings.model.sha256[:8]})",
    }
    return {name: value for name, value in facts.items() if value}


def _headline(findings: Findings) -> list[dict[str, str]]:
    """Return the two main numbers, each with its unit and its interval."""
    area = findings.input.kind == "pictures"
    numbers = (
        (findings.lesion_share_of_lung_percent, "% of the lung" + ("'s area" if area else ""), "%",
         findings.lesion_share_interval_percent, 1),
        (findings.lesion_volume_ml, "ml of lesion", "ml", findings.lesion_volume_interval_ml,
         ml_digits(findings.lesion_volume_ml or 0.0)),
    )  # fmt: skip
    return [
        {
            "value": format_number(value, digits),
            "unit": unit,
            "interval": f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f} {short}" if interval else "",
        }
        for value, unit, short, interval, digits in numbers
        if value is not None
    ]


def _burdens(findings: Findings) -> list[list[str]]:
    """Return a row for each lung and each class of lesions."""
    sides = {"both lungs": findings.both_lungs, "right lung": findings.right_lung, "left lung": findings.left_lung}
    rows = [
        [
            name,
            format_number(burden.lesion_share_of_lung_percent),
            format_ml(burden.lesion_volume_ml),
            format_number(burden.lung_volume_ml, 0),
        ]
        for name, burden in sides.items()
    ]
    rows += [
        [
            _key(colour) + each.name,
            format_number(each.lesion_share_of_lung_percent),
            format_ml(each.volume_ml),
            "",
        ]
        for each, colour in zip(findings.classes, named_colours(findings).values(), strict=False)
    ]
    return rows if findings.input.kind == "volume" else [row[:2] for row in rows]  # pictures have no ml


def _key(colour: Rgb) -> Markup:
    """Draw a square of a colour, which needs no style sheet."""
    square = '<svg class="key" viewBox="0 0 8 8" aria-hidden="true"><rect width="8" height="8" fill="rgb{}"/></svg>'
    return Markup(square).format(colour)


def _bands(findings: Findings) -> list[list[str]]:
    return [
        [
            band.name,
            f"{format_level(band.low_hu)} to {format_level(band.high_hu)}",
            format_number(band.share_of_lung_percent),
            format_number(band.volume_ml, 0),
        ]
        for band in findings.density_bands or ()
    ]


def _density(findings: Findings) -> str:
    means = findings.mean_intensity
    lung = "lung" if means.lesion_hu is None else "lung without them"
    stated = [
        f"{name} {format_level(hu)} HU"
        for name, hu in (("lesions", means.lesion_hu), (lung, means.lung_hu))
        if hu is not None
    ]
    return f"Mean: {', '.join(stated)}." if stated else ""


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
        chart.x_label(index + 0.5, str(findings.input.image_numbers[index]))
    chart.x_title(count / 2, "image")
    return chart


def _histogram(findings: Findings) -> Markup:
    histogram = findings.histogram
    stop_hu = histogram.start_hu + histogram.width_hu * len(histogram.lung)
    middles = [histogram.start_hu + histogram.width_hu * (i + 0.5) for i in range(len(histogram.lung))]
    percent = {}
    for css_class, voxels in (("of-lung", histogram.lung), ("of-lesion", histogram.lesion)):
        total = sum(voxels)
        if not total and css_class == "of-lesion":
            continue
        percent[css_class] = [100 * n / total if total else 0.0 for n in voxels]
    chart = Chart((histogram.start_hu, stop_hu), max(max(values[1:-1]) for values in percent.values()))
    for css_class, values in percent.items():
        within = list(zip(middles, values, strict=True))[1:-1]  # the bins at the ends hold all that lies beyond them
        chart.line(within, css_class)
    for hu in range(-1000, stop_hu, 250):
        chart.x_label(hu, format_level(hu))
    chart.x_title(-450, "HU")
    return chart.svg("Density of lung and lesion")


def _zones(findings: Findings) -> list[list[str]]:
    """Return a row for each third of the height, with both lungs side by side."""
    rows = []
    for third in ("upper", "middle", "lower"):
        row = [third]
        for side in ("right", "left"):
            found = [zone for zone in findings.zones or () if (zone.side, zone.third) == (side, third)]
            row += [format_number(zone.lesion_share_of_lung_percent) for zone in found] or ["-"]
            row += [f"{format_ml(zone.lesion_volume_ml)} of {zone.lung_volume_ml:.0f}" for zone in found] or ["-"]
        rows.append(row)
    return rows


def _lesions(findings: Findings) -> list[dict[str, Any]]:
    return [
        {
            "size": f"{lesion.area_px} px" if lesion.volume_ml is None else f"{format_ml(lesion.volume_ml)} ml",
            "where": " ".join(word for word in (lesion.side, lesion.zone) if word) or "-",
            "hu": "-" if lesion.mean_hu is None else format_level(lesion.mean_hu),
            "slice": lesion.slice,
            "image": place_image(findings, lesion.slice).removeprefix("image "),
        }
        for lesion in findings.largest_lesions
    ]  # fmt: skip


def _lesion_note(findings: Findings) -> str:
    count, listed = findings.lesion_count, len(findings.largest_lesions)
    parts = "connected in the slice" if findings.input.kind == "pictures" else "connected in 3-D"
    shown = f"{count} lesions, each {parts}" if count > 1 else f"1 lesion, {parts}"
    shown += f"; the {listed} largest are listed" if count > listed else ""
    return f"{shown}. Image: the one with most of the lesion."


_NAMES = {
    "lesion_volume_ml": "lesion volume",
    "lung_volume_ml": "lung volume",
    "lesion_share_of_lung_percent": "share of the lung",
    "lesion_volume_interval_ml": "interval of the volume",
    "lesion_share_interval_percent": "interval of the share",
    "input.scanned": "date of the scan",
    "input.series": "series",
    "input.slice_thickness_mm": "slice thickness",
    "input.kernel": "kernel",
    "input.spacing_mm": "spacing",
    "input.slice_positions_mm": "positions in mm",
    "mean_intensity.lesion_hu": "mean density of the lesions",
    "mean_intensity.lung_hu": "mean density of the lung",
    "right_lung": "right lung",
    "left_lung": "left lung",
}


def _unknown(findings: Findings) -> dict[str, list[str]]:
    """Return {reason: names of the unknown values}, without those that other parts of the report explain."""
    explained = ("largest_lesions", "input.identity", "input.label", "classes", "extent")
    reasons: dict[str, list[str]] = {}
    for path, reason in findings.unknown.items():
        if not path.startswith(explained):
            name = _NAMES.get(path) or _NAMES.get(path.partition(".")[0]) or path.replace("_", " ")
            if name not in reasons.setdefault(reason, []):
                reasons[reason].append(name)
    return reasons


def _about(findings: Findings, card: ModelCard) -> dict[str, str]:
    """Return {title: text} about intensities and model; an empty text is left out."""
    test_dice = card.scores.get("test", {}).get("pooled", {}).get("whole", {}).get("dice")
    return {
        "Intensities": f"{findings.intensity.reason}.",
        "Model": f"{card.name} (sha256 {card.sha256[:12]}).",
        "For": card.intended_use,
        "Trained on": "; ".join(card.training_data) + "." if card.training_data else "not stated.",
        "Never trained on": ", ".join(card.never_trained_on) + "." if card.never_trained_on else "",
        "Dice on those, whole volumes": "" if test_dice is None else f"{100 * test_dice:.0f} %.",
        "Limits": " ".join(card.limits),
    }
