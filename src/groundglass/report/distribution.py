"""Where in the lungs the lesions are, slice by slice and zone by zone, and how dense they are.

There is no segmentation of the lobes, so that the CT severity score, which is of the five lobes, is not given. Zones
are the thirds of each lung's height instead; each gets the extent in quarters that Chung et al. (2020, Radiology
295:202) give each lobe.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from groundglass.inference.pipeline import SegmentedScan
from groundglass.scan.packed_mask import MaskSlices, counts
from groundglass.strict_model import StrictModel

THIRDS: tuple[Literal["lower"], Literal["middle"], Literal["upper"]] = ("lower", "middle", "upper")
QUARTERS_PERCENT = (0.0, 25.0, 50.0, 75.0)  # a zone's score is how many of them its share is above
HISTOGRAM_HU = (-1100, 200, 20)  # from, to, and the width of a bin


class Zone(StrictModel):
    """A third of a lung's height: its burden, and the score of its extent, 0 to 4."""

    side: Literal["right", "left"]
    third: Literal["upper", "middle", "lower"]
    lesion_volume_ml: float
    lung_volume_ml: float
    lesion_share_of_lung_percent: float
    score: int


class Profile(StrictModel):
    """Lesion and lung of every slice, in the order of the file, each in `unit`."""

    unit: Literal["ml", "px"]
    lesion: tuple[float, ...]
    lung: tuple[float, ...]


class Histogram(StrictModel):
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


def zones(segmented: SegmentedScan) -> tuple[Zone, ...]:
    """Divide the height that the scan shows of each lung into thirds, the upper right one first.

    Args:
        segmented: A volume with a spacing in mm.
    """
    voxel_ml = segmented.view.geometry.voxel_ml
    assert voxel_ml is not None, "pictures have no zones"
    found = []
    for side, lung in (("right", segmented.lung_field.right), ("left", segmented.lung_field.left)):
        per_slice = counts(lung)
        lesion_per_slice = np.array([np.count_nonzero(a & b) for a, b in zip(lung, segmented.lesions, strict=True)])
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


def profile(segmented: SegmentedScan) -> Profile:
    """Lesion and lung of every slice of a volume or an image stack."""
    voxel_ml = segmented.view.geometry.voxel_ml
    in_file = np.argsort(segmented.view.slice_numbers)

    def amounts(mask: MaskSlices) -> tuple[float, ...]:
        return tuple(float(n) if voxel_ml is None else round(float(n) * voxel_ml, 4) for n in counts(mask)[in_file])

    lesion, lung = amounts(segmented.lesions), amounts(segmented.lung_field.mask)
    return Profile(unit="px" if voxel_ml is None else "ml", lesion=lesion, lung=lung)


def histogram(segmented: SegmentedScan) -> Histogram:
    """Count the voxels of lung and lesions by their HU."""
    start, stop, width = HISTOGRAM_HU
    bins = (stop - start) // width
    voxels = np.zeros((2, bins), dtype=np.int64)
    for hu, lung, lesion in zip(segmented.hu, segmented.lung_field.mask, segmented.lesions, strict=True):
        for i, mask in enumerate((lung & ~lesion, lesion)):
            places = np.clip((hu[mask] - start) // width, 0, bins - 1).astype(np.int64)
            voxels[i] += np.bincount(places, minlength=bins)
    return Histogram(
        start_hu=start,
        width_hu=width,
        lung=tuple(voxels[0].tolist()),
        lesion=tuple(voxels[1].tolist()),
        estimated=not segmented.intensity.calibrated,
    )
