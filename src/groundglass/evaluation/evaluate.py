"""A model's scores on cases with a reference, through the same code as `segment`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.analysis import Located, locate
from groundglass.data.catalogue import Case
from groundglass.data.slices import read_pair, take_labels
from groundglass.inference.card import read_card
from groundglass.inference.segmenter import Segmenter
from groundglass.scores import Confusion


@dataclass(frozen=True)
class CaseScore:
    """Counts of one case.

    Attributes:
        case: Its name.
        whole: Every pixel of every slice, lesion-free slices included.
        lesion_slices: Every pixel of the slices whose reference holds lesion.
        crops: The same slices as the network sees them: the lung field at the network's size.
    """

    case: str
    whole: Confusion
    lesion_slices: Confusion
    crops: Confusion


def evaluate_case(case: Case, segmenter: Segmenter) -> CaseScore:
    """Segment a case and count its pixels against the reference.

    Raises:
        InputError: The case is refused.
    """
    scan, labels = read_pair(case)
    at = locate(scan, segmenter)
    truth = at.view.turn(labels) > 0
    with_lesion = truth.any((1, 2))
    return CaseScore(
        case.name,
        Confusion.count(at.lesions, truth),
        Confusion.count(at.lesions[with_lesion], truth[with_lesion]),
        _count_crops(at, segmenter, truth),
    )


def _count_crops(at: Located, segmenter: Segmenter, truth: NDArray[np.bool_]) -> Confusion:
    total = Confusion()
    places = [(z, letterbox) for z, letterbox in segmenter.places(at.field) if truth[z].any()]
    for (z, letterbox), probability in zip(places, segmenter.probabilities(at.hu, places), strict=True):
        reference = take_labels(letterbox, truth[z].astype(np.uint8)) > 0
        total += Confusion.count(probability >= segmenter.card.threshold, reference)
    return total


def evaluate(
    cases: Sequence[Case], segmenter: Segmenter, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[CaseScore, ...]:
    """Score every case; `progress` is called with the cases done and their number."""
    scores = []
    for case in cases:
        scores.append(evaluate_case(case, segmenter))
        progress(len(scores), len(cases))
    return tuple(scores)


KINDS = ("whole", "lesion_slices", "crops")


def pooled(scores: Sequence[CaseScore]) -> dict[str, Confusion]:
    """The counts of all cases together, for each kind of counting."""
    return {kind: sum((getattr(score, kind) for score in scores), Confusion()) for kind in KINDS}


def as_table(scores: Sequence[CaseScore]) -> dict[str, dict[str, dict[str, float | None]]]:
    """{case or "pooled": {kind: {score: value}}}, rounded to four digits, for a model card."""
    rows = {score.case: {kind: getattr(score, kind) for kind in KINDS} for score in scores} | {"pooled": pooled(scores)}
    return {row: {kind: _named_scores(confusion) for kind, confusion in kinds.items()} for row, kinds in rows.items()}


def _named_scores(confusion: Confusion) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in confusion.scores.items()}


def write_scores(model: Path, scores: Sequence[CaseScore]) -> None:
    """Put scores into the card beside a model, in place of the test scores that it holds."""
    card = read_card(model)
    named = " ".join(f"--case {score.case}" for score in scores)
    tested = card.scores | {"test": as_table(scores), "command": f"groundglass evaluate --data DATA {named}"}
    updated = card.model_copy(update={"scores": tested})
    model.with_suffix(".json").write_text(updated.model_dump_json(indent=2) + "\n", encoding="utf-8")
