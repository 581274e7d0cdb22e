"""Whether a picture shows one upright slice: pictures that lie on their side, or show several slices, are told.

Nothing else in a picture says so, and lesions were learned from upright slices. The lung network tells: upright, each
lung has its share, 35 % or more in 36 real pictures; on its side, nearly all is taken for one lung, with less
certainty, or no lung is found. Of several slices in one picture, each tile shows both lungs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError
from groundglass.inference.lungs.network import LungMaps, LungNetwork
from groundglass.inference.lungs.parts import HALF, Maps, View, mean_certainty
from groundglass.inference.lungs.search import ShownSlices, drop_doubtful_regions
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import PackedMask

BALANCED = 0.3  # share of both lungs that the smaller one has in an upright slice
MOST_SHOWN = 0.75  # share of the tiles that show both lungs
TILE_CERTAINTY = 0.93  # mean probability of lung in a tile that is a slice
LONGEST = 1.6  # ratio of the sides of a slice
MOST_TILES = 6  # along a side
SEVERAL = 3  # regions of lung, from which on a picture may show several slices
LARGE = 0.1  # share of the largest region that such a region has
PICTURES = 8  # that are looked at more closely
TILES = 4  # that are looked at of each grid


class _Answer(NamedTuple):
    """What the network says of a picture: the mean probability of lung, and the share of the smaller lung."""

    certainty: float
    balance: float


NO_LUNG = _Answer(0.0, 0.0)


def check_layout(network: LungNetwork, slices: ShownSlices, located: Sequence[View]) -> None:
    """Refuse pictures that lie on their side, or show several slices each.

    Args:
        network: The lung network.
        slices: What it saw.
        located: What it said of each picture as a whole.

    Raises:
        FormatError: More than half of those pictures do that may, which are looked at more closely.
    """
    doubtful = [view for view in located if _is_doubtful(view)]
    doubtful = doubtful[:: max(1, len(doubtful) // PICTURES)]
    faults = [(view, fault) for view in doubtful if (fault := _fault(network, slices, view))]
    if 2 * len(faults) > len(doubtful):
        view, fault = faults[0]
        raise FormatError(f"{fault}{f' (picture {view.part.slices.start + 1})' if len(located) > 1 else ''}")


def _is_doubtful(view: View) -> bool:
    """Return whether a picture may lie on its side, or show several slices."""
    if _answer(view.maps).balance < BALANCED or not 1 / LONGEST < view.part.size[0] / view.part.size[1] < LONGEST:
        return True
    regions = find_components(PackedMask.from_slices(view.lungs), CONNECTIVITY_6).sizes[1:]
    return int((regions > LARGE * regions.max()).sum()) >= SEVERAL


def _fault(network: LungNetwork, slices: ShownSlices, view: View) -> str | None:
    height, width = view.part.size
    plane = slices.part(view.part.slices.start, Box(0, height, 0, width))
    for rows, columns in _grids(height, width):
        answers = _answers(network, slices, _some_tiles(plane, rows, columns))
        shown = [tile.balance >= BALANCED and tile.certainty >= TILE_CERTAINTY for tile in answers]
        if sum(shown) >= MOST_SHOWN * len(shown):
            return (
                "the picture shows several slices side by side, expected one: save each as a picture of its own, and "
                "give their folder"
            )
    own = _answer(view.maps)
    for turned in _answers(network, slices, (np.rot90(plane), np.rot90(plane, 3))):
        if own.balance < BALANCED <= turned.balance and turned.certainty > own.certainty:
            return "the picture lies on its side: turn it by 90 degrees, so that the spine is at the bottom"
    return None


def _some_tiles(plane: NDArray[Any], rows: int, columns: int) -> list[NDArray[Any]]:
    """Return some of the tiles of equal size into which a picture can be cut."""
    height, width = plane.shape[0] // rows, plane.shape[1] // columns
    corners = [(row * height, column * width) for row in range(rows) for column in range(columns)]
    return [plane[y : y + height, x : x + width] for y, x in corners[:: max(1, len(corners) // TILES)]]


def _grids(height: int, width: int) -> Iterable[tuple[int, int]]:
    """Yield the numbers of rows and columns into which a picture may be cut so that its tiles are slices."""
    for rows in range(1, MOST_TILES + 1):
        for columns in range(1, MOST_TILES + 1):
            if rows * columns > 1 and 1 / LONGEST < (height / rows) / (width / columns) < LONGEST:
                yield rows, columns


def _answers(network: LungNetwork, slices: ShownSlices, planes: Sequence[NDArray[Any]]) -> Iterable[_Answer]:
    """Return what the network says of each picture; of one whose negative it is surer of, that no lung is there."""
    limits = slices.limits
    negatives = network.maps((-plane.astype(np.float32) for plane in planes), limits) if limits is None else ()
    for own, negative in zip_longest(map(_answer_of, network.maps(planes, limits)), map(_answer_of, negatives)):
        yield NO_LUNG if negative and negative.certainty > own.certainty else own


def _answer_of(found: LungMaps) -> _Answer:
    maps = np.rint(255 * found.probability).astype(np.uint8)[None]
    drop_doubtful_regions(maps)
    return _answer(maps)


def _answer(maps: Maps) -> _Answer:
    """Return what (1, 2, y, x) maps say."""
    lungs = maps.max(1) >= HALF
    if not lungs.any():
        return NO_LUNG
    right = float((maps[:, 0] >= maps[:, 1])[lungs].mean())
    return _Answer(mean_certainty(maps), min(right, 1 - right))
