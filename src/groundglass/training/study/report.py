"""The report of a study: Table 1 beside the paper's, the differences between rows, and the figures.

STUDY/
    study.md                      tables: scores, differences between rows, costs
    table.csv  differences.csv    the same as CSV
    learning-curves.png
    figure-6.png                  shows real slices: keep it where the data is kept
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.evaluation.intervals import Estimate
from groundglass.evaluation.tables import DIGITS, HEADINGS, percent, percent_interval
from groundglass.files import write_files
from groundglass.tables.writing import csv_text, markdown_table
from groundglass.training.study.costs import Cost, measure_costs
from groundglass.training.study.figures import draw_comparison, draw_learning_curves
from groundglass.training.study.plan import PaperScores, Study, TrainingJob
from groundglass.training.study.results import SUBSETS, Comparison, RowResult, collect_results, compare_rows

PAPER_SCORES = ("dice", "sensitivity", "specificity")
SCORES_HEADER = (
    "row",
    "Dice, lesion slices",
    "sensitivity",
    "specificity",
    "mean: Dice",
    "every slice: Dice",
    "Dice by seed",
    "paper: Dice",
    "sensitivity",
    "specificity",
)
SCORES_NOTE = """\
Scores in percent. "Lesion slices": pixels of all test slices with lesion, pooled; the paper has no other slices.
"mean": mean of the scores of those slices. "every slice": slices without lesion count too. In brackets are 95 %
intervals over the patients of the test part. With several seeds, their counts are added up, and the Dice of each is
given. The paper does not say whether it pools or averages.
"""
DIFFERENCES_HEADER = ("row", "against", "difference in Dice", "p", "patients")
DIFFERENCES_NOTE = """\
Row minus the row that it is compared with, in percentage points of Dice, pooled over lesion slices. Intervals are over
patients; p is of a two-sided permutation test (the rows' counts exchanged patient by patient) and is not corrected for
the number of comparisons. Neither includes the variation between seeds. With n patients, p is at least 2^(1 - n).
"""
COSTS_NOTE = """\
For one slice of the size trained on. The time is that of float32 torch on this machine's CPU, with all rows measured in
turn.
"""
COST_SCORES = ("dice", "sensitivity")
COST_COLUMNS = ("parameters", "GFLOP", "seconds a slice")


@dataclass(frozen=True)
class StudyResults:
    """Everything that the report of a study shows.

    Attributes:
        study: The study.
        jobs: Its trainings, done or not.
        results: Results of the rows that are done, under each protocol.
        comparisons: Comparisons of these rows.
        costs: {row: cost of its network} of these rows, in the study's order.
    """

    study: Study
    jobs: tuple[TrainingJob, ...]
    results: tuple[RowResult, ...]
    comparisons: tuple[Comparison, ...]
    costs: dict[str, Cost]

    @property
    def paper(self) -> dict[str, PaperScores | None]:
        """{row: scores that the paper reports, if any}."""
        return {row.name: row.paper for row in self.study.rows}


def write_study(study: Study, jobs: Sequence[TrainingJob], prepared: Path, folder: Path) -> tuple[Path, ...]:
    """Write the report of all trainings of a study that are done: all files or none.

    Args:
        study: The study.
        jobs: Its trainings, done or not.
        prepared: The prepared folder.
        folder: The study's folder.

    Returns:
        The files.

    Raises:
        DatasetError: The scores of a run are damaged, or the prepared folder is incomplete.
        OutputError: The folder cannot be written.
    """
    results = collect_results(study, jobs)
    done_rows = {result.row for result in results}
    configs = {job.row: job.config for job in jobs}
    rows = [row.name for row in study.rows if row.name in done_rows]
    costs = dict(zip(rows, measure_costs([configs[row] for row in rows]), strict=True))
    comparisons = tuple(comparison for subset in SUBSETS for comparison in compare_rows(results, subset))
    collected = StudyResults(study, tuple(jobs), results, comparisons, costs)

    compared = [_first_done(jobs, study.protocols[0], row) for row in study.figure]
    figures = {
        "learning-curves.png": draw_learning_curves(jobs),
        "figure-6.png": draw_comparison([job for job in compared if job], prepared),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    texts = {
        "study.md": "\n".join(_markdown(collected, list(drawn))),
        "table.csv": csv_text(_score_rows(collected), digits=DIGITS),
        "differences.csv": csv_text(_difference_rows(comparisons), digits=DIGITS),
    }
    contents = {name: text.encode() for name, text in texts.items()} | drawn
    return tuple(write_files(folder, contents, figures, known_by="study.md"))


def _first_done(jobs: Sequence[TrainingJob], protocol: str, row: str) -> TrainingJob | None:
    """Return the first job of a row that is done."""
    return next((job for job in jobs if (job.protocol, job.row) == (protocol, row) and job.done), None)


def _markdown(collected: StudyResults, figures: Sequence[str]) -> Iterator[str]:
    jobs = collected.jobs
    done = sum(job.done for job in jobs)
    yield f"# Study {collected.study.name}\n\n{done} of {len(jobs)} trainings done. {_origin(jobs)}\n\n{SCORES_NOTE}"
    for protocol in collected.study.protocols:
        yield from _protocol_section(collected, protocol)
    yield f"## Cost and scores of each row\n\n{COSTS_NOTE}"
    yield from _table(
        (
            "row",
            *(f"{protocol}: {HEADINGS[score]}" for protocol in collected.study.protocols for score in COST_SCORES),
            *COST_COLUMNS,
        ),
        (_cost_cells(collected, row) for row in collected.costs),
    )
    for name in figures:
        yield f"![{name}]({name})\n"


def _origin(jobs: Sequence[TrainingJob]) -> str:
    """Return the commits and machines of the runs as a sentence."""
    origins = set()
    for job in jobs:
        if job.done and (job.run / "machine.json").is_file():
            machine = json.loads((job.run / "machine.json").read_bytes())
            git = machine["git"] or {"commit": "unknown", "dirty": False}
            device = machine["gpu"] or f"{machine['threads']} CPU threads"
            origins.add(f"commit {git['commit'][:7]}{' (changed)' if git['dirty'] else ''} on {device}")
    return "; ".join(sorted(origins)).capitalize() + ("." if origins else "")


def _protocol_section(collected: StudyResults, protocol: str) -> Iterator[str]:
    """Yield heading, scores and differences of a protocol; nothing if no row is done."""
    results = [result for result in collected.results if result.protocol == protocol]
    if not results:
        return
    split = next(job.split for job in collected.jobs if job.protocol == protocol)
    leaky = " **Leaks: slices of a patient are on both sides.**" if split.leaky else ""
    yield f"## {protocol}\n\nSplit: {split.rule}.{leaky}\n"
    yield from _table(SCORES_HEADER, (_score_cells(result, collected.paper[result.row]) for result in results))
    yield from _table(
        DIFFERENCES_HEADER,
        (
            _difference_cells(comparison)
            for comparison in collected.comparisons
            if (comparison.protocol, comparison.subset) == (protocol, "lesion_slices")
        ),
        DIFFERENCES_NOTE,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> Iterator[str]:
    """Yield a Markdown table below its note; nothing without rows."""
    rows = list(rows)
    if rows:
        lines = markdown_table(header, rows, left=range(len(header)))
        yield "\n".join([note, *lines]).strip() + "\n"


def _score_cells(result: RowResult, paper: PaperScores | None) -> tuple[str, ...]:
    lesion = result.pooled_scores("lesion_slices")
    return (
        result.row,
        percent_interval(lesion["dice"]),
        percent_interval(lesion["sensitivity"]),
        percent_interval(lesion["specificity"]),
        percent_interval(result.mean_scores()["dice"]),
        percent_interval(result.pooled_scores("whole")["dice"]),
        " ".join(percent(dice) for dice in result.dice_by_seed("lesion_slices")),
        *((f"{getattr(paper, name):.1f}" for name in PAPER_SCORES) if paper else "---"),
    )


def _difference_cells(comparison: Comparison) -> tuple[str, ...]:
    difference = comparison.difference
    points = "-" if difference.value is None else f"{100 * difference.value:+.1f}"
    if difference.interval is not None:
        low, high = difference.interval
        points += f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return comparison.row, comparison.against, points, f"{comparison.p_value:.2g}", str(difference.patients)


def _cost_cells(collected: StudyResults, row: str) -> tuple[str, ...]:
    results = {result.protocol: result for result in collected.results if result.row == row}
    scores: list[str] = []
    for protocol in collected.study.protocols:
        pooled = results[protocol].pooled_scores("lesion_slices") if protocol in results else None
        scores += [percent(pooled[name].value) if pooled else "-" for name in COST_SCORES]
    cost = collected.costs[row]
    return row, *scores, f"{cost.parameters:,}", f"{cost.gflop:.1f}", f"{cost.seconds:.3f}"


def _score_rows(collected: StudyResults) -> Iterator[dict[str, Any]]:
    """Yield the rows of `table.csv`."""
    for result in collected.results:
        paper = collected.paper[result.row]
        reported = paper.model_dump() if paper else {}
        counted = {title: result.pooled_scores(subset) for subset, title in SUBSETS.items()}
        for title, scores in (counted | {"mean of lesion slices": result.mean_scores()}).items():
            for name, estimate in scores.items():
                yield {
                    "protocol": result.protocol,
                    "row": result.row,
                    "counted": title,
                    "score": name,
                    **_estimate_columns(estimate),
                    "seeds": len(result.seeds),
                    "paper_percent": reported.get(name) if title == SUBSETS["lesion_slices"] else None,
                }


def _difference_rows(comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `differences.csv`."""
    for comparison in comparisons:
        yield {
            "protocol": comparison.protocol,
            "row": comparison.row,
            "against": comparison.against,
            "counted": SUBSETS[comparison.subset],
            "score": "dice",
            **_estimate_columns(comparison.difference),
            "p": comparison.p_value,
        }


def _estimate_columns(estimate: Estimate) -> Mapping[str, Any]:
    low, high = estimate.interval or (None, None)
    return {"value": estimate.value, "low": low, "high": high, "patients": estimate.patients}
