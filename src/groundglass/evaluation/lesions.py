"""Lesion by lesion: which of the reference's are found, and which marked regions are right, by size.

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

HIT_PERCENT = 10  # of a lesion that must be marked (of a marked region that must be lesion) for it to count
EDGES: dict[str, tuple[float, ...]] = {"ml": (0.1, 1, 10), "px": (100, 1000)}
ALL_SIZES = "all"


@dataclass(frozen=True)
class Region:
    """A lesion of the reference, or a region that was marked.

    Attributes:
        case: Where it is.
        patient: Whose.
        of: The mask that it is in.
        size: In `unit`.
        unit: ml in volumes, px (pixels of its slice) elsewhere.
        slice: Of its centre, from 0 along the axial view.
        overlap: Share of it that the other mask holds too, 0..1.
        hit: Whether that is enough: the lesion is found, the marked region is right.
    """

    case: str
    patient: str
    of: Literal["reference", "prediction"]
    size: float
    unit: Literal["ml", "px"]
    slice: int
    overlap: float
    hit: bool

    @property
    def size_class(self) -> str:
        """One of `size_classes(unit)`; a size on an edge belongs to the larger class."""
        return size_classes(self.unit)[int(np.digitize(self.size, EDGES[self.unit]))]


def size_classes(unit: str) -> tuple[str, ...]:
    """The names of a unit's size classes, smallest first."""
    edges = [f"{edge:g}" for edge in EDGES[unit]]
    between = (f"{low}-{high}" for low, high in pairwise(edges))
    return tuple(f"{name} {unit}" for name in (f"<{edges[0]}", *between, f">={edges[-1]}"))


def regions(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], voxel_ml: float | None
) -> Iterator[tuple[float, int, float, bool]]:
    """(size, slice, overlap, hit) of each connected region of a mask.

    Args:
        mask: (z, y, x).
        other: What it is compared with.
        voxel_ml: Of a volume; None: each slice stands alone, and sizes are pixels.
    """
    connected = np.ones((3, 3, 3), dtype=np.int8)
    if voxel_ml is None:
        connected[[0, 2]] = 0
    numbered, count = ndimage.label(mask, connected)
    number = numbered[mask] - 1
    voxels = np.bincount(number, minlength=count)
    shared = np.bincount(number[other[mask]], minlength=count)
    centre = np.bincount(number, weights=np.nonzero(mask)[0], minlength=count)
    for size, both, z in zip(voxels.tolist(), shared.tolist(), centre.tolist(), strict=True):
        yield size * (voxel_ml or 1), round(z / size), both / size, 100 * both >= HIT_PERCENT * size


def match(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], voxel_ml: float | None, case: str, patients: Sequence[str]
) -> tuple[Region, ...]:
    """The reference's lesions, then the marked regions; `patients` names whose each slice is."""
    unit: Literal["ml", "px"] = "px" if voxel_ml is None else "ml"
    sides: tuple[tuple[Literal["reference", "prediction"], NDArray[np.bool_], NDArray[np.bool_]], ...] = (
        ("reference", truth, predicted),
        ("prediction", predicted, truth),
    )
    return tuple(
        Region(case, patients[z], of, size, unit, z, overlap, hit)
        for of, mask, other in sides
        for size, z, overlap, hit in regions(mask, other, voxel_ml)
    )


@dataclass(frozen=True)
class BySize:
    """Lesions and marked regions of one size class.

    Attributes:
        size_class: Its name, or `ALL_SIZES`.
        found: How many of the reference's lesions are found.
        right: How many of the marked regions are right.
        recall: Found, of the `recall.rows` lesions.
        precision: Right, of the `precision.rows` marked regions.
    """

    size_class: str
    found: int
    right: int
    recall: Estimate
    precision: Estimate


def by_size(found: Sequence[Region], unit: str) -> tuple[BySize, ...]:
    """Recall and precision of each size class of a unit, and of all together; none without a region of the unit."""
    here = [region for region in found if region.unit == unit]
    rows = []
    for name in (*size_classes(unit), ALL_SIZES) if here else ():
        of_size = [region for region in here if name in (region.size_class, ALL_SIZES)]
        lesions, marked = ([region for region in of_size if region.of == of] for of in ("reference", "prediction"))
        hit, right = (sum(region.hit for region in side) for side in (lesions, marked))
        rows.append(BySize(name, hit, right, _share_hit(lesions), _share_hit(marked)))
    return tuple(rows)


def _share_hit(side: Sequence[Region]) -> Estimate:
    return estimate([region.hit for region in side], np.ones(len(side)), [region.patient for region in side])
