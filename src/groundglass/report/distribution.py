"""Where in the lungs the lesions are, slice by slice and zone by zone, and how dense they are.

There is no segmentation of the lobes, so that the CT severity score, which is of the five lobes, is not given. Zones
are the thirds of each lung's height instead; each gets the extent in quarters that Chung et al. (2020, Radiology
295:202) give each lobe.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from groundglass.report.record import Record
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import HuVolume, Intensity
from groundglass.scan.lungs import LungField
from groundglass.scan.packed import MaskSlices, counts

THIRDS: tuple[Literal["lower"], Literal["middle"], Literal["upper"]] = ("lower", "middle", "upper")
QUARTERS_PERCENT = (0.0, 25.0, 50.0, 75.0)  # a zone's score is how many of them its share is above
HISTOGRAM_HU = (-1100, 200, 20)  # from, to, and the width of a bin


class Zone(Record):
    """A third of a lung's height: its burden, and the score of its extent, 0 to 4."""

    side: Literal["right", "left"]
    third: Literal["upper", "middle", "lower"]
    lesion_volume_ml: float
    lung_volume_ml: float
    lesion_share_of_lung_percent: float
    score: int


class Profile(Record):
    """Lesion and lung of every slice, in the order of the file, each in `unit`."""

    unit: Literal["ml", "px"]
    lesion: tuple[float, ...]
    lung: tuple[float, ...]


class Histogram(Record):
    """Voxels by their HU; the first and the last bin hold what lies beyond.

    Attributes:
        start_hu: Of the first bin.
        width_hu: Of every bin.
        lung: Of the lung without lesion, voxels a bin.
        lesion: Of the lesions.
        estimated: Whether HU are estimated from a lung window.
    """

    start_hu: int
    width_hu: int
    lung: tuple[int, ...]
    lesion: tuple[int, ...]
    estimated: bool


def zones(view: AxialView, lungs: LungField, lesions: MaskSlices) -> tuple[Zone, ...]:
    """Each lung by thirds of the height that the scan shows of it, the upper right one first.

    Args:
        view: The upright axial view, in mm; slices run from feet to head.
        lungs: The lung field, lesions counted in.
        lesions: (z, y, x) bool.
    """
    voxel_ml = view.geometry.voxel_ml
    assert voxel_ml is not None, "pictures have no zones"
    found = []
    for side, lung in (("right", lungs.right), ("left", lungs.left)):
        per_slice = counts(lung)
        lesion_per_slice = np.array([np.count_nonzero(a & b) for a, b in zip(lung, lesions, strict=True)])
        shown = np.flatnonzero(per_slice)
        if not len(shown):
            continue
        ends = np.round(np.linspace(shown[0], shown[-1] + 1, 4)).astype(int)
        for number in reversed(range(3)):
            part = slice(ends[number], ends[number + 1])
            lesion, whole = int(lesion_per_slice[part].sum()), int(per_slice[part].sum())
            share = round(100 * lesion / whole, 2) if whole else 0.0
            found.append(
                Zone(
                    side="right" if side == "right" else "left",
                    third=THIRDS[number],
                    lesion_volume_ml=round(lesion * voxel_ml, 3),
                    lung_volume_ml=round(whole * voxel_ml, 3),
                    lesion_share_of_lung_percent=share,
                    score=sum(share > quarter for quarter in QUARTERS_PERCENT),
                )
            )
    return tuple(found)


def profile(view: AxialView, lungs: LungField, lesions: MaskSlices) -> Profile:
    """Lesion and lung of every slice; arguments as for `zones`, pictures too."""
    voxel_ml = view.geometry.voxel_ml
    in_file = np.argsort(view.slice_numbers)

    def amounts(mask: MaskSlices) -> tuple[float, ...]:
        return tuple(float(n) if voxel_ml is None else round(float(n) * voxel_ml, 4) for n in counts(mask)[in_file])

    return Profile(unit="px" if voxel_ml is None else "ml", lesion=amounts(lesions), lung=amounts(lungs.mask))


def histogram(hu: HuVolume, lungs: LungField, lesions: MaskSlices, intensity: Intensity) -> Histogram:
    """How dense lung and lesions are.

    Args:
        hu: (z, y, x) HU or estimated HU.
        lungs: The lung field, lesions counted in.
        lesions: (z, y, x) bool.
        intensity: What the numbers were taken for.
    """
    start, stop, width = HISTOGRAM_HU
    bins = (stop - start) // width
    voxels = np.zeros((2, bins), dtype=np.int64)
    for plane, lung, lesion in zip(hu, lungs.mask, lesions, strict=True):
        for i, mask in enumerate((lung & ~lesion, lesion)):
            places = np.clip((plane[mask] - start) // width, 0, bins - 1).astype(np.int64)
            voxels[i] += np.bincount(places, minlength=bins)
    return Histogram(
        start_hu=start,
        width_hu=width,
        lung=tuple(voxels[0].tolist()),
        lesion=tuple(voxels[1].tolist()),
        estimated=not intensity.calibrated,
    )
