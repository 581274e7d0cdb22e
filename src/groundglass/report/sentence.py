"""What was found in sentences that can be copied into a radiology report."""

from __future__ import annotations

from groundglass.inference.model_card import ModelCard
from groundglass.report.amounts import format_level, format_ml, format_number, ml_digits
from groundglass.report.findings import Findings, Interval
from groundglass.report.image_numbers import name_image


def report_sentence(findings: Findings) -> str:
    """State amount, interval, extent, sides, zones and density of the lesions, and what measured them."""
    date = f" of {findings.input.scanned:%Y-%m-%d}" if findings.input.scanned else ""
    what = _what(findings)
    by = f"(groundglass {findings.version}, model {findings.model.name}; research use, not a medical device)"
    corrected = "; the mask was corrected by hand" if findings.corrected_by_hand else ""
    if findings.lesion_slices == 0:
        counted = _counted(findings.slices)
        return f"Automated analysis of the {what}{date} {by}: no lesion was marked in {counted}{corrected}."
    if findings.is_negligible:
        amount = _amount(findings).removeprefix("lesions of ")
        start = f"Automated analysis of the {what}{date} {by}: no lesion of relevant size was marked"
        return f"{start} ({amount}, as is marked in healthy lungs)."
    parts = [_amount(findings), *_extent(findings), *_classes(findings), *_sides(findings), *_zone(findings)]
    hu = findings.mean_intensity.lesion_hu
    parts += [f"mean density {format_level(hu)} HU"] if hu is not None else []
    parts += _largest(findings)
    return f"Automated analysis of the {what}{date} {by}: {'; '.join(parts)}{corrected}."


def state_uncertainty(findings: Findings, card: ModelCard) -> str:
    """Say how far the numbers can be trusted, by this scan's interval and by the model's scores on its test scans."""
    sentences = []
    if findings.lesion_volume_interval_ml or findings.lesion_share_interval_percent:
        sentences.append("By calibration, the interval holds 80 % of readings in held-out scans and pictures.")
    scores = card.scores.get("test", {}).get("pooled", {}).get("whole", {})
    sensitivity, precision = scores.get("sensitivity"), scores.get("precision")
    if sensitivity and precision and not findings.corrected_by_hand:
        sentences.append(
            f"On its test scans the model found {100 * sensitivity:.0f} % of what readers had marked, and marked "
            f"{sensitivity / precision:.1f} times as much."
        )
    return " ".join(sentences)


def _what(findings: Findings) -> str:
    if findings.input.kind == "volume":
        return "chest CT"
    return "picture" if findings.slices == 1 else f"{findings.slices} pictures"


def _counted(slices: int) -> str:
    return f"{slices} slice{'s' if slices > 1 else ''}"


def _amount(findings: Findings) -> str:
    whole = "lung area" if findings.input.kind == "pictures" else "lung volume"
    volume, share = findings.lesion_volume_ml, findings.lesion_share_of_lung_percent
    amounts = []
    if volume is not None:
        digits = ml_digits(volume)
        amounts.append(f"{format_ml(volume)} ml{_interval(findings.lesion_volume_interval_ml, 'ml', digits)}")
    if share is not None:
        lung = f" of {findings.lung_volume_ml:.0f} ml" if findings.lung_volume_ml is not None else ""
        amounts.append(
            f"{format_number(share)} % of the {whole}{lung}{_interval(findings.lesion_share_interval_percent, '%', 1)}"
        )
    return f"lesions of {' or '.join(amounts)}" if amounts else f"lesions in {findings.lesion_slices} slices"


def _interval(interval: Interval | None, unit: str, digits: int) -> str:
    return "" if interval is None else f" (80 % interval {interval[0]:.{digits}f} to {interval[1]:.{digits}f} {unit})"


def _extent(findings: Findings) -> list[str]:
    return [f"extent: {findings.extent.name} ({findings.extent.range})"] if findings.extent else []


def _classes(findings: Findings) -> list[str]:
    shares = [(each.name, each.lesion_share_of_lung_percent) for each in findings.classes]
    stated = [f"{name} {format_number(share)} %" for name, share in shares if share is not None]
    return [", ".join(stated)] if shares else []


def _sides(findings: Findings) -> list[str]:
    right = findings.right_lung.lesion_share_of_lung_percent
    left = findings.left_lung.lesion_share_of_lung_percent
    if right is None or left is None:
        return []
    return [f"right lung {format_number(right)} %, left lung {format_number(left)} %"]


def _zone(findings: Findings) -> list[str]:
    """Name the zone of which most is lesion; none where all lesion lies outside the zones."""
    if not any(zone.lesion_share_of_lung_percent for zone in findings.zones or ()):
        return []
    most = max(findings.zones or (), key=lambda zone: zone.lesion_share_of_lung_percent)
    share = format_number(most.lesion_share_of_lung_percent)
    return [f"most affected: {most.side} {most.third} zone ({share} % of it)"]


def _largest(findings: Findings) -> list[str]:
    lesion = findings.largest_lesions[0]
    if lesion.volume_ml is None:
        return []
    where = f" in the {lesion.side} {lesion.zone} zone" if lesion.side and lesion.zone else ""
    return [f"largest lesion {format_ml(lesion.volume_ml)} ml{where}, {name_image(findings, lesion.slice)}"]
