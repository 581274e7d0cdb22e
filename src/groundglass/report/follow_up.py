"""What became of a patient's lesions from scan to scan, and what speaks against comparing them.

A difference counts against what measuring the same chest again would give. No pair of scans of one day is at hand, so
repeats are simulated (other kernels, doses and pixels); their coefficient of variation is in the model's card.
Breathing, contrast and the patient's position are not in it: true repeats vary more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from itertools import pairwise

from groundglass.report.findings import Findings, ModelRef
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import Scan
from groundglass.strict_model import StrictModel

SCHEMA = 1
Z_95 = 1.96
LUNG_CHANGE = 0.15  # of the lung's volume: more, and breath or coverage differ
THICKNESS_RATIO = 1.5  # of slice distances: more, and partial volumes differ

Interval = tuple[float, float]


class Visit(StrictModel):
    """One scan of a series in time.

    Attributes:
        folder: Where its own results are, under the follow-up's folder.
        taken: When, ISO 8601; None: not stated, the order is as given.
        lesion_volume_ml: Of all lesions; with `lesion_interval_ml`, 95 % of repeats.
        lung_volume_ml: Of both lungs, lesions included.
        lesion_share_of_lung_percent: With `share_interval_percent`, 95 % of repeats.
        slice_distance_mm: Between neighbouring slices.
        kernel: Of the reconstruction, where DICOM states it.
        calibrated: False where HU are estimated from a lung window.
        warnings: Of this scan.
    """

    folder: str
    taken: datetime | None
    lesion_volume_ml: float | None
    lesion_interval_ml: Interval | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None
    share_interval_percent: Interval | None
    slice_distance_mm: float | None
    kernel: str | None
    calibrated: bool
    warnings: tuple[str, ...]


class VolumeChange(StrictModel):
    """Scan `later` less scan `earlier` (numbered from 1), with 95 % of what repeats of both would give."""

    earlier: int
    later: int
    lesion_volume_ml: float | None
    lesion_interval_ml: Interval | None
    lesion_share_of_lung_points: float | None
    share_interval_points: Interval | None

    @property
    def in_words(self) -> str:
        """One line for a person."""
        ml, points = self.lesion_volume_ml, self.lesion_share_of_lung_points
        amounts = [f"{ml:+.1f} ml" if ml is not None else "", f"{points:+.1f} % of lung" if points is not None else ""]
        known = ", ".join(amount for amount in amounts if amount)
        return f"{known} ({self.verdict})" if known else self.verdict

    @property
    def verdict(self) -> str:
        """In words, by the share of the lung, else by the volume."""
        by_share = self.lesion_share_of_lung_points is not None
        value = self.lesion_share_of_lung_points if by_share else self.lesion_volume_ml
        interval = self.share_interval_points if by_share else self.lesion_interval_ml
        if value is None:
            return "unknown"
        if interval is None:
            return "more" if value > 0 else "less" if value < 0 else "the same"
        if interval[0] <= 0 <= interval[1]:
            return "within what repeats differ by"
        return "more" if value > 0 else "less"


class FollowUp(StrictModel):
    """A patient's scans in the order of time; `to_json` gives the text of `follow.json`.

    Attributes:
        schema_number: Of this layout; `schema` in JSON.
        visits: The scans.
        changes: Of each to the next, then of the first to the last where there are more than two.
        repeatability: Coefficient of variation of a lesion volume over simulated repeats; None: the model's card has
            none, and there are no intervals.
        model: Name and sha256.
        version: Of groundglass.
        warnings: What speaks against comparing the scans.
    """

    schema_number: int
    visits: tuple[Visit, ...]
    changes: tuple[VolumeChange, ...]
    repeatability: float | None
    model: ModelRef
    version: str
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Strict JSON: never NaN or Infinity."""
        return self.model_dump_json(indent=2).replace('"schema_number"', '"schema"', 1)


def visit(findings: Findings, scan: Scan, folder: str, taken: datetime | None, repeatability: float | None) -> Visit:
    """One scan of a series: its findings, and what of it decides whether it compares with others."""
    header = scan.series.headers[0] if scan.series else None
    kernel = str(header.get("ConvolutionKernel") or "") if header is not None else ""
    volume, share = findings.lesion_volume_ml, findings.lesion_share_of_lung_percent
    return Visit(
        folder=folder,
        taken=taken,
        lesion_volume_ml=volume,
        lesion_interval_ml=_repeats(volume, repeatability),
        lung_volume_ml=findings.lung_volume_ml,
        lesion_share_of_lung_percent=share,
        share_interval_percent=_repeats(share, repeatability),
        slice_distance_mm=round(AxialView(scan.geometry).geometry.spacing[0], 3) if scan.geometry.in_mm else None,
        kernel=kernel or None,
        calibrated=findings.intensity.calibrated,
        warnings=findings.warnings,
    )


def compare(visits: Sequence[Visit], repeatability: float | None, model: ModelRef) -> FollowUp:
    """Set scans beside each other.

    Args:
        visits: Two or more, in the order of time.
        repeatability: Of the model that measured them all.
        model: Name and sha256 of it.
    """
    pairs = [*pairwise(range(len(visits))), *([(0, len(visits) - 1)] if len(visits) > 2 else [])]
    warnings = [text for i, j in pairwise(range(len(visits))) for text in _differences(visits, i, j)]
    if repeatability is None:
        warnings.append("the model's repeatability is not known: changes have no interval")
    return FollowUp(
        schema_number=SCHEMA,
        visits=tuple(visits),
        changes=tuple(_change(visits, i, j, repeatability) for i, j in pairs),
        repeatability=repeatability,
        model=model,
        version=version("groundglass"),
        warnings=tuple(warnings),
    )


def _repeats(value: float | None, variation: float | None) -> Interval | None:
    """95 % of repeats around a value whose logarithm varies with that standard deviation."""
    if value is None or variation is None:
        return None
    factor = math.exp(Z_95 * variation)
    return round(value / factor, 3), round(value * factor, 3)


def _change(visits: Sequence[Visit], i: int, j: int, variation: float | None) -> VolumeChange:
    def difference(before: float | None, after: float | None) -> tuple[float | None, Interval | None]:
        if before is None or after is None:
            return None, None
        change = after - before
        if variation is None:
            return round(change, 3), None
        reach = Z_95 * variation * math.hypot(before, after)
        return round(change, 3), (round(change - reach, 3), round(change + reach, 3))

    earlier, later = visits[i], visits[j]
    volume, volume_interval = difference(earlier.lesion_volume_ml, later.lesion_volume_ml)
    share, share_interval = difference(earlier.lesion_share_of_lung_percent, later.lesion_share_of_lung_percent)
    return VolumeChange(
        earlier=i + 1,
        later=j + 1,
        lesion_volume_ml=volume,
        lesion_interval_ml=volume_interval,
        lesion_share_of_lung_points=share,
        share_interval_points=share_interval,
    )


def _differences(visits: Sequence[Visit], i: int, j: int) -> list[str]:
    """Why two scans do not compare."""
    earlier, later = visits[i], visits[j]
    which = f"scans {i + 1} and {j + 1}"
    found = []
    if earlier.lung_volume_ml is None or later.lung_volume_ml is None:
        found.append(f"{which}: a lung volume is unknown, so that coverage cannot be compared")
    elif abs(math.log(later.lung_volume_ml / earlier.lung_volume_ml)) > math.log1p(LUNG_CHANGE):
        found.append(
            f"{which} show {earlier.lung_volume_ml:.0f} and {later.lung_volume_ml:.0f} ml of lung: "
            "breath or coverage differ, ml and % do not compare"
        )
    before, after = earlier.slice_distance_mm, later.slice_distance_mm
    if before and after and max(before, after) / min(before, after) > THICKNESS_RATIO:
        found.append(
            f"{which} have slices {before:g} and {after:g} mm apart: small lesions and rims are measured differently"
        )
    if earlier.calibrated != later.calibrated:
        found.append(f"of {which} one is in HU, the other an 8-bit lung window: intensities differ")
    if earlier.kernel != later.kernel and earlier.kernel and later.kernel:
        found.append(f"{which} were reconstructed with other kernels ({earlier.kernel}, {later.kernel})")
    return found
