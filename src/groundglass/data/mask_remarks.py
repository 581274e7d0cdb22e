"""Remarks on a mask that is probably none of lesion, or does not lie where its image does."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import voxels_per_slice

LUNG_FILLED = "lesion fills"  # how the remark begins on a mask that may be one of the lungs
MISPLACED = "most of what is marked"  # how the remark begins on a mask whose lesion lies elsewhere
_CHECK_PLACE = "check that the mask is not mirrored or shifted against its image"
LEAST_SHARE_IN_LUNGS = 0.5  # of the lesion of a volume; lungs are found with the lesions in them
LEAST_CONTRAST_HU = 40.0  # of the lesion in the lungs; ground-glass is some 200 HU denser than lung
# By how much denser the mirror image of what a mask marks may be. With the right masks of eleven scans it is 0.97 times
# as dense at most, with those of each half 1.16 times, and with 29 of 33 mirrored ones 1.3 times and more. A lesion
# that fills less of the lungs may lie opposite a vessel.
MOST_DENSER_MIRRORED, LEAST_SHARE_MIRRORED = 1.25, 0.005
DENSE_LUNG_HU = 300.0  # above plain lung: what is denser than that counts no more
MOST_VOXELS_MIRRORED = 100_000  # evenly chosen ones stand for all
# Shares of the lungs, and of one of them, that lesion rarely exceeds.
LARGEST_SHARE_OF_LUNGS, LARGEST_SHARE_OF_SIDE = 0.6, 0.8


def remark_on_view(lesion_slices: int, lesion_slices_in_view: int) -> tuple[str, ...]:
    """Return the remarks on a case with this number of slices with lesion, in the file and after cutting."""
    if not lesion_slices:
        return ("the mask is empty",)
    out_of_view = lesion_slices - lesion_slices_in_view
    return (f"lesion out of view: {out_of_view} slice{'s' if out_of_view > 1 else ''}",) if out_of_view else ()


def lesion_shares(lung_field: LungField, lesion: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of the lung, of the right and of the left lung that lesion (z, y, x) fills; 0 of no lung."""
    shares = {}
    for name, side in (("lung", lung_field.mask), ("right lung", lung_field.right), ("left lung", lung_field.left)):
        inside = sum(int((plane & marked).sum()) for plane, marked in zip(side, lesion, strict=True))
        shares[name] = inside / max(1, int(voxels_per_slice(side).sum()))
    return shares


def remark_on_place(
    lung_field: LungField, hu: NDArray[np.float32], lesion: NDArray[np.bool_], shares: dict[str, float]
) -> tuple[str, ...]:
    """Remark that the mask of a volume is probably one of the lungs, or mirrored or shifted.

    Args:
        lung_field: The lungs.
        hu: (z, y, x) HU.
        lesion: (z, y, x) what the mask marks.
        shares: What `lesion_shares` gives for it.
    """
    if not lesion.any():
        return ()
    remarks = _lung_filled(shares) or _misplaced(lung_field, hu, lesion)
    return remarks or (_mirrored(lung_field, hu, lesion) if shares["lung"] >= LEAST_SHARE_MIRRORED else ())


def _lung_filled(shares: dict[str, float]) -> tuple[str, ...]:
    """Remark that lesion fills most of the lungs of a volume, or of one of them, as a mask of the lungs does."""
    return tuple(
        f"{LUNG_FILLED} {100 * share:.0f} % of the {name}: check that the labels are of lesion and not of lung"
        for name, share in shares.items()
        if share > (LARGEST_SHARE_OF_LUNGS if name == "lung" else LARGEST_SHARE_OF_SIDE)
    )[:1]


def _misplaced(lung_field: LungField, hu: NDArray[np.float32], lesion: NDArray[np.bool_]) -> tuple[str, ...]:
    """Remark that most of what a mask marks lies outside the lungs or is plain lung, as if mirrored or shifted."""
    inside = np.concatenate([hu[z][lesion[z] & plane] for z, plane in enumerate(lung_field.mask)])
    beside = np.concatenate([hu[z][~lesion[z] & plane] for z, plane in enumerate(lung_field.mask)])
    share = len(inside) / int(lesion.sum())
    if share < LEAST_SHARE_IN_LUNGS:
        return (f"{MISPLACED} lies outside the lungs, {100 * (1 - share):.0f} % of it: {_CHECK_PLACE}",)
    if len(beside) and (denser := float(np.median(inside) - np.median(beside))) < LEAST_CONTRAST_HU:
        return (f"{MISPLACED} is plain lung, {denser:.0f} HU denser than the lung around it: {_CHECK_PLACE}",)
    return ()


def _mirrored(lung_field: LungField, hu: NDArray[np.float32], lesion: NDArray[np.bool_]) -> tuple[str, ...]:
    """Remark that a mask marks denser lung if it is mirrored, so that it probably is."""
    lungs = np.stack(list(lung_field.mask))
    plain_hu = float(np.median(hu[lungs & ~lesion])) if (lungs & ~lesion).any() else 0.0
    marked = np.flatnonzero(lesion)
    voxels = np.unravel_index(marked[:: 1 + len(marked) // MOST_VOXELS_MIRRORED], lesion.shape)

    def density(mirrored: tuple[bool, ...]) -> float:
        """Return the mean density in the lungs, from 0 of plain lung to 1, of the mask mirrored along some axes."""
        sides = zip(voxels, lesion.shape, mirrored, strict=True)
        places = tuple(length - 1 - index if turned else index for index, length, turned in sides)
        return float((((hu[places] - plain_hu) / DENSE_LUNG_HU).clip(0, 1) * lungs[places]).mean())

    as_it_is, *others = (density(mirrored) for mirrored in product((False, True), repeat=3))
    if max(others) <= MOST_DENSER_MIRRORED * as_it_is:
        return ()
    return (f"{MISPLACED} is less dense than what its mirror image would mark: {_CHECK_PLACE}",)
