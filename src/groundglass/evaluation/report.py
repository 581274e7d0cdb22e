"""The report of an evaluation: a folder for programs, for spreadsheets, and for a reader.

FOLDER/
    scores.json                          all results as strict JSON
    slices.csv  cases.csv  lesions.csv   one row for each slice, case and lesion
    report.md                            the tables, the rules, the figures
    figures/*.png                        slices.png shows real slices: keep it where the data is kept
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundglass.evaluation.agreement import Agreement
from groundglass.evaluation.calibration import expected_calibration_error, precision_recall_curve, reliability_bins
from groundglass.evaluation.figures import draw_figures
from groundglass.evaluation.intervals import Estimate
from groundglass.evaluation.lesions import SIZE_EDGES, score_by_size
from groundglass.evaluation.results import CaseScore, Evaluation
from groundglass.evaluation.rules import rules_as_markdown
from groundglass.evaluation.summary import to_json
from groundglass.evaluation.surface import TOLERANCE_MM
from groundglass.evaluation.tables import (
    HEADINGS,
    cases_csv,
    headline,
    lesions_csv,
    percent,
    percent_interval,
    slices_csv,
)
from groundglass.files import refuse_strangers, write_files
from groundglass.metrics import RATIOS
from groundglass.plain_text import inert_markdown
from groundglass.tables.writing import markdown_table

CAPTIONS = {
    "slices.png": "Best, median and worst slices with lesion, by Dice",
    "bland-altman.png": "Agreement of volume and burden",
    "lesion-size.png": "Lesions by size",
    "precision-recall.png": "Precision and recall over thresholds",
    "reliability.png": "Reliability",
}


TABLES = ("slices.csv", "cases.csv", "lesions.csv")
KNOWN_BY = "scores.json"


def refuse_other_files(folder: Path) -> None:
    """Refuse a folder in which a report would replace files of others, before hours of scoring.

    Raises:
        OutputError: It holds such files.
    """
    refuse_strangers(folder, ("report.md", *TABLES), KNOWN_BY)


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write an evaluation into a folder, which is created if it does not exist: all files or none.

    Returns:
        The files written. Those of an earlier report are replaced or removed; other files stay.

    Raises:
        OutputError: The folder cannot be written, or holds such files of no earlier report, as the list of cases of a
            dataset; it is as it was before.
    """
    figures = draw_figures(evaluation)
    tables = (slices_csv, cases_csv, lesions_csv)
    texts = {
        "report.md": _markdown(evaluation, list(figures)),
        KNOWN_BY: to_json(evaluation),
        **{name: table(evaluation) for name, table in zip(TABLES, tables, strict=True)},
    }
    files = {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    files |= {f"figures/{name}": png for name, png in figures.items()}
    return write_files(folder, files, [f"figures/{name}" for name in CAPTIONS], KNOWN_BY)


def _markdown(evaluation: Evaluation, figures: Sequence[str]) -> str:
    sections = (
        _opening_lines(evaluation),
        _headline_lines(evaluation),
        *(_class_lines(evaluation, name) for name in evaluation.classes),
        _case_lines(evaluation),
        _lesion_lines(evaluation),
        _volume_lines(evaluation),
        _calibration_lines(evaluation),
        _figure_lines(figures),
        ["## Rules", *rules_as_markdown()],
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _opening_lines(evaluation: Evaluation) -> list[str]:
    model, slices = evaluation.model, evaluation.slices
    patients, with_lesion = len({score.patient for score in slices}), sum(score.has_lesion for score in slices)
    return [
        f"# {inert_markdown(model.name)}, evaluated",
        "",
        f"Model sha256 {model.sha256}; a pixel is lesion from a probability of {evaluation.threshold:g}. "
        f"Cases: {len(evaluation.cases)}; patients: {patients}; slices: {len(slices)}, {with_lesion} with lesion. "
        "Scores are in percent, with 95 % intervals over patients where there are enough; - is undefined. "
        "All rules are at the end. Research use, not a medical device.",
        *(f"\n**Warning: {inert_markdown(warning)}.**" for warning in evaluation.warnings),
    ]


def _headline_lines(evaluation: Evaluation) -> list[str]:
    head = ["counted on", *(HEADINGS[name] for name in RATIOS), "Dice over", "left out"]
    rows = [
        [title, *(percent_interval(scores[name]) for name in RATIOS), *_row_counts(scores["dice"], title)]
        for title, scores in headline(evaluation).items()
    ]
    return ["## Scores", "", *markdown_table(head, rows)]


def _row_counts(dice: Estimate, title: str) -> tuple[str, str]:
    """Numbers of rows in a mean and left out of it; empty for pooled scores."""
    return (str(dice.rows), str(dice.undefined)) if title.startswith("mean") else ("", "")


def _class_lines(evaluation: Evaluation, name: str) -> list[str]:
    titles = {"pooled": "pooled, every slice", "slices": "mean of slices", "volumes": "mean of volumes"}
    scores = evaluation.class_scores(name)
    rows = [[title, *(percent_interval(scores[unit][each]) for each in RATIOS)] for unit, title in titles.items()]
    head = ["counted on", *(HEADINGS[each] for each in RATIOS)]
    return [f"## Class: {inert_markdown(name)}", "", *markdown_table(head, rows)]


def _case_lines(evaluation: Evaluation) -> list[str]:
    head = ["case", "slices", "with lesion", *(HEADINGS[name] for name in RATIOS), "HD95 mm", "surface Dice"]
    rows = [
        [
            case.case,
            str(len(case.slices)),
            str(len(case.slices) - case.lesion_free_slices),
            *(percent(value) for value in case.pooled_counts["whole"].scores.values()),
            _number(case.volume.hd95_mm),
            percent(case.volume.surface_dice),
        ]
        for case in evaluation.cases
    ]
    surface = evaluation.surface_scores()
    blank = [""] * (2 + len(RATIOS))
    if surface["hd95_mm"].rows or surface["surface_dice"].rows:
        hd95 = _with_interval(surface["hd95_mm"])
        rows.append(["mean of volumes", *blank, hd95, percent_interval(surface["surface_dice"])])
    return [f"## Cases, every slice (surface Dice within {TOLERANCE_MM:g} mm)", "", *markdown_table(head, rows)]


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:z.{digits}f}"


def _with_interval(estimate: Estimate, digits: int = 1) -> str:
    value = _number(estimate.value, digits)
    if estimate.interval is None:
        return value
    low, high = (_number(end, digits) for end in estimate.interval)
    return f"{value} ({low} to {high})"


def _lesion_lines(evaluation: Evaluation) -> list[str]:
    lines = []
    for unit in SIZE_EDGES:
        rows = [
            [
                row.size_class,
                f"{row.found} of {row.recall.rows}",
                percent_interval(row.recall),
                f"{row.right} of {row.precision.rows}",
                percent_interval(row.precision),
            ]
            for row in score_by_size(evaluation.regions, unit)
        ]
        if rows:
            counted_in = "whole volumes, by ml" if unit == "ml" else "slices that stand alone, by pixels"
            head = [f"size ({counted_in})", "lesions found", "recall", "predicted regions right", "precision"]
            lines += ["", *markdown_table(head, rows)]
    return ["## Lesions by size", *lines] if lines else []


def _volume_lines(evaluation: Evaluation) -> list[str]:
    head = [
        "case",
        "ml",
        "reference ml",
        "error ml",
        "burden %",
        "reference %",
        "error points",
        "false ml",
        "per slice",
    ]
    rows = [
        _volume_row(case)
        for case in evaluation.cases
        if case.volume.volume_ml or case.false_positive_ml_per_slice is not None
    ]
    if not rows:
        return []
    agreements = {
        "Volume, ml": evaluation.agreement("volume_ml"),
        "Burden, points": evaluation.agreement("burden_percent"),
    }
    false_positive = _with_interval(evaluation.false_positive_ml_per_slice(), 3)
    return [
        "## Volume and burden",
        "",
        *markdown_table(head, rows),
        "",
        *markdown_table(
            ["prediction - reference", "volumes", "bias", "mean absolute error", "95 % limits of agreement"],
            [_agreement_row(title, agreement) for title, agreement in agreements.items()],
        ),
        "",
        f"Predicted on lesion-free slices (false ml), over all volumes: {false_positive} ml per slice.",
    ]


def _volume_row(case: CaseScore) -> list[str]:
    cells = [case.case]
    for pair in (case.volume.volume_ml, case.volume.burden_percent):
        cells += [f"{pair.predicted:.1f}", f"{pair.reference:.1f}", f"{pair.error:+z.1f}"] if pair else ["-"] * 3
    return [*cells, _number(case.volume.false_positive_ml), _number(case.false_positive_ml_per_slice, 3)]


def _agreement_row(title: str, agreement: Agreement) -> list[str]:
    limits = "-" if agreement.limits is None else " to ".join(f"{end:+z.1f}" for end in agreement.limits)
    bias, mean_absolute_error = _with_interval(agreement.bias), _with_interval(agreement.mean_absolute_error)
    return [title, str(agreement.volumes), bias, mean_absolute_error, limits]


def _calibration_lines(evaluation: Evaluation) -> list[str]:
    histogram, curve = evaluation.histogram, precision_recall_curve(evaluation.histogram)
    error = expected_calibration_error(reliability_bins(histogram))
    average = curve.average_precision if curve else None
    return [
        "## Calibration",
        "",
        f"ECE {_number(error, 4)}, average precision {_number(average, 3)}, over {histogram.pixels:,} pixels that the "
        f"network looked at, {int(histogram.lesion.sum()):,} of them lesion.",
    ]


def _figure_lines(figures: Sequence[str]) -> list[str]:
    return ["## Figures", *(f"\n![{CAPTIONS[name]}](figures/{name})" for name in figures)] if figures else []
