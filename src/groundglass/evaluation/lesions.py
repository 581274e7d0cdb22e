"""Lesion by lesion: which lesions of the reference are found, and which predicted regions are right, by size.

A lesion is a connected region: 26-connected in a volume, 8-connected in a slice that stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.evaluation.intervals import Estimate, estimate

MIN_OVERLAP_PERCENT = 10  # share of a region that the other mask must hold for the region to be a hit
SIZE_EDGES: dict[str, tuple[float, ...]] = {"ml": (0.1, 1, 10), "px": (100, 1000)}
ALL_SIZES = "all"
Unit = Literal["ml", "px"]
Origin = Literal["reference", "prediction"]


@dataclass(frozen=True)
class Region:
    """A connected region of the reference (a lesion) or of the prediction.

    Attributes:
        case: Name of the case.
        patient: Patient of the slice in which the region's centre lies.
        origin: The mask that the region belongs to.
        size: Size in `unit`.
        unit: ml in volumes, px (pixels of its slice) elsewhere.
        slice: Index of the slice of its centre, from 0 along the axial view.
        overlap: Share of the region that the other mask holds too, 0..1.
        hit: True if the overlap is at least `MIN_OVERLAP_PERCENT`: the lesion is found, the predicted region is right.
    """

    case: str
    patient: str
    origin: Origin
    size: float
    unit: Unit
    slice: int
    overlap: float
    hit: bool

    @property
    def size_class(self) -> str:
        """One of `size_classes(unit)`; a size on an edge belongs to the larger class."""
        return size_classes(self.unit)[int(np.digitize(self.size, SIZE_EDGES[self.unit]))]


def size_classes(unit: str) -> tuple[str, ...]:
    """Name the size classes of a unit, smallest first."""
    edges = [f"{edge:g}" for edge in SIZE_EDGES[unit]]
    between = (f"{low}-{high}" for low, high in pairwise(edges))
    return tuple(f"{name} {unit}" for name in (f"<{edges[0]}", *between, f">={edges[-1]}"))


def match_regions(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], voxel_ml: float | None, case: str, patients: Sequence[str]
) -> tuple[Region, ...]:
    """List the lesions of the reference, then the predicted regions, each with its overlap.

    Args:
        predicted: (z, y, x) prediction.
        truth: (z, y, x) reference.
        voxel_ml: Volume of a voxel of a whole volume; None: each slice stands alone, and sizes are in pixels.
        case: Name of the case.
        patients: (z,) patient of each slice.
    """
    unit: Unit = "px" if voxel_ml is None else "ml"
    masks: tuple[tuple[Origin, NDArray[np.bool_], NDArray[np.bool_]], ...] = (
        ("reference", truth, predicted),
        ("prediction", predicted, truth),
    )
    regions = []
    for origin, mask, other in masks:
        for voxels, shared, z in _connected_regions(mask, other, in_volume=voxel_ml is not None):
            size, hit = voxels * (voxel_ml or 1), 100 * shared >= MIN_OVERLAP_PERCENT * voxels
            regions.append(Region(case, patients[z], origin, size, unit, z, shared / voxels, hit))
    return tuple(regions)


def _connected_regions(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], in_volume: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield (voxels, voxels that the other mask shares, slice index of the centre) of each region of a mask."""
    neighbours = np.ones((3, 3, 3), dtype=np.int8)
    if not in_volume:
        neighbours[[0, 2]] = 0
    labels, count = ndimage.label(mask, neighbours)
    label = labels[mask] - 1
    voxels = np.bincount(label, minlength=count)
    shared = np.bincount(label[other[mask]], minlength=count)
    z_sum = np.bincount(label, weights=np.nonzero(mask)[0], minlength=count)
    yield from zip(voxels.tolist(), shared.tolist(), (round(z) for z in (z_sum / voxels).tolist()), strict=True)


@dataclass(frozen=True)
class SizeClassScores:
    """Lesions and predicted regions of one size class.

    Attributes:
        size_class: Name of the size class, or `ALL_SIZES`.
        found: Number of lesions that are found.
        right: Number of predicted regions that are right.
        recall: Share of the `recall.rows` lesions that are found.
        precision: Share of the `precision.rows` predicted regions that are right.
    """

    size_class: str
    found: int
    right: int
    recall: Estimate
    precision: Estimate


def score_by_size(regions: Sequence[Region], unit: str) -> tuple[SizeClassScores, ...]:
    """Score each size class of a unit, and all together; empty if no region has this unit."""
    regions = [region for region in regions if region.unit == unit]
    rows = []
    for name in (*size_classes(unit), ALL_SIZES) if regions else ():
        of_size = [region for region in regions if name in (region.size_class, ALL_SIZES)]
        lesions, predicted = (
            [region for region in of_size if region.origin == origin] for origin in ("reference", "prediction")
        )
        found, right = (sum(region.hit for region in side) for side in (lesions, predicted))
        rows.append(SizeClassScores(name, found, right, _share_of_hits(lesions), _share_of_hits(predicted)))
    return tuple(rows)


def _share_of_hits(regions: Sequence[Region]) -> Estimate:
    hits, patients = [region.hit for region in regions], [region.patient for region in regions]
    return estimate(hits, np.ones(len(regions)), patients)
