"""Scores as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from groundglass.evaluation.evaluate import KINDS, CaseScore, pooled
from groundglass.scores import Confusion

TITLES = {
    "whole": "whole volumes, lesion-free slices included",
    "lesion_slices": "lesion slices",
    "crops": "lesion slices, cut to the lungs as the network sees them",
}


def score_table(scores: Sequence[CaseScore]) -> Table:
    """One row a case and one for all pixels together, for each kind of counting; percent."""
    table = Table("counted on", "case", "Dice", "sensitivity", "specificity", "precision")
    for kind in KINDS:
        for score in scores:
            table.add_row(TITLES[kind], score.case, *_percents(getattr(score, kind)))
        table.add_row(TITLES[kind], "pooled", *_percents(pooled(scores)[kind]), end_section=True)
    return table


def _percents(confusion: Confusion) -> list[str]:
    return ["-" if value is None else f"{100 * value:.1f}" for value in confusion.scores.values()]
