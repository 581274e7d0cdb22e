"""Scores as tables: for a terminal, for a model card, and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from groundglass.evaluation.agreement import PairedMeasurement
from groundglass.evaluation.intervals import Estimate
from groundglass.evaluation.results import CaseScore, Evaluation, Scores, SliceScore
from groundglass.evaluation.volume import QUANTITIES
from groundglass.inference.model_card import read_card, write_card
from groundglass.metrics import RATIOS, Confusion
from groundglass.tables.writing import csv_text

HEADINGS = {"dice": "Dice", "iou": "IoU"} | {name: name for name in ("sensitivity", "specificity", "precision")}
POOLED = {
    "whole": "pooled, every slice",
    "lesion_slices": "pooled, lesion slices",
    "crops": "pooled, lesion slices, crops",
}
MEANS = {
    "slices": "mean of slices",
    "lesion_slices": "mean of lesion slices",
    "volumes": "mean of volumes",
    "patients": "mean of patients",
}
COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")
DIGITS = 5  # after the point, of ratios: more than percent with a decimal, so that nothing is rounded up twice


def headline(evaluation: Evaluation) -> dict[str, Scores]:
    """Collect the rows of every headline table: {title: scores}."""
    pooled, means = evaluation.pooled_scores(), evaluation.mean_scores()
    return {title: pooled[kind] for kind, title in POOLED.items()} | {
        title: means[unit] for unit, title in MEANS.items()
    }


def percent(value: float | None) -> str:
    """Format a share in percent with one decimal; - where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def percent_interval(estimate: Estimate) -> str:
    """Format an estimate in percent, such as 71.2 (62.0-79.1); without an interval the value alone."""
    if estimate.interval is None:
        return percent(estimate.value)
    low, high = estimate.interval
    return f"{percent(estimate.value)} ({percent(low)}-{percent(high)})"


def score_table(evaluation: Evaluation) -> Table:
    """Tabulate for a terminal, in percent: the headline, the classes, then every volume on all its slices."""
    table = Table("counted on", "Dice and 95 % interval", *(HEADINGS[name] for name in RATIOS if name != "dice"))
    classes = {f"{name}, pooled": evaluation.class_scores(name)["pooled"] for name in evaluation.classes}
    for title, scores in (headline(evaluation) | classes).items():
        others = (percent(scores[name].value) for name in RATIOS if name != "dice")
        table.add_row(title, percent_interval(scores["dice"]), *others)
    table.add_section()
    for case in evaluation.volumes:
        table.add_row(case.case, *(percent(value) for value in case.pooled_counts["whole"].scores.values()))
    return table


def command_line(command: str, model: Path | None = None, **options: Sequence[str] | Path | str | None) -> str:
    """Write the command that repeats a scoring, without the folders of this machine.

    Args:
        command: Name of the command.
        model: The model argument; None: the bundled model.
        **options: Values of the options; None is left out, a sequence repeats the option.
    """
    parts = ["groundglass", command, *([model.name] if model else []), "--data", "DATA"]
    for name, value in options.items():
        values = (value,) if isinstance(value, str | Path) else value or ()
        parts += [f"--{name} {item.name if isinstance(item, Path) else item}" for item in values]
    return " ".join(parts)


def write_scores(model: Path, evaluation: Evaluation, command: str) -> None:
    """Write scores into the card beside a model, in place of the test scores that it holds.

    Args:
        model: The ONNX file.
        evaluation: The evaluation of this model.
        command: The command that repeats the scoring.
    """
    rows = {case.case: case.pooled_counts for case in evaluation.cases} | {"pooled": evaluation.pooled_counts}
    tested = {row: {kind: _rounded(confusion) for kind, confusion in counts.items()} for row, counts in rows.items()}
    card = read_card(model)
    updated = card.model_copy(update={"scores": card.scores | {"test": tested, "command": command}})
    write_card(model, updated)


def _rounded(confusion: Confusion) -> dict[str, float | None]:
    return {name: None if value is None else round(value, DIGITS) for name, value in confusion.scores.items()}


def slices_csv(evaluation: Evaluation) -> str:
    """Format one row for each slice; an empty cell is undefined."""
    rows = (
        {"case": case.case, **_slice_row(score, evaluation.classes)}
        for case in evaluation.cases
        for score in case.slices
    )
    return csv_text(rows, digits=DIGITS)


def _slice_row(score: SliceScore, classes: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "patient": score.patient,
        "slice": score.z,
        "slice_in_file": score.index_in_file,
        "has_lesion": int(score.has_lesion),
        "looked_at": int(score.box is not None),
        **_counts_and_scores(score.whole),
    }
    for name in classes:
        row |= _counts_and_scores(score.classes.get(name, Confusion()), f"{name}_")
    return row


def _counts_and_scores(confusion: Confusion, prefix: str = "") -> dict[str, Any]:
    values = dict(zip(COUNTS, confusion.counts, strict=True)) | confusion.scores
    return {prefix + name: value for name, value in values.items()}


def cases_csv(evaluation: Evaluation) -> str:
    """Format one row for each case; an empty cell is undefined or unknown (see scores.json)."""
    return csv_text((_case_row(case, evaluation.classes) for case in evaluation.cases), digits=DIGITS)


def _case_row(case: CaseScore, classes: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case.case,
        "patient": case.patient,
        "slices": len(case.slices),
        "lesion_slices": len(case.slices) - case.lesion_free_slices,
        **_counts_and_scores(case.pooled_counts["whole"]),
    }
    for name in QUANTITIES:
        value = getattr(case.volume, name)
        if name in ("volume_ml", "burden_percent"):
            for part in ("predicted", "reference", "error"):
                row[f"{part}_{name}"] = getattr(value, part) if isinstance(value, PairedMeasurement) else None
        else:
            row[name] = value
    row["false_positive_ml_per_lesion_free_slice"] = case.false_positive_ml_per_slice
    for name in classes:
        row |= _counts_and_scores(case.class_counts(name), f"{name}_")
    return row


def lesions_csv(evaluation: Evaluation) -> str:
    """Format one row for each lesion of the reference (hit: found) and each predicted region (hit: right)."""
    rows = (
        {
            "case": region.case,
            "patient": region.patient,
            "of": region.origin,
            "size": region.size,
            "unit": region.unit,
            "size_class": region.size_class,
            "slice": region.slice,
            "overlap": region.overlap,
            "hit": int(region.hit),
        }
        for region in evaluation.regions
    )
    return csv_text(rows, digits=DIGITS)
