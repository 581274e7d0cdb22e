"""Phantoms as upright axial scans and as pictures, and what is asked of the lungs found in them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.packed_mask import MaskSlices
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import ImageStack, Scan


def axial(phantom: Phantom, values: NDArray[np.generic] | None = None) -> Scan:
    """The phantom in upright axial slices, perhaps with other numbers."""
    view = AxialView(phantom.scan.geometry)
    return Scan(view.to_axial(phantom.scan.values if values is None else values), view.geometry)


def truth(phantom: Phantom) -> NDArray[np.bool_]:
    return AxialView(phantom.scan.geometry).to_axial(phantom.lungs.voxels)


def part_of(scan: Scan, *part: slice) -> Scan:
    """A part of a scan's grid, as a scan of its own."""
    values = scan.values[part]
    return Scan(values, replace(scan.geometry, shape=values.shape))


def pictures(*planes: NDArray[np.uint8]) -> ImageStack:
    height, width = (max(plane.shape[axis] for plane in planes) for axis in (0, 1))
    stack = np.zeros((len(planes), height, width), np.uint8)
    for z, plane in enumerate(planes):
        stack[z, : plane.shape[0], : plane.shape[1]] = plane
    sizes = tuple((plane.shape[0], plane.shape[1]) for plane in planes)
    return ImageStack(
        stack, Geometry.pixels(stack.shape), sizes=sizes, names=tuple(f"{z}.png" for z in range(len(planes)))
    )


def dice(found: MaskSlices, b: NDArray[np.bool_]) -> float:
    a = np.asarray(found)
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
