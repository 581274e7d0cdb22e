"""Changes of a patient's lesions from scan to scan, and reasons why two scans may not be comparable.

A change is compared with the variation between repeated scans of the same chest. No pairs of scans of one day are
available, so repeats are simulated (other kernels, doses and pixels); the model's card holds their coefficient of
variation. Breathing, contrast and the patient's position are not simulated: real repeats vary more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, time
from importlib.metadata import version
from itertools import pairwise

from groundglass.inference.lungs.incomplete import NOT_WHOLE
from groundglass.report.amounts import format_number, ml_digits
from groundglass.report.extent import is_negligible
from groundglass.report.findings import ClassBurden, Findings, Interval, ModelRef
from groundglass.strict_model import StrictModel

SCHEMA = 2
Z_95 = 1.96
LUNG_CHANGE = 0.15  # relative change of lung volume above which breath or coverage differ
OTHER_PATIENTS = "the scans state different patients: check that they are of the same one"
THICKNESS_RATIO = 1.5  # ratio of slice distances above which partial volumes differ


class Visit(StrictModel):
    """One scan of a series in time.

    Attributes:
        folder: Folder of the scan's own results, inside the follow-up's folder.
        taken: Date and time of the scan; None: not stated, scans are in the order given.
        lesion_volume_ml: Volume of all lesions.
        lesion_interval_ml: Interval of 95 % of repeats.
        lung_volume_ml: Volume of both lungs, lesions included.
        lesion_share_of_lung_percent: Lesion in % of the lung.
        share_interval_percent: Interval of 95 % of repeats.
        lesion_volume_interval_ml: Interval of 80 % by the model's calibration, as in the findings.
        lesion_share_interval_percent: The same of the share.
        classes: The lesions by class, for a model with classes.
        slice_distance_mm: Distance of neighbouring slices.
        kernel: Reconstruction kernel, where DICOM states it.
        calibrated: False where HU are estimated from a lung window.
        warnings: Warnings of the scan's findings.
    """

    folder: str
    taken: datetime | None
    lesion_volume_ml: float | None
    lesion_interval_ml: Interval | None
    lung_volume_ml: float | None
    lesion_share_of_lung_percent: float | None
    share_interval_percent: Interval | None
    lesion_volume_interval_ml: Interval | None = None
    lesion_share_interval_percent: Interval | None = None
    classes: tuple[ClassBurden, ...] = ()
    slice_distance_mm: float | None
    kernel: str | None
    calibrated: bool
    warnings: tuple[str, ...]


class VolumeChange(StrictModel):
    """Scan `later` minus scan `earlier` (numbered from 1), with the interval of 95 % of repeats of both.

    Attributes:
        earlier: Number of the earlier scan.
        later: Number of the later scan.
        lesion_volume_ml: Change of the lesion volume.
        lesion_interval_ml: Its interval.
        lesion_share_of_lung_points: Change of the share of the lung, in percentage points.
        share_interval_points: Its interval.
        doubt: Why the two scans cannot be compared, so that the numbers say nothing of the patient; None if they can.
        negligible: Whether neither scan shows lesion of relevant size: what is marked in healthy lungs may differ by
            more than repeats of a lesion do.
    """

    earlier: int
    later: int
    lesion_volume_ml: float | None
    lesion_interval_ml: Interval | None
    lesion_share_of_lung_points: float | None
    share_interval_points: Interval | None
    doubt: str | None = None
    negligible: bool = False

    @property
    def in_words(self) -> str:
        """The change on one line, for a person."""
        ml, points = self.lesion_volume_ml, self.lesion_share_of_lung_points
        parts = [
            f"{format_number(ml, ml_digits(ml), sign=True)} ml" if ml is not None else "",
            f"{format_number(points, sign=True)} percentage points" if points is not None else "",
        ]
        known = ", ".join(part for part in parts if part)
        return f"{self.verdict} ({known})" if known else self.verdict

    @property
    def verdict(self) -> str:
        """The direction of the change by the share of the lung, or by the volume where the share is unknown."""
        by_share = self.lesion_share_of_lung_points is not None
        value = self.lesion_share_of_lung_points if by_share else self.lesion_volume_ml
        interval = self.share_interval_points if by_share else self.lesion_interval_ml
        if value is None:
            return "unknown"
        if self.doubt:
            return f"cannot be told: {self.doubt}"
        if self.negligible:
            return "neither scan shows lesion of relevant size"
        if interval is None:
            return "more" if value > 0 else "less" if value < 0 else "the same"
        if interval[0] <= 0 <= interval[1]:
            return "no change beyond what repeats differ by"
        return "more" if value > 0 else "less"


class FollowUp(StrictModel):
    """A patient's scans in the order of time; `to_json` gives the text of `follow.json`.

    Attributes:
        schema_number: Version of this layout; `schema` in JSON.
        visits: The scans.
        changes: Changes from each scan to the next, then from the first to the last where there are more than two.
        repeatability: Coefficient of variation of a lesion volume over simulated repeats; None: the model's card has
            none, and there are no intervals.
        model: Name and SHA-256 of the model.
        version: Version of groundglass.
        warnings: Reasons why the scans may not be comparable.
    """

    schema_number: int
    visits: tuple[Visit, ...]
    changes: tuple[VolumeChange, ...]
    repeatability: float | None
    model: ModelRef
    version: str
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Format as strict JSON, without NaN or Infinity."""
        return self.model_dump_json(indent=2).replace('"schema_number"', '"schema"', 1)


def make_visit(findings: Findings, folder: str, taken: datetime | None, repeatability: float | None) -> Visit:
    """Collect the findings of a scan, and the properties that decide whether it is comparable with others."""
    volume, share = findings.lesion_volume_ml, findings.lesion_share_of_lung_percent
    return Visit(
        folder=folder,
        taken=taken,
        lesion_volume_ml=volume,
        lesion_interval_ml=_repeat_interval(volume, repeatability),
        lung_volume_ml=findings.lung_volume_ml,
        lesion_share_of_lung_percent=share,
        share_interval_percent=_repeat_interval(share, repeatability),
        lesion_volume_interval_ml=findings.lesion_volume_interval_ml,
        lesion_share_interval_percent=findings.lesion_share_interval_percent,
        classes=findings.classes,
        slice_distance_mm=findings.input.slice_distance_mm,
        kernel=findings.input.kernel,
        calibrated=findings.intensity.calibrated,
        warnings=findings.warnings,
    )


def compare_visits(visits: Sequence[Visit], repeatability: float | None, model: ModelRef) -> FollowUp:
    """Compare each scan with the next, and the first with the last.

    Args:
        visits: Two or more scans in the order of time.
        repeatability: Repeatability of the model that measured all scans, as its card states it.
        model: Name and SHA-256 of the model.
    """
    pairs = [*pairwise(range(len(visits))), *([(0, len(visits) - 1)] if len(visits) > 2 else [])]
    warnings = [text for i, j in pairs for text in _comparability_warnings(visits, i, j)]
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


def _repeat_interval(value: float | None, variation: float | None) -> Interval | None:
    """Return the interval of 95 % of repeats of a value whose logarithm has this standard deviation."""
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
        half_width = Z_95 * variation * math.hypot(before, after)
        return round(change, 3), (round(change - half_width, 3), round(change + half_width, 3))

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
        doubt=_doubt(earlier, later),
        negligible=_is_negligible(earlier) and _is_negligible(later),
    )


def _is_negligible(visit: Visit) -> bool:
    """Whether a scan's findings show no lesion, or none of relevant size."""
    share, interval = visit.lesion_share_of_lung_percent, visit.lesion_share_interval_percent
    return share is not None and is_negligible(share, interval, visit.lesion_volume_ml, visit.lung_volume_ml)


def is_order_known(first: datetime, second: datetime) -> bool:
    """Return whether times tell which of two scans is the earlier one: not on one day, of which only one states it."""
    return first.date() != second.date() or (first != second and min(first, second).time() != time())


def _doubt(earlier: Visit, later: Visit) -> str | None:
    """Return why neither ml nor % of two scans can be compared; None if they can."""
    if earlier.taken is not None and earlier.taken == later.taken:
        return (
            f"both scans have one date, {earlier.taken:%Y-%m-%d}, and no different times, so that what differs is no "
            "change over time; check the dates"
        )
    if earlier.lung_volume_ml is None or later.lung_volume_ml is None:
        return "a lung volume is unknown, as of pictures and of scans without a spacing"
    if abs(math.log(later.lung_volume_ml / earlier.lung_volume_ml)) > math.log1p(LUNG_CHANGE):
        return (
            f"breath or coverage differ (lungs of {earlier.lung_volume_ml:.0f} and {later.lung_volume_ml:.0f} ml), "
            "so that neither ml nor % compare"
        )
    return "one scan is in HU, the other in grey levels of a window" if earlier.calibrated != later.calibrated else None


def _comparability_warnings(visits: Sequence[Visit], i: int, j: int) -> list[str]:
    """Return the reasons why two scans may not be comparable."""
    earlier, later = visits[i], visits[j]
    which = f"scans {i + 1} and {j + 1}"
    found = []
    if doubt := _doubt(earlier, later):
        found.append(f"{which}: {doubt}")
    elif cut := [name for name, visit in zip(("earlier", "later"), (earlier, later), strict=True) if _is_cut(visit)]:
        found.append(
            f"{which}: {'both do' if len(cut) == 2 else f'the {cut[0]} one does'} not cover the lungs whole: lesions "
            "outside the covered part are missing, which may be part of a change"
        )
    before, after = earlier.slice_distance_mm, later.slice_distance_mm
    if before and after and max(before, after) / min(before, after) > THICKNESS_RATIO:
        distances = f"{before:.3g} and {after:.3g} mm"
        found.append(
            f"{which} have slices {distances} apart: small lesions and rims are measured differently, which may be "
            "part of a change"
        )
    if earlier.kernel != later.kernel and earlier.kernel and later.kernel:
        kernels = f"{earlier.kernel}, {later.kernel}"
        found.append(
            f"{which} were reconstructed with other kernels ({kernels}): densities differ, which may be part of a "
            "change"
        )
    return found


def _is_cut(visit: Visit) -> bool:
    return any(NOT_WHOLE in warning for warning in visit.warnings)
