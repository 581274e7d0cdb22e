"""Where the lesions are, slice by slice and zone by zone.

Lobes are not segmented, so the CT severity score of the five lobes cannot be given. Zones are the thirds of each lung's
height instead; each gets the score of its extent in quarters that Chung et al. (2020, Radiology 295:202) give a lobe.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.amounts import percent_of
from groundglass.scan.packed_mask import MaskSlices, shared_voxels_per_slice, voxels_per_slice
from groundglass.strict_model import StrictModel

THIRDS: tuple[Literal["lower"], Literal["middle"], Literal["upper"]] = ("lower", "middle", "upper")
NO_THIRDS = "the lung is shown in fewer than three slices, too few for thirds"
QUARTERS_PERCENT = (0.0, 25.0, 50.0, 75.0)  # a zone's score is the number of these that its share exceeds


class Zone(StrictModel):
    """A third of a lung's height: its burden, and the score of its extent from 0 to 4.

    Attributes:
        side: The patient's side.
        third: Third of the lung's height.
        lesion_volume_ml: Volume of the lesions in the zone.
        lung_volume_ml: Volume of the zone, lesions included.
        lesion_share_of_lung_percent: Their share of the zone.
        score: Score of the extent from 0 to 4.
    """

    side: Literal["right", "left"]
    third: Literal["upper", "middle", "lower"]
    lesion_volume_ml: float
    lung_volume_ml: float
    lesion_share_of_lung_percent: float
    score: int


class Profile(StrictModel):
    """Lesion and lung of every slice in the order of the file, each in `unit`.

    Attributes:
        unit: Unit of the numbers.
        lesion: Lesion in each slice.
        lung: Lung in each slice, lesions included.
    """

    unit: Literal["ml", "px"]
    lesion: tuple[float, ...]
    lung: tuple[float, ...]


def measure_zones(segmented: SegmentedScan) -> tuple[Zone, ...]:
    """Measure each third of the height that the scan shows of each lung, the upper right one first.

    A lung that is missing, or shown in less than three slices, has none.

    Args:
        segmented: A volume with a spacing in mm.
    """
    voxel_ml = segmented.view.geometry.voxel_ml
    assert voxel_ml is not None, "pictures have no zones"
    found = []
    for side, lung in (("right", segmented.lung_field.right), ("left", segmented.lung_field.left)):
        per_slice, ends = voxels_per_slice(lung), ends_of_thirds(lung)
        lesion_per_slice = shared_voxels_per_slice(segmented.lesions, lung)
        if ends is None:
            continue
        for index in reversed(range(3)):
            part = slice(ends[index], ends[index + 1])
            lesion, whole = int(lesion_per_slice[part].sum()), int(per_slice[part].sum())
            share = percent_of(lesion, whole) if whole else 0.0
            found.append(
                Zone(
                    side="right" if side == "right" else "left",
                    third=THIRDS[index],
                    lesion_volume_ml=round(lesion * voxel_ml, 3),
                    lung_volume_ml=round(whole * voxel_ml, 3),
                    lesion_share_of_lung_percent=share,
                    score=sum(share > quarter for quarter in QUARTERS_PERCENT),
                )
            )
    return tuple(found)


def measure_profile(segmented: SegmentedScan) -> Profile:
    """Measure lesion and lung of every slice of a volume or an image stack."""
    voxel_ml = segmented.view.geometry.voxel_ml
    file_order = np.argsort(segmented.view.slice_numbers)

    def amounts(mask: MaskSlices) -> tuple[float, ...]:
        voxels = voxels_per_slice(mask)[file_order]
        return tuple(float(n) if voxel_ml is None else round(float(n) * voxel_ml, 4) for n in voxels)

    lesion, lung = amounts(segmented.lesions), amounts(segmented.lung_field.mask)
    return Profile(unit="px" if voxel_ml is None else "ml", lesion=lesion, lung=lung)


def ends_of_thirds(lung: MaskSlices) -> tuple[int, int, int, int] | None:
    """Return the slices at which a lung's thirds begin, from feet to head, and the slice above.

    None for a lung that is missing, or extends over less than three slices.
    """
    shown = np.flatnonzero(voxels_per_slice(lung))
    if not len(shown) or shown[-1] - shown[0] < 2:
        return None
    low, first, second, high = np.round(np.linspace(shown[0], shown[-1] + 1, 4)).astype(int).tolist()
    return low, first, second, high
