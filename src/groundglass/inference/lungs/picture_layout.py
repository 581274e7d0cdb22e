"""Whether slices lie upright, and a picture shows one: those on their side, and several in one picture, are told.

Nothing else in a picture says so, and lesions were learned from upright slices; a file may state the directions of a
volume wrongly. The lung network tells: upright, each lung has its share, 35 % or more in 36 real pictures; on its side,
nearly all is taken for one lung, with less certainty, or no lung is found. Of several slices in one picture, each tile
shows both lungs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError, LungError
from groundglass.inference.lungs.network import LungMaps, LungNetwork
from groundglass.inference.lungs.parts import HALF, Maps, View, mean_certainty
from groundglass.inference.lungs.search import ShownSlices, drop_doubtful_regions, look
from groundglass.scan.components import CONNECTIVITY_6, find_components
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import PackedMask

BALANCED = 0.3  # share of both lungs that the smaller one has in an upright slice
MOST_SHOWN = 0.75  # share of the tiles that show both lungs
TILE_CERTAINTY = 0.93  # mean probability of lung in a tile that is a slice
FLATTEST, TALLEST = 1 / 1.6, 1.6  # height of a slice, as a share of its width
TALLEST_TILE = 1.3  # the same of a tile: bodies are wider than high
MOST_TILES = 6  # along a side
SEVERAL = 3  # regions of lung, from which on a picture may show several slices
LARGE = 0.1  # share of the largest region that such a region has
EXCHANGED = (
    "the slices lie on their side: the directions that the file states are wrong, as if rows and columns were "
    "exchanged; set them, and save it again"
)
PICTURES = 8  # that are looked at more closely
TILES = 4  # that are looked at of each grid whose tile in the middle is a slice


class _Answer(NamedTuple):
    """What the network says of a picture: the mean probability of lung, and the share of the smaller lung."""

    certainty: float
    balance: float


NO_LUNG = _Answer(0.0, 0.0)


class _Tiles(NamedTuple):
    """A picture cut into tiles of equal size: the one in the middle, and some of all."""

    middle: NDArray[Any]
    some: list[NDArray[Any]]


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


def check_directions(network: LungNetwork, slices: ShownSlices, located: View) -> None:
    """Refuse a volume whose slices lie on their side, though it states its directions.

    Args:
        network: The lung network.
        slices: What it saw.
        located: What it said of the volume.

    Raises:
        LungError: Both lungs are found if rows and columns are exchanged, but not so as it lies.
    """
    own = _answer(located.maps)
    if own.balance < BALANCED:
        top, bottom, left, right, _ = located.part.content
        turned_slices = replace(slices, values=slices.values.swapaxes(1, 2))
        (turned,) = look(network, turned_slices, [replace(located, box=Box(left, right, top, bottom))])
        if _is_upright_instead(_answer(turned.maps), own):
            raise LungError(EXCHANGED)


def _is_doubtful(view: View) -> bool:
    """Return whether a picture may lie on its side, or show several slices."""
    content = view.part.content
    form = (content.bottom - content.top) / (content.right - content.left)
    if _answer(view.maps).balance < BALANCED or not FLATTEST < form < TALLEST:
        return True
    regions = find_components(PackedMask.from_slices(view.lungs), CONNECTIVITY_6).sizes[1:]
    return int((regions > LARGE * regions.max()).sum()) >= SEVERAL


def _fault(network: LungNetwork, slices: ShownSlices, view: View) -> str | None:
    plane = slices.part(view.part.slices.start, view.part.content)
    grids = [_tiles(plane, rows, columns) for rows, columns in _grids(*plane.shape)]
    middles = _answers(network, slices, [tiles.middle for tiles in grids])
    for tiles, middle in zip(grids, middles, strict=True):
        if _is_slice(middle) and _are_slices(_answers(network, slices, tiles.some)):
            return (
                "the picture shows several slices side by side, expected one: save each as a picture of its own, and "
                "give their folder"
            )
    own = _answer(view.maps)
    if own.balance < BALANCED:
        turned = _answers(network, slices, [np.rot90(plane), np.rot90(plane, 3)])
        if any(_is_upright_instead(answer, own) for answer in turned):
            return "the picture lies on its side: turn it by 90 degrees, so that the spine is at the bottom"
    return None


def _is_upright_instead(turned: _Answer, own: _Answer) -> bool:
    return turned.balance >= BALANCED and turned.certainty > own.certainty


def _is_slice(tile: _Answer) -> bool:
    return tile.balance >= BALANCED and tile.certainty >= TILE_CERTAINTY


def _are_slices(tiles: Sequence[_Answer]) -> bool:
    return sum(map(_is_slice, tiles)) >= MOST_SHOWN * len(tiles)


def _tiles(plane: NDArray[Any], rows: int, columns: int) -> _Tiles:
    """Cut a picture into tiles of equal size."""
    height, width = plane.shape[0] // rows, plane.shape[1] // columns
    tiles = [
        plane[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]
    return _Tiles(tiles[rows // 2 * columns + columns // 2], tiles[:: max(1, len(tiles) // TILES)])


def _grids(height: int, width: int) -> Iterable[tuple[int, int]]:
    """Yield the numbers of rows and columns into which a picture may be cut so that its tiles are slices."""
    for rows in range(1, MOST_TILES + 1):
        for columns in range(1, MOST_TILES + 1):
            if rows * columns > 1 and FLATTEST < (height / rows) / (width / columns) < TALLEST_TILE:
                yield rows, columns


def _answers(network: LungNetwork, slices: ShownSlices, planes: Sequence[NDArray[Any]]) -> list[_Answer]:
    """Return what the network says of each picture; of one whose negative it is surer of, that no lung is there."""
    limits = slices.limits
    answers = list(map(_answer_of, network.maps(planes, limits)))
    if limits is None:  # only balanced lungs count
        balanced = [i for i, answer in enumerate(answers) if answer.balance >= BALANCED]
        negatives = network.maps((-planes[i].astype(np.float32) for i in balanced), limits)
        for i, negative in zip(balanced, map(_answer_of, negatives), strict=True):
            if negative.certainty > answers[i].certainty:
                answers[i] = NO_LUNG
    return answers


def _answer_of(found: LungMaps) -> _Answer:
    maps = np.rint(255 * found.probability).astype(np.uint8)[None]
    drop_doubtful_regions(maps)
    return _answer(maps)


def _answer(maps: Maps) -> _Answer:
    """Return what (n, 2, y, x) maps say."""
    lungs = maps.max(1) >= HALF
    if not lungs.any():
        return NO_LUNG
    right = float((maps[:, 0] >= maps[:, 1])[lungs].mean())
    return _Answer(mean_certainty(maps), min(right, 1 - right))
