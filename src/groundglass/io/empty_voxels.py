"""Voxels that hold no number: NaN, infinity, or the highest number of all where it pads a scan.

Resampling writes them outside the field of view, and masking outside the body or the lungs: there they are taken as
air. Inside, nothing tells what they were.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.scan.geometry import AxialView
from groundglass.scan.scan import Scan

PADDING_HU = -1024.0  # what stands for air where a scan shows nothing
# The lowest number of HU lies below the first of these, that of grey levels and of HU shifted by up to 1024 between.
LOWEST = (-300.0, 1000.0)
BRIGHTER_THAN_BONE = 1500.0  # in HU or shifted HU
LEAST_OF_SIDES = 0.05  # share of the pixels at the sides of slices: with fewer of the highest number, it is metal
LEAST_NUMBERS = 0.01  # share of all voxels that hold a number; lungs alone are a tenth
MOST_INSIDE = 1e-4  # share of all voxels that may be empty without a connection to a side


def fill_empty_voxels(name: str, scan: Scan) -> Scan:
    """Return a volume with numbers everywhere, and a note if voxels without one were filled.

    What is connected with a side of the axial slices becomes air. Of what is not, up to `MOST_INSIDE` of all voxels
    get the number of the nearest voxel in their slice.

    Args:
        name: Name of the input, for messages.
        scan: A volume whose values may be NaN or infinite.

    Raises:
        FormatError: More voxels inside hold no number, or nearly all do.
    """
    padding = _padding(scan)
    is_whole = scan.values.dtype.kind in "iu" or np.isfinite((scan.values.min(), scan.values.max())).all()
    if padding is None and is_whole:
        return scan
    values = scan.values.copy()
    has_number = np.isfinite(values)
    empty = ~has_number if padding is None else ~has_number | (values == padding)
    if np.count_nonzero(~empty) < LEAST_NUMBERS * values.size:
        raise FormatError(
            f"{name} has {np.count_nonzero(empty):,} of {values.size:,} voxels that are NaN or infinite, or padding: "
            "nearly nothing is left, export the scan again"
        )
    air = _air(float(values[~empty].min()))
    view = AxialView(scan.geometry)
    beside = view.from_axial(_connected_with_sides(view.to_axial(empty)))
    values[beside] = air
    holes = ~has_number & ~beside
    inside = int(np.count_nonzero(holes))
    if inside > MOST_INSIDE * values.size:
        raise FormatError(
            f"{name} has {inside:,} of {values.size:,} voxels inside the image that are NaN or infinite, and nothing "
            "tells what they show: export the scan again, with numbers there"
        )
    if inside:
        _fill_like_nearest(view.to_axial(values), view.to_axial(holes))
    notes = [f"{inside:,} voxels inside are NaN or infinite: taken like those beside them"] if inside else []
    if beside.any():
        kinds = [*([] if has_number.all() else ["NaN or infinite"]), *([] if padding is None else [f"{padding:g}"])]
        share = f"{100 * np.count_nonzero(beside) / values.size:.2g} % of the voxels"
        notes.insert(0, f"{share}, beside the image, are {' or '.join(kinds)}: taken as air")
    return replace(scan, values=values, notes=(*scan.notes, *notes))


def _air(lowest: float) -> float:
    """Return the number of air where this is the lowest number: of HU, of HU shifted by up to 1024, or of others."""
    if lowest < LOWEST[0]:
        return PADDING_HU
    return min(lowest, 0.0) if lowest < LOWEST[1] else lowest


def _padding(scan: Scan) -> float | None:
    """Return the highest number of a scan if it is no brightness of tissue and lies at the sides of slices."""
    highest = float(scan.values.max())
    if not (np.isfinite(highest) and highest > BRIGHTER_THAN_BONE):
        return None
    sides = _sides(AxialView(scan.geometry).to_axial(scan.values))
    return highest if (sides == highest).mean() > LEAST_OF_SIDES else None


def _sides(slices: NDArray[Any]) -> NDArray[Any]:
    """Return what lies at the four sides of slices (..., y, x), along the last axis."""
    return np.concatenate([slices[..., 0, :], slices[..., -1, :], slices[..., 0], slices[..., -1]], axis=-1)


def _connected_with_sides(empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (z, y, x) the parts of a mask that reach a side of a slice, perhaps through neighbouring slices.

    Nothing is reached through a slice that is empty as a whole.
    """
    from groundglass.scan.morphology import label_parts  # here, so that the program starts quickly

    labels = [label_parts(np.ascontiguousarray(plane), diagonal=True) for plane in empty]
    beside = np.stack([_parts(plane, _sides(plane)) for plane in labels])
    for order in (range(1, len(empty)), range(len(empty) - 2, -1, -1)):
        for z, last in zip(order, (order.start - order.step, *order), strict=False):
            if not empty[last].all():
                beside[z] |= _parts(labels[z], labels[z][beside[last]])
    return beside


def _parts(labels: NDArray[np.int32], chosen: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return (y, x) the parts with these numbers; 0 is no part."""
    return np.isin(labels, np.setdiff1d(chosen, 0))


def _fill_like_nearest(values: NDArray[Any], holes: NDArray[np.bool_]) -> None:
    """Give the voxels of holes the number of the nearest one in their slice."""
    from scipy import ndimage  # here, so that the program starts quickly

    for plane, hole in zip(values, holes, strict=True):
        if hole.any():
            rows, columns = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
            plane[hole] = plane[rows[hole], columns[hole]]
