"""The best, median and worst slices, to look at."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.data.catalogue import Case
from groundglass.data.slices import read_pair
from groundglass.evaluation.results import Example, SliceScore
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import LUNG_WINDOW, recognise
from groundglass.scan.lung_field import Box
from groundglass.scan.scan import ImageStack

EACH = 3
MARGIN = 0.04  # of the box's width, shown around it


class ExampleCollector:
    """Every case's lesions, packed, until it is known which slices to show; the CT is then read again for those."""

    def __init__(self) -> None:
        self._cases: list[tuple[Case, tuple[SliceScore, ...], bytes]] = []

    def put(self, case: Case, slices: tuple[SliceScore, ...], lesions: NDArray[np.bool_]) -> None:
        """Keep a case: the slices that count, and what was found in it (z, y, x)."""
        self._cases.append((case, slices, zlib.compress(np.packbits(lesions).tobytes(), 1)))

    def examples(self) -> tuple[Example, ...]:
        """Up to three slices of each rank, by Dice among the slices with lesion; best first."""
        found = [
            (each.whole.dice or 0.0, place, each)
            for place, (_, slices, _) in enumerate(self._cases)
            for each in slices
            if each.has_lesion
        ]
        found.sort(key=lambda entry: -entry[0])
        wanted: dict[int, list[tuple[str, SliceScore]]] = {}
        for index, rank in ranks(len(found)).items():
            _, place, each = found[index]
            wanted.setdefault(place, []).append((rank, each))
        drawn: list[Example] = []
        for place, chosen in wanted.items():
            case, _, packed = self._cases[place]
            drawn += _cut(case, packed, chosen)
        return tuple(sorted(drawn, key=lambda example: -example.dice))


def ranks(count: int) -> dict[int, str]:
    """{place: rank} of the slices to show among `count` that are sorted, best first."""
    each = min(EACH, max(1, count // 3))
    starts = {"best": 0, "worst": max(0, count - each), "median": max(0, (count - each) // 2)}
    chosen: dict[int, str] = {}
    for rank, start in starts.items():
        for index in range(start, min(start + each, count)):
            chosen.setdefault(index, rank)
    return chosen


def _cut(case: Case, packed: bytes, chosen: Sequence[tuple[str, SliceScore]]) -> Iterator[Example]:
    scan, labels = read_pair(case)
    view = AxialView(scan.geometry)
    hu, labels = recognise(scan).to_hu(view.turn(scan.values)), view.turn(labels)
    bits = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    lesions = np.unpackbits(bits, count=labels.size).reshape(labels.shape).astype(np.bool_)
    _, dy, dx = view.geometry.spacing
    for rank, each in chosen:
        z = each.number
        size = scan.sizes[z] if isinstance(scan, ImageStack) else labels.shape[1:]
        place = (z, *_shown(each.box, size))
        title = f"{case.name}, slice {each.number_in_file}" if len(labels) > 1 else case.name
        grey = LUNG_WINDOW.to_grey(hu[place])
        yield Example(rank, title, each.whole.dice or 0.0, grey, labels[place] > 0, lesions[place], dy / dx)


def _shown(box: Box | None, size: tuple[int, ...]) -> tuple[slice, slice]:
    """The looked-at part with a margin; the whole slice where nothing was looked at."""
    if box is None:
        return slice(0, size[0]), slice(0, size[1])
    margin = round(MARGIN * (box.right - box.left))
    return (
        slice(max(0, box.top - margin), min(size[0], box.bottom + margin)),
        slice(max(0, box.left - margin), min(size[1], box.right + margin)),
    )
