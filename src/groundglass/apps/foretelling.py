"""Foretell what `segment` will do with a scan, from some of its slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groundglass.errors import InputError
from groundglass.inference.lungs.finding import ESTIMATED, find_lungs
from groundglass.report.plausibility import check_plausibility
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import recognise_numbers
from groundglass.scan.scan import Scan

SAMPLED_SLICES = 4  # slices in which lungs are looked for, and, of a DICOM series, whose pixels are decoded
MORE_SLICES = 48  # the same, if those show no lung or an implausible one


@dataclass(frozen=True)
class Foretold:
    """What some slices of a scan tell of its segmentation.

    Attributes:
        intensity: What the values are recognised as; None if they are not recognised.
        refused: Why `segment` would refuse the scan; None if no reason was found.
        warnings: What `segment` would say about the lungs.
        is_doubtful: Whether more slices may tell something else.
    """

    intensity: str | None
    refused: str | None = None
    warnings: tuple[str, ...] = ()
    is_doubtful: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `InputInfo` that follow."""
        return {"intensity": self.intensity, "refused": self.refused}


def foretell(sample: Scan, scan: Scan, slices: int | None = None) -> Foretold:
    """Foretell what `segment` will do with a scan.

    Args:
        sample: Evenly distributed slices of it, the first and the last among them.
        scan: The scan, or as much of it as its numbers are to be recognised by.
        slices: Number of slices of the whole scan; None: those of `scan`.
    """
    intensity = None
    try:
        numbers = recognise_numbers(scan)
        intensity = numbers.reason
        found = find_lungs(sample, kind=numbers.kind)
        if not found.intensity.calibrated:
            intensity += f"; {ESTIMATED}"
        shown, all_slices = len(found.hu), slices or AxialView(scan.geometry).geometry.shape[0]
        implausible = check_plausibility(found, (all_slices - 1) / (shown - 1) if shown > 1 else 1)
    except InputError as error:
        refused = f"{error}; {scan.choice}" if scan.choice else str(error)
        return Foretold(intensity, refused, is_doubtful=intensity is not None)
    if shown < all_slices:
        implausible = tuple(f"by {shown} of {all_slices} slices, {warning}" for warning in implausible)
    return Foretold(intensity, None, (*found.lung_field.warnings, *implausible), is_doubtful=bool(implausible))
