"""The best, median and worst slices, for a person to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from groundglass.data.case import Case
from groundglass.data.case_files import read_case
from groundglass.evaluation.results import Example, SliceScore
from groundglass.inference.lungs.finding import find_intensity
from groundglass.inference.pipeline import SegmentedScan
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.scan import ImageStack

PER_RANK = 3  # slices of each rank
MARGIN = 0.04  # of the box's width, shown around it


class ExampleCollector:
    """Packed predictions of every case; once all scores are known, the CT of a few slices is read again."""

    def __init__(self) -> None:
        self._cases: list[tuple[Case, tuple[SliceScore, ...], AxialView, PackedMask]] = []

    def add(self, case: Case, slices: tuple[SliceScore, ...], segmented: SegmentedScan) -> None:
        """Keep a case: the scores of its slices and its predicted lesions."""
        self._cases.append((case, slices, segmented.view, segmented.lesions))

    def read_examples(self) -> tuple[Example, ...]:
        """Read up to three slices of each rank, by Dice among the slices with lesion; best first."""
        with_lesion = [
            (case_index, score)
            for case_index, (_, scores, _, _) in enumerate(self._cases)
            for score in scores
            if score.has_lesion
        ]
        with_lesion.sort(key=lambda item: -(item[1].whole.dice or 0.0))
        selected: dict[int, list[tuple[str, SliceScore]]] = {}
        for index, rank in rank_slices(len(with_lesion)).items():
            case_index, score = with_lesion[index]
            selected.setdefault(case_index, []).append((rank, score))
        examples: list[Example] = []
        for case_index, ranked in selected.items():
            case, _, view, lesions = self._cases[case_index]
            examples += _read_slices(case, view, lesions, ranked)
        return tuple(sorted(examples, key=lambda example: -example.dice))


def rank_slices(count: int) -> dict[int, str]:
    """Choose the slices to show among `count` that are sorted, best first: {index: rank}."""
    per_rank = min(PER_RANK, max(1, count // 3))
    starts = {"best": 0, "worst": max(0, count - per_rank), "median": max(0, (count - per_rank) // 2)}
    ranks: dict[int, str] = {}
    for rank, start in starts.items():
        for index in range(start, min(start + per_rank, count)):
            ranks.setdefault(index, rank)
    return ranks


def _read_slices(
    case: Case, view: AxialView, lesions: PackedMask, ranked: Sequence[tuple[str, SliceScore]]
) -> Iterator[Example]:
    scan, labels = read_case(case)
    hu, labels = find_intensity(scan).to_hu(view.to_axial(scan.values)), view.to_axial(labels)
    _, dy, dx = view.geometry.spacing
    for rank, score in ranked:
        z = score.z
        size = scan.sizes[z] if isinstance(scan, ImageStack) else labels.shape[1:]
        part = (z, *_field_of_view(score.box, size))
        title = f"{case.name}, slice {score.index_in_file}" if len(labels) > 1 else case.name
        grey = LUNG_WINDOW.to_grey(hu[part])
        yield Example(rank, title, score.whole.dice or 0.0, grey, labels[part] > 0, lesions[part], dy / dx)


def _field_of_view(box: Box | None, size: tuple[int, ...]) -> tuple[slice, slice]:
    """The box that the network looked at, with a margin; the whole slice (height, width) if there is none."""
    if box is None:
        return slice(0, size[0]), slice(0, size[1])
    margin = round(MARGIN * (box.right - box.left))
    return (
        slice(max(0, box.top - margin), min(size[0], box.bottom + margin)),
        slice(max(0, box.left - margin), min(size[1], box.right + margin)),
    )
