"""Near-duplicates: slices of different cases that show the same anatomy, and so the same patient.

    closest_pairs   1  Locate the lungs of every slice (`lung_canvas`).
                    2  Correlate the outlines of all pairs over mirror, scale and shift, on a small canvas.
                    3  Compare the vessels of the pairs with the most similar outlines, on a large canvas: each block
                       of the canvas finds its own shift, an affine map fitted to these shifts aligns the two slices,
                       and the blocks are correlated again.
                    4  Keep the most similar pair of any two groups.
    join            Join the patient groups that a pair connects.

Two slices of one patient at different heights do not show the same anatomy, and are not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from groundglass.data.lung_canvas import (
    CELL,
    CELLS,
    OUTLINE_CANVAS,
    VESSEL_CANVAS,
    Alignment,
    FloatImage,
    LungPicture,
    draw_outlines,
    draw_vessels,
    locate_lungs,
)

# Pixels; narrower slices show too few vessels to be compared.
LEAST_WIDTH = 96
# Two slices of this similarity or more are taken for the same anatomy. Unrelated slices reach about 0.35, as the
# similarity is the best of many alignments.
SAME_ANATOMY = 0.49
# The similarity is the weighted mean of the correlation of the vessels, with this weight, and that of the outlines.
VESSEL_WEIGHT = 0.87

# Outlines are compared at these scales of one of the two slices, as the area of the lungs does not fix their scale
# exactly, ...
SCALES = (1.0, 1.12, 1.25)
# ... and at shifts of up to this many pixels of the small canvas along each axis.
OUTLINE_REACH = 2
# Vessels are compared for this many pairs of slices, and for so many more for each group, ...
CANDIDATES = 400
CANDIDATES_PER_GROUP = 4
# ... but for no more than this number of pairs of any two groups.
CANDIDATES_PER_PAIR_OF_GROUPS = 3

# A block consists of 2 x 2 cells of the large canvas; neighbouring blocks overlap by half.
BLOCK_PIXELS = (2 * CELL) ** 2
# Blocks with a smaller share of lung show no vessels, and do not count.
SMALLEST_LUNG_SHARE_OF_BLOCK = 0.3
# Blocks are shifted by up to this many pixels to fit the affine map, and by so many to correlate them after it.
COARSE_REACH, FINE_REACH = 5, 2
# Ridge penalty of the affine map's rows (shift, y, x): a few blocks must not turn or stretch the slice.
RIDGE = (1e-3, 40.0, 40.0)
# Blocks with a correlation below this one have no more weight in the fit than it.
SMALLEST_WEIGHT = 0.01
# Blocks of unrelated slices reach this correlation on average.
UNRELATED_CORRELATION = 0.3
# This many blocks of unrelated slices are averaged in: a few similar blocks are weak evidence.
UNRELATED_BLOCKS = 6


@dataclass(frozen=True)
class SimilarSlices:
    """Two slices of different groups that show the same anatomy, or might.

    Attributes:
        first: Index of a slice.
        second: Index of the other one, larger than `first`.
        similarity: Up to 1, for equal slices.
        mirrored: Whether the second is a mirror image of the first, left and right exchanged.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


class _Candidate(NamedTuple):
    """A pair with similar outlines: the second slice, aligned, correlates with the first."""

    first: int
    second: int
    alignment: Alignment
    outline_correlation: float


def closest_pairs(hu: NDArray[np.int16], groups: NDArray[np.str_], count: int = 60) -> tuple[SimilarSlices, ...]:
    """Find the most similar slices of different groups: of any two groups their closest pair.

    Args:
        hu: (n, height, width) slices cut to the lungs, in approximate HU; at least `LEAST_WIDTH` pixels wide.
        groups: (n,) group of each slice as it is known already, such as the patient.
        count: Number of pairs to return at most, unless more of them reach `SAME_ANATOMY`.

    Returns:
        The pairs in descending order of similarity, including pairs below `SAME_ANATOMY`.
    """
    located = [(index, lungs) for index, lungs in enumerate(map(locate_lungs, hu)) if lungs is not None]
    if len(located) < 2:
        return ()
    indices, lungs = zip(*located, strict=True)
    unaligned = [draw_vessels(one, Alignment()) for one in lungs]
    closest: dict[tuple[str, ...], SimilarSlices] = {}
    for candidate in _candidates(lungs, groups[list(indices)]):
        vessels, inside = unaligned[candidate.first]
        moved, _ = draw_vessels(lungs[candidate.second], candidate.alignment)
        correlation = _correlate_vessels(vessels, inside, moved)
        similarity = VESSEL_WEIGHT * correlation + (1 - VESSEL_WEIGHT) * candidate.outline_correlation
        first, second = sorted((indices[candidate.first], indices[candidate.second]))
        between = tuple(sorted((str(groups[first]), str(groups[second]))))
        if similarity > (closest[between].similarity if between in closest else 0):
            closest[between] = SimilarSlices(first, second, similarity, candidate.alignment.mirrored)
    pairs = sorted(closest.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))
    same_anatomy = sum(pair.similarity >= SAME_ANATOMY for pair in pairs)
    return tuple(pairs[: max(same_anatomy, count)])


def join(groups: NDArray[np.str_], pairs: Sequence[SimilarSlices]) -> NDArray[np.str_]:
    """Join the groups that are connected by pairs of `SAME_ANATOMY` or more, and name them after their members: `a+b`.

    Args:
        groups: (n,) group of each slice.
        pairs: Pairs of these slices.

    Returns:
        (n,) group of each slice after joining.
    """
    names, member = np.unique(groups, return_inverse=True)
    edges = [(member[pair.first], member[pair.second]) for pair in pairs if pair.similarity >= SAME_ANATOMY]
    if not edges:
        return groups
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    joined = [_joined_name(names[component == number].tolist()) for number in range(component.max() + 1)]
    return np.array(joined)[component[member]]


def _joined_name(names: list[str]) -> str:
    return "+".join(names) if len(names) <= 8 else f"{'+'.join(names[:6])}+{len(names) - 6} more"


def _candidates(lungs: Sequence[LungPicture], groups: NDArray[np.str_]) -> Iterator[_Candidate]:
    """Yield the pairs across groups in descending order of the correlation of their outlines."""
    correlation, alignment = _correlate_outlines(lungs)
    best = np.where(groups[:, None] < groups, np.maximum(correlation, correlation.T), 0)
    most = CANDIDATES + CANDIDATES_PER_GROUP * len(set(groups.tolist()))
    candidates: Counter[tuple[str, str]] = Counter()
    for position in np.argsort(-best, axis=None, kind="stable"):
        i, j = divmod(int(position), len(lungs))
        between = (str(groups[i]), str(groups[j]))
        if best[i, j] <= 0 or candidates.total() == most:
            return
        if candidates[between] < CANDIDATES_PER_PAIR_OF_GROUPS:
            candidates[between] += 1
            first, second = (i, j) if correlation[i, j] >= correlation[j, i] else (j, i)
            yield _Candidate(first, second, alignment[first][second], float(best[i, j]))


def _correlate_outlines(lungs: Sequence[LungPicture]) -> tuple[FloatImage, list[list[Alignment]]]:
    """Correlate the outlines of every slice with those of every aligned slice.

    Returns:
        (n, n) highest correlation over all alignments of the second slice, and the alignment that gives it.
    """
    n, (height, width) = len(lungs), OUTLINE_CANVAS
    reach = OUTLINE_REACH
    fixed = np.stack([draw_outlines(one, 1.0) for one in lungs]).reshape(n, -1)
    highest = np.full((n, n), -1, dtype=np.float32)
    chosen = np.zeros((n, n), dtype=np.int16)
    alignments: list[Alignment] = []
    for scale, mirrored in product(SCALES, (False, True)):
        moved = np.stack([draw_outlines(one, scale) for one in lungs])[:, :, :: -1 if mirrored else 1]
        moved = np.pad(moved, ((0, 0), (reach, reach), (reach, reach)))
        for y, x in np.ndindex(2 * reach + 1, 2 * reach + 1):
            correlation = fixed @ moved[:, y : y + height, x : x + width].reshape(n, -1).T
            better = correlation > highest
            highest[better], chosen[better] = correlation[better], len(alignments)
            alignments.append(Alignment(scale, mirrored, (y - reach, x - reach)))
    return highest, [[alignments[number] for number in row] for row in chosen]


def _correlate_vessels(fixed: FloatImage, inside: FloatImage, moved: FloatImage) -> float:
    """Align two canvases of vessels locally, and return the mean correlation of their blocks.

    Args:
        fixed: (y, x) vessels of the first slice.
        inside: (y, x) lungs of the first slice, 1 inside.
        moved: (y, x) vessels of the second slice, as the outlines align it.
    """
    used = _block_sums(inside) > SMALLEST_LUNG_SHARE_OF_BLOCK * BLOCK_PIXELS
    if not used.any():
        return UNRELATED_CORRELATION
    correlation, shifts = _match_blocks(fixed, moved, COARSE_REACH)
    matrix, offset = _fit_affine_map(np.argwhere(used), correlation[used], shifts[used])
    aligned = ndimage.affine_transform(moved, matrix, offset, order=1)
    blocks = _match_blocks(fixed, aligned, FINE_REACH)[0][used]
    return float((blocks.sum() + UNRELATED_BLOCKS * UNRELATED_CORRELATION) / (len(blocks) + UNRELATED_BLOCKS))


def _match_blocks(fixed: FloatImage, moved: FloatImage, reach: int) -> tuple[FloatImage, NDArray[np.int64]]:
    """Find the shift of up to `reach` pixels at which each block correlates best.

    Returns:
        (rows, columns) highest correlation of each block, and (rows, columns, 2) its (y, x) shift.
    """
    height, width = fixed.shape
    padded = np.pad(moved, reach)
    energy = _block_sums(fixed**2)
    highest = np.full(energy.shape, -1, dtype=np.float32)
    shifts = np.zeros((*energy.shape, 2), dtype=np.int64)
    for y, x in np.ndindex(2 * reach + 1, 2 * reach + 1):
        window = padded[y : y + height, x : x + width]
        correlation = _block_sums(fixed * window) / np.sqrt(np.maximum(energy * _block_sums(window**2), 1e-6))
        better = correlation > highest
        highest[better], shifts[better] = correlation[better], (y - reach, x - reach)
    return highest, shifts


def _fit_affine_map(
    blocks: NDArray[np.int64], correlation: FloatImage, shifts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit an affine map to the shifts of blocks by ridge regression, weighted by the square of their correlation.

    Args:
        blocks: (n, 2) row and column of each block.
        correlation: (n,) its highest correlation.
        shifts: (n, 2) its (y, x) shift in pixels.

    Returns:
        Matrix and offset as `scipy.ndimage.affine_transform` takes them: from the fixed canvas to the moved one.
    """
    weight = np.clip(correlation, SMALLEST_WEIGHT, None) ** 2
    centre = (np.array(VESSEL_CANVAS) - 1) / 2
    from_centre = CELL * (1 + blocks) - 0.5 - centre
    design = np.column_stack([np.ones(len(blocks)), from_centre])
    ridge = np.diag(RIDGE) * weight.sum()
    coefficients = np.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight[:, None] * shifts))
    matrix = np.eye(2) + coefficients[1:].T
    return matrix, centre + coefficients[0] - matrix @ centre


def _block_sums(plane: FloatImage) -> FloatImage:
    """(rows, columns) sum of a canvas's pixels over each block."""
    cells = plane.reshape(CELLS[0], CELL, CELLS[1], CELL).sum((1, 3))
    rows = cells[1:] + cells[:-1]
    return np.asarray(rows[:, 1:] + rows[:, :-1])
