"""A segmented scan from arrays, without files, the search for lungs, or a network."""

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.pipeline import SegmentedScan
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Intensity
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.scan import ImageStack, Scan

HU = Intensity(IntensityKind.HU, np.ones(1), np.zeros(1), "because", calibrated=True)


def segmented_scan(
    geometry: Geometry,
    lung_field: LungField,
    lesions: NDArray[np.bool_],
    hu: NDArray[np.float32] | None = None,
    intensity: Intensity = HU,
) -> SegmentedScan:
    """Make a segmented scan from (z, y, x) arrays in the axial view of `geometry`; without spacing, an image stack."""
    view = AxialView(geometry)
    values = view.from_axial(np.zeros(lesions.shape, np.float32) if hu is None else hu)
    sizes = (geometry.shape[1:],) * geometry.shape[0]
    scan = Scan(values, geometry) if geometry.in_mm else ImageStack(values, geometry, sizes=sizes)
    class_map = PackedMask.from_slices(lesions.astype(np.uint8))
    return SegmentedScan(scan, view, intensity, HU.slices(view.to_axial(values)), lung_field, class_map)
