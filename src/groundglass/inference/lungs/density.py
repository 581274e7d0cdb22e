"""Whether numbers that were taken for HU, perhaps on request, make the lungs as dark as lungs are."""

from __future__ import annotations

import numpy as np

from groundglass.errors import IntensityError
from groundglass.scan.intensity import HuSlices, Intensity
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.packed_mask import PackedMask, voxels_per_slice

# The darkest twentieth of lungs is no denser, and their median no darker; 12 real scans have -1070 to -894, and -882
# to -649.
DENSEST_HU, DARKEST_HU = -400.0, -1050.0
SAMPLED_SLICES, STEP = 40, 4  # slices and pixels that are measured


def check_lung_density(hu: HuSlices, lungs: PackedMask, intensity: Intensity) -> None:
    """Check the density of lungs whose numbers were not estimated from themselves.

    Args:
        hu: (z, y, x) the scan in HU.
        lungs: (z, y, x) both lungs.
        intensity: What the numbers were taken for.

    Raises:
        IntensityError: No lungs are so dense, or so dark.
    """
    shown = np.flatnonzero(voxels_per_slice(lungs))
    if not intensity.calibrated or not len(shown):
        return
    some = shown[:: max(1, len(shown) // SAMPLED_SLICES)]
    dark, median = np.percentile(np.concatenate([hu[int(z)][lungs[int(z)]][::STEP] for z in some]), (5, 50))
    if dark > DENSEST_HU or median < DARKEST_HU:
        raise IntensityError(
            f"the lungs would measure {median:.4g} HU in the middle and {dark:.4g} HU where they are darkest, expected "
            f"-900 to -600 and about -930: the numbers are not {intensity.kind}; name their kind with --intensity, "
            f"such as {IntensityKind.WINDOW_UNIT}, which estimates HU from the lungs"
        )
