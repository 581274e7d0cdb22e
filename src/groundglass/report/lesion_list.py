"""Each connected lesion: its size, where it lies, how dense it is, and a point inside it.

The point lies on the lesion's largest slice, as far from its rim as any there: the centre of a curved lesion may lie
beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.distribution import NO_THIRDS, THIRDS, ends_of_thirds
from groundglass.scan.components import CONNECTIVITY_8_IN_SLICE, CONNECTIVITY_26, find_components
from groundglass.scan.geometry import AxialView
from groundglass.scan.morphology import distance_to
from groundglass.scan.packed_mask import BoundingBox
from groundglass.scan.scan import ImageStack
from groundglass.strict_model import StrictModel
from groundglass.unknown import Unknown, known

MOST_LISTED = 200  # lesions that the findings list; the others are smaller
Thirds = tuple[int, int, int, int] | None
NOT_IN_LUNG = "the lesion lies outside the lung field"


class Lesion(StrictModel):
    """A connected lesion.

    Attributes:
        volume_ml: Its volume.
        area_px: Its area in pixels on its largest slice.
        side: The lung that holds most of it.
        zone: The third of that lung's height in which its largest slice lies.
        mean_hu: Mean HU.
        slice: Its largest slice, counted from 0 in the order of the file.
        slices: Number of slices that it extends over.
        point_index: (z, y, x) of a voxel inside it on that slice, counted from 0 in the file.
        point_lps_mm: Position (L, P, S) of that voxel.
        centre_lps_mm: Its centre of mass, which may lie outside it.
    """

    volume_ml: float | None
    area_px: int
    side: Literal["right", "left"] | None
    zone: Literal["upper", "middle", "lower"] | None
    mean_hu: float | None
    slice: int
    slices: int
    point_index: tuple[int, int, int]
    point_lps_mm: tuple[float, float, float] | None
    centre_lps_mm: tuple[float, float, float] | None


@dataclass(frozen=True)
class Unknowns:
    """Why parts of a lesion's description are unknown; None where they are known."""

    size: str | None
    side: str | None
    zone: str | None
    density: str | None
    position: str | None


@dataclass(eq=False)
class _Sums:
    """Sums over each of the listed lesions, largest first; (n,) or (n, 3) arrays.

    Attributes:
        voxels: Voxels.
        index: Sum of the indices (z, y, x).
        hu: Sum of the HU.
        on_side: (n, 2) voxels in the right and in the left lung.
        slices: Slices with a part of the lesion.
        largest: Voxels on the largest slice so far.
        at: The index of the slice.
        parts: The box around that slice's lesions, and in it (y, x) the rank of each pixel's lesion.
    """

    voxels: NDArray[np.int64]
    index: NDArray[np.float64]
    hu: NDArray[np.float64]
    on_side: NDArray[np.int64]
    slices: NDArray[np.int64]
    largest: NDArray[np.int64]
    at: NDArray[np.int64]
    parts: list[tuple[BoundingBox, NDArray[np.uint8]]]


def measure_lesions(segmented: SegmentedScan, unknown: Unknowns) -> tuple[int, list[dict[str, Any]]]:
    """Measure the lesions.

    Returns:
        The number of all lesions, and the fields of a `Lesion` for each of the largest, largest first.
    """
    are_pictures = isinstance(segmented.scan, ImageStack)
    regions = find_components(segmented.lesions, CONNECTIVITY_8_IN_SLICE if are_pictures else CONNECTIVITY_26)
    count = int(np.count_nonzero(regions.sizes))
    order = np.argsort(-regions.sizes[1:], kind="stable")[: min(count, MOST_LISTED)] + 1
    rank = np.zeros(len(regions.sizes), dtype=np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    sums = _sum_up(segmented, ((box, rank[labels]) for box, labels in regions), len(order))
    thirds = ends_of_thirds(segmented.lung_field.right), ends_of_thirds(segmented.lung_field.left)
    return count, [_fields(segmented, sums, i, thirds, unknown) for i in range(len(order))]


def _sum_up(segmented: SegmentedScan, ranked: Any, count: int) -> _Sums:
    """Add up the lesions slice by slice; `ranked` yields each slice's box, and in it the ranks from 1."""

    def zeros(*more: int) -> NDArray[np.int64]:
        return np.zeros((count, *more), dtype=np.int64)

    parts: list[tuple[BoundingBox, NDArray[np.uint8]]] = [((), np.zeros((0, 0), dtype=np.uint8))] * count
    sums = _Sums(zeros(), np.zeros((count, 3)), np.zeros(count), zeros(2), zeros(), zeros(), zeros(), parts)
    for z, (box, ranks) in enumerate(ranked):
        y, x = np.nonzero(ranks)
        if not len(y):
            continue
        which = ranks[y, x].astype(np.int64) - 1
        rows, columns = box

        def add(weights: NDArray[Any] | None = None, which: NDArray[np.int64] = which) -> NDArray[np.float64]:
            return np.bincount(which, weights, minlength=count).astype(np.float64)

        here = add().astype(np.int64)
        sums.voxels += here
        sums.slices += here > 0
        sums.index += np.stack([here * float(z), add(y + rows.start), add(x + columns.start)], axis=1)
        sums.hu += add(segmented.hu[z, rows, columns][y, x])
        for column, lung in enumerate((segmented.lung_field.right, segmented.lung_field.left)):
            sums.on_side[:, column] += add(lung[z, rows, columns][y, x]).astype(np.int64)
        for i in np.flatnonzero(here > sums.largest):
            sums.largest[i], sums.at[i], sums.parts[i] = here[i], z, (box, ranks)
    return sums


def _fields(
    segmented: SegmentedScan, sums: _Sums, i: int, thirds: tuple[Thirds, Thirds], unknown: Unknowns
) -> dict[str, Any]:
    """Return the fields of a `Lesion`."""
    geometry, voxels, z = segmented.view.geometry, int(sums.voxels[i]), int(sums.at[i])
    (rows, columns), ranks = sums.parts[i]
    y, x = _innermost(ranks == i + 1)
    index = (z, y + rows.start, x + columns.start)
    side = _side(sums.on_side[i])
    not_in_lung = None if side else NOT_IN_LUNG

    def position(at: Any) -> tuple[float, ...]:
        return tuple(round(float(mm), 1) for mm in geometry.position(at))

    def unless(reason: str | None, value: Any) -> Any:
        return Unknown(reason) if reason else value

    return {
        "volume_ml": unless(unknown.size, round(voxels * (geometry.voxel_ml or 0.0), 3)),
        "area_px": int(sums.largest[i]),
        "side": unless(unknown.side or not_in_lung, side),
        "zone": unless(unknown.zone or not_in_lung, known(_zone(thirds[side == "left"], z), NO_THIRDS)),
        "mean_hu": unless(unknown.density, round(float(sums.hu[i]) / voxels, 1)),
        "slice": int(segmented.view.slice_numbers[z]),
        "slices": int(sums.slices[i]),
        "point_index": source_index(segmented.view, index),
        "point_lps_mm": unless(unknown.position, position(index)),
        "centre_lps_mm": unless(unknown.position, position(sums.index[i] / voxels)),
    }


def _innermost(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return (y, x) the pixel of a mask that is farthest from its rim."""
    depth = distance_to(~np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return int(y), int(x)


def _side(voxels: NDArray[np.int64]) -> Literal["right", "left"] | None:
    if not voxels.any():
        return None
    return "right" if voxels[0] >= voxels[1] else "left"


def _zone(ends: Thirds, z: int) -> str | None:
    """Return the third of the height of a lung that a slice lies in; the nearest one for a slice beyond its ends."""
    return None if ends is None else THIRDS[(z >= ends[1]) + (z >= ends[2])]


def source_index(view: AxialView, index: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the index (z, y, x) in the file of a voxel of the axial view."""
    affine = view.source.affine_lps
    found = np.linalg.solve(affine[:3, :3], view.geometry.position(index) - affine[:3, 3])
    z, y, x = np.round(found).astype(int).tolist()
    return z, y, x
