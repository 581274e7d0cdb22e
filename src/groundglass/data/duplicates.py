"""Near-duplicates: slices of different names that show the same anatomy, and so one patient.

    closest_pairs   1  Each slice is laid on a small canvas by the place and size of its lungs, its contrast evened out.
                       All pairs are correlated over mirror, scale and shift: outlines, fissures, hila.
                    2  The most alike are looked at closely, vessels inside the lungs only. Each block of the canvas
                       finds its own shift, an affine map through the shifts brings the two together, and the blocks
                       are correlated again.
    join            Patient groups that a pair connects become one.

Grey levels need not be calibrated: a slice's own lung and soft tissue are its 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SAME_ANATOMY = 0.49
FloatImage = NDArray[np.float32]
WORKING_WIDTH = 192  # pixels: slices are brought to it before anything else
FLAT_HU = 10  # margins vary by less
SMALLEST_LUNGS, LEAST_CONTRAST_HU = 0.07, 200  # of a slice: with less lung, or none, it is not compared
CANVAS_WIDTH = 4.4  # in radii of gyration of the lungs: a canvas shows them with a margin
OUTLINE_CANVAS = (40, 48)
SCALES = (1.0, 1.12, 1.25)  # of one of the two slices, beyond what their lungs' sizes tell
REACH = 2  # pixels of the outline canvas that slices are shifted by
CELL, CELLS = 9, (11, 13)  # pixels a side; a block is 2 x 2 cells, half a block from the next
VESSEL_CANVAS = (CELL * CELLS[0], CELL * CELLS[1])
UNRELATED_CORRELATION = 0.3  # correlation of the blocks of strangers
DOUBT = 6  # blocks of strangers that are counted in: a few alike blocks prove little
VESSELS = 0.87  # weight of the vessels in the similarity; the rest is the outlines'
CANDIDATES, CANDIDATES_A_GROUP = 400, 4  # pairs of slices that are looked at closely, and how many more for each group
CANDIDATES_A_PAIR = 3  # of them, of any two groups


@dataclass(frozen=True)
class SimilarSlices:
    """Two slices of different groups that show the same anatomy, or might.

    Attributes:
        first: Index into the slices.
        second: A larger one.
        similarity: Up to 1 for equal slices; about 0.35 for strangers, as the best of many alignments is taken.
            `VESSELS` of it is the mean local correlation of the vessels, the rest the correlation of the outlines.
        mirrored: The second is the first's mirror image, left and right exchanged.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


class _Lungs(NamedTuple):
    """A slice whose lung is about 0 and soft tissue about 1, and where its lungs are."""

    picture: FloatImage
    mask: FloatImage
    centre: NDArray[np.float64]  # (y, x)
    radius: float  # of gyration, in pixels


class _Alignment(NamedTuple):
    """How the second slice comes to lie on the first: mirrored, scaled, then shifted (outline canvas pixels)."""

    scale: float
    mirrored: bool
    shift: tuple[int, int]


def closest_pairs(hu: NDArray[np.int16], apart: NDArray[np.str_], most: int = 60) -> tuple[SimilarSlices, ...]:
    """Find the slices of different groups that are most alike: of any two groups their closest pair.

    Args:
        hu: (n, height, width) slices cut to the lungs, in approximate HU; 128 pixels wide or more.
        apart: (n,) group that is known already, such as the patient; only pairs across groups are looked at.
        most: Pairs given, unless more of them reach `SAME_ANATOMY`.

    Returns:
        Most similar first, those below `SAME_ANATOMY` included.
    """
    found = [(k, lungs) for k, lungs in enumerate(map(_find_lungs, hu)) if lungs is not None]
    if len(found) < 2:
        return ()
    index, lungs = zip(*found, strict=True)
    vessels = [_vessels(one, _Alignment(1.0, False, (0, 0))) for one in lungs]
    closest: dict[tuple[str, ...], SimilarSlices] = {}
    for i, j, alignment, outlines in _candidates(lungs, apart[list(index)]):
        alike = _correlate(vessels[i], _vessels(lungs[j], alignment)[0])
        similarity = VESSELS * alike + (1 - VESSELS) * outlines
        first, second = sorted((index[i], index[j]))
        groups = tuple(sorted((str(apart[first]), str(apart[second]))))
        if similarity > (closest[groups].similarity if groups in closest else 0):
            closest[groups] = SimilarSlices(first, second, similarity, alignment.mirrored)
    pairs = sorted(closest.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))
    same = sum(pair.similarity >= SAME_ANATOMY for pair in pairs)
    return tuple(pairs[: max(same, most)])


def join(groups: NDArray[np.str_], pairs: Sequence[SimilarSlices]) -> NDArray[np.str_]:
    """Groups that a pair from `SAME_ANATOMY` on connects become one, named after its members: `a+b`.

    Args:
        groups: (n,) the group of each slice.
        pairs: Of these slices.

    Returns:
        (n,) the group of each slice, joined.
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


def _find_lungs(hu: NDArray[np.int16]) -> _Lungs | None:
    """Lungs of a slice at the working width, without the margin around its content; None if there is too little."""
    margin = _margin(hu)
    rows, columns = np.flatnonzero(~margin.all(1)), np.flatnonzero(~margin.all(0))
    if len(rows) < 8 or len(columns) < 8:
        return None
    content = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    plane, shown = _widen(hu[content]), _widen(~margin[content]) > 0.99
    threshold = _threshold(plane[shown])
    air = (ndimage.gaussian_filter(plane, WORKING_WIDTH / 128) < threshold) & ndimage.binary_erosion(
        shown, iterations=2, border_value=1
    )
    mask = _lung_mask(air)
    if mask.mean() < SMALLEST_LUNGS:
        return None
    lung, tissue = np.median(plane[mask]), np.median(plane[plane >= threshold])
    place = np.array(np.nonzero(mask), dtype=np.float64)
    radius = float(np.sqrt(place.var(1).sum()))
    too_coarse = CANVAS_WIDTH * radius / VESSEL_CANVAS[1] * len(columns) < WORKING_WIDTH
    if too_coarse or tissue - lung < LEAST_CONTRAST_HU:
        return None
    picture = np.clip((plane - lung) / (tissue - lung), -0.3, 1.05)
    return _Lungs(picture, mask.astype(np.float32), place.mean(1), radius)


def _margin(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(height, width) what a letterbox, a viewer or the scanner laid around: flat regions at the corners."""
    margin = np.zeros(hu.shape, dtype=np.bool_)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        regions, _ = ndimage.label(np.abs(hu.astype(np.int32) - hu[corner]) <= FLAT_HU)
        margin |= regions == regions[corner]
    return np.asarray(ndimage.binary_dilation(margin))


def _widen(plane: NDArray[Any]) -> FloatImage:
    image = Image.fromarray(plane.astype(np.float32))
    height = max(8, round(image.height * WORKING_WIDTH / image.width))
    return np.asarray(image.resize((WORKING_WIDTH, height), Image.Resampling.BILINEAR))


def _threshold(plane: FloatImage) -> float:
    """Between air and tissue: halfway between the means of what is darker and what is brighter (isodata)."""
    threshold = float(plane.mean())
    for _ in range(10):
        threshold = float(plane[plane <= threshold].mean() + plane[plane >= threshold].mean()) / 2
    return threshold


def _lung_mask(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x) air inside the body with its vessels."""
    regions, count = ndimage.label(air)
    share = np.bincount(regions.ravel(), minlength=count + 1) / air.size
    keep = share > 0.004
    for row in (regions[0], regions[-1]):  # air outside runs along an edge or fills a corner; a lung may be cut by them
        keep &= np.bincount(row, minlength=count + 1) < 0.5 * len(row)
        keep[row[[0, -1]]] &= share[row[[0, -1]]] > 0.05
    keep[0] = False
    reach = WORKING_WIDTH // 32
    inner = slice(2 * reach, -2 * reach)
    closed = ndimage.binary_closing(np.pad(keep[regions], 2 * reach), iterations=reach)[inner, inner]
    return np.asarray(ndimage.binary_opening(ndimage.binary_fill_holes(closed), iterations=3))


def _lay(lungs: _Lungs, canvas: tuple[int, int], scale: float) -> tuple[FloatImage, FloatImage]:
    """Picture and mask on a canvas that the lungs fill."""
    step = CANVAS_WIDTH * lungs.radius / canvas[1] / scale
    corner = lungs.centre - step * (np.array(canvas) - 1) / 2
    smooth = ndimage.gaussian_filter(lungs.picture, 0.5 * np.sqrt(max(0.0, step**2 - 1)), mode="nearest")
    picture, mask = (
        ndimage.affine_transform(plane, [step] * 2, corner, canvas, order=1) for plane in (smooth, lungs.mask)
    )
    return picture, mask


def _even_out(picture: FloatImage, weight: FloatImage, finest: float, coarsest: float) -> FloatImage:
    """Structures between two sizes (Gaussian sigmas in pixels) at a contrast that is about equal everywhere."""

    def mean(plane: FloatImage, sigma: float) -> FloatImage:
        near = ndimage.gaussian_filter(weight, sigma, mode="constant")
        return np.asarray(ndimage.gaussian_filter(plane * weight, sigma, mode="constant") / np.maximum(near, 1e-3))

    detail = (mean(picture, finest) - mean(picture, coarsest)) * weight
    return np.asarray(detail / (np.sqrt(np.maximum(mean(detail**2, coarsest), 0)) + 0.06), dtype=np.float32)


def _outlines(lungs: _Lungs, scale: float) -> FloatImage:
    """The whole lung and its rim, of unit norm."""
    picture, mask = _lay(lungs, OUTLINE_CANVAS, scale)
    even = _even_out(picture, ndimage.grey_dilation(mask, (3, 3)), 0, 3)
    return even / max(float(np.linalg.norm(even)), 1e-6)


def _candidates(lungs: Sequence[_Lungs], apart: NDArray[np.str_]) -> Iterator[tuple[int, int, _Alignment, float]]:
    """Pairs whose outlines are most alike, how the second comes to lie on the first, and their correlation."""
    likeness, alignment = _compare_outlines(lungs)
    best = np.where(apart[:, None] < apart, np.maximum(likeness, likeness.T), 0)
    looked_at: Counter[tuple[str, str]] = Counter()
    for place in np.argsort(-best, axis=None, kind="stable"):
        i, j = divmod(int(place), len(lungs))
        groups = (str(apart[i]), str(apart[j]))
        if best[i, j] <= 0 or looked_at.total() == CANDIDATES + CANDIDATES_A_GROUP * len(set(apart.tolist())):
            return
        if looked_at[groups] < CANDIDATES_A_PAIR:
            looked_at[groups] += 1
            first, second = (i, j) if likeness[i, j] >= likeness[j, i] else (j, i)
            yield first, second, alignment[first][second], float(best[i, j])


def _compare_outlines(lungs: Sequence[_Lungs]) -> tuple[FloatImage, list[list[_Alignment]]]:
    """(n, n) the best correlation of every slice with every moved one, and the alignment that gives it."""
    n, (height, width) = len(lungs), OUTLINE_CANVAS
    still = np.stack([_outlines(one, 1.0) for one in lungs]).reshape(n, -1)
    likeness = np.full((n, n), -1, dtype=np.float32)
    chosen = np.zeros((n, n), dtype=np.int16)
    alignments: list[_Alignment] = []
    for scale, mirrored in product(SCALES, (False, True)):
        moved = np.stack([_outlines(one, scale) for one in lungs])[:, :, :: -1 if mirrored else 1]
        moved = np.pad(moved, ((0, 0), (REACH, REACH), (REACH, REACH)))
        for y, x in np.ndindex(2 * REACH + 1, 2 * REACH + 1):
            now = still @ moved[:, y : y + height, x : x + width].reshape(n, -1).T
            better = now > likeness
            likeness[better], chosen[better] = now[better], len(alignments)
            alignments.append(_Alignment(scale, mirrored, (y - REACH, x - REACH)))
    return likeness, [[alignments[k] for k in row] for row in chosen]


def _vessels(lungs: _Lungs, alignment: _Alignment) -> tuple[FloatImage, FloatImage]:
    """Vessels within the lungs, and the lungs without their rim."""
    picture, mask = _lay(lungs, VESSEL_CANVAS, alignment.scale)
    inside = ndimage.binary_erosion(mask > 0.5).astype(np.float32)
    vessels = _even_out(picture, inside, 0.8, 3.2)
    if alignment.mirrored:
        vessels, inside = vessels[:, ::-1], inside[:, ::-1]
    if alignment.shift != (0, 0):
        pixels = VESSEL_CANVAS[1] / OUTLINE_CANVAS[1]
        vessels = ndimage.shift(vessels, [-step * pixels for step in alignment.shift], order=1)
    return vessels, inside


def _correlate(still: tuple[FloatImage, FloatImage], moved: FloatImage) -> float:
    """Mean correlation of the blocks, once an affine map through their shifts has brought the two together."""
    vessels, inside = still
    used = _block_sums(inside) > 0.3 * (2 * CELL) ** 2
    if not used.any():
        return UNRELATED_CORRELATION
    correlation, shifts = _match(vessels, moved, 5)
    weight = np.clip(correlation[used], 0.01, None) ** 2
    centre = (np.array(VESSEL_CANVAS) - 1) / 2
    places = CELL * (1 + np.argwhere(used)) - 0.5 - centre
    design = np.column_stack([np.ones(len(places)), places])
    stiff = np.diag([1e-3, 40.0, 40.0]) * weight.sum()  # a few blocks must not turn or stretch the slice
    line = np.linalg.solve(design.T @ (weight[:, None] * design) + stiff, design.T @ (weight[:, None] * shifts[used]))
    matrix = np.eye(2) + line[1:].T
    moved = ndimage.affine_transform(moved, matrix, centre + line[0] - matrix @ centre, order=1)
    blocks = _match(vessels, moved, 2)[0][used]
    return float((blocks.sum() + DOUBT * UNRELATED_CORRELATION) / (len(blocks) + DOUBT))


def _match(still: FloatImage, moved: FloatImage, reach: int) -> tuple[FloatImage, NDArray[np.int64]]:
    """Of each block its best correlation over all shifts up to `reach` pixels, and (..., 2) that shift."""
    height, width = still.shape
    around = np.pad(moved, reach)
    energy = _block_sums(still**2)
    best = np.full(energy.shape, -1, dtype=np.float32)
    shifts = np.zeros((*energy.shape, 2), dtype=np.int64)
    for y, x in np.ndindex(2 * reach + 1, 2 * reach + 1):
        window = around[y : y + height, x : x + width]
        now = _block_sums(still * window) / np.sqrt(np.maximum(energy * _block_sums(window**2), 1e-6))
        better = now > best
        best[better], shifts[better] = now[better], (y - reach, x - reach)
    return best, shifts


def _block_sums(plane: FloatImage) -> FloatImage:
    """Sums over blocks of 2 x 2 cells that overlap by half."""
    cells = plane.reshape(CELLS[0], CELL, CELLS[1], CELL).sum((1, 3))
    rows = cells[1:] + cells[:-1]
    return np.asarray(rows[:, 1:] + rows[:, :-1])
