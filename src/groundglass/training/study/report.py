"""What a study found, as files: Table 1 beside the paper's, its curves, its Figure 6.

STUDY/
    study.md                      tables: scores, differences between rows, costs
    table.csv  differences.csv    the same for programs
    learning-curves.png
    figure-6.png                  shows real slices: keep it where the data is kept
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundglass.evaluation.intervals import Estimate
from groundglass.evaluation.tables import DIGITS, HEADINGS, percent, percent_interval
from groundglass.files import write_atomic
from groundglass.tables import csv_text, markdown_table
from groundglass.training.study.costs import Cost, measure_costs
from groundglass.training.study.figures import comparison, learning_curves
from groundglass.training.study.plan import PaperScores, Study, StudyRow, TrainingJob
from groundglass.training.study.results import KINDS, Comparison, RowResult, compare, gather

HEADING = (
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
COSTS_NOTE = """\
Of a slice of the size trained on; the time in float32 torch on this machine's CPU, all rows in turns in one call.
"""
BESIDE_COSTS = ("dice", "sensitivity")
COSTS = ("parameters", "GFLOP", "seconds a slice")
SHOWN = ("dice", "sensitivity", "specificity")
NOTES = """\
Scores in percent. "Lesion slices": pixels of all test slices that show lesion together, as the paper has no others;
"mean": of those slices' scores; "every slice": lesion-free slices count too. In brackets 95 % intervals over the test's
patients. With several seeds the counts are added up, and each seed's Dice is given. The paper does not say whether it
pools or averages.
"""
DIFFERENCES = """\
Row minus the row it is held against, in points of Dice, pooled over lesion slices; intervals over patients, p of a
two-sided permutation test (the rows' counts exchanged patient by patient), not corrected for the number of comparisons.
Neither covers what another seed would give. With n patients p is never below 2^(1 - n).
"""


def write_study(study: Study, jobs: Sequence[TrainingJob], prepared: Path, folder: Path) -> tuple[Path, ...]:
    """Write everything that is done of a study into its folder.

    Args:
        study: What was asked for.
        jobs: Its trainings, done or not.
        prepared: The prepared folder.
        folder: The study's folder.

    Returns:
        The files.

    Raises:
        DatasetError: A run's scores are damaged, or the prepared folder is not whole.
        OutputError: The folder cannot be written.
    """
    results = gather(study, jobs)
    differences = tuple(each for kind in KINDS for each in compare(results, kind))
    rows = [row for row in study.rows if any(result.row == row.name for result in results)]
    configs = {job.row: job.config for job in jobs}
    costs = dict(zip((row.name for row in rows), measure_costs([configs[row.name] for row in rows]), strict=True))
    shown = [_run_of(jobs, study.protocols[0], row) for row in study.figure]
    figures = {
        "learning-curves.png": learning_curves(jobs),
        "figure-6.png": comparison([job for job in shown if job is not None], prepared),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    texts = {
        "study.md": "\n".join(_markdown(study, jobs, rows, results, differences, costs, list(drawn))),
        "table.csv": csv_text(_score_rows(results, {row.name: row.paper for row in rows}), digits=DIGITS),
        "differences.csv": csv_text(_difference_rows(differences), digits=DIGITS),
    }
    contents = {name: text.encode() for name, text in texts.items()} | drawn
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return tuple(folder / name for name in contents)


def _run_of(jobs: Sequence[TrainingJob], protocol: str, row: str) -> TrainingJob | None:
    """The first finished run of a row."""
    done = (job for job in jobs if (job.protocol, job.row) == (protocol, row) and job.done)
    return next(done, None)


def _markdown(
    study: Study,
    jobs: Sequence[TrainingJob],
    rows: Sequence[StudyRow],
    results: Sequence[RowResult],
    differences: Sequence[Comparison],
    costs: dict[str, Cost],
    figures: Sequence[str],
) -> Iterator[str]:
    done = sum(job.done for job in jobs)
    yield f"# Study {study.name}\n\n{done} of {len(jobs)} trainings done. {_made_at(jobs)}\n\n{NOTES}"
    paper = {row.name: row.paper for row in rows}
    for protocol in study.protocols:
        here = [result for result in results if result.protocol == protocol]
        if not here:
            continue
        split = next(job.split for job in jobs if job.protocol == protocol)
        leaks = " **Leaks: slices of a patient are on both sides.**" if split.leaky else ""
        yield f"## {protocol}\n\nSplit: {split.rule}.{leaks}\n"
        yield from _section(
            HEADING,
            (_score_row(result, paper[result.row]) for result in here),
        )
        yield from _section(
            ("row", "against", "difference in Dice", "p", "patients"),
            (
                (each.row, each.against, _points(each.difference), f"{each.p_value:.2g}", str(each.difference.patients))
                for each in differences
                if each.protocol == protocol and each.kind == "lesion_slices"
            ),
            DIFFERENCES,
        )
    yield f"## What a row costs, and what it gives\n\n{COSTS_NOTE}"
    yield from _section(
        ("row", *(f"{protocol}: {HEADINGS[score]}" for protocol in study.protocols for score in BESIDE_COSTS), *COSTS),
        (
            (
                row.name,
                *(cell for protocol in study.protocols for cell in _beside_costs(results, protocol, row.name)),
                f"{costs[row.name].parameters:,}",
                f"{costs[row.name].gflop:.1f}",
                f"{costs[row.name].seconds:.3f}",
            )
            for row in rows
        ),
    )
    for name in figures:
        yield f"![{name}]({name})\n"


def _beside_costs(results: Sequence[RowResult], protocol: str, row: str) -> Iterator[str]:
    scores = next(
        (each.pooled("lesion_slices") for each in results if (each.protocol, each.row) == (protocol, row)), {}
    )
    yield from (percent(scores[name].value) if scores else "-" for name in BESIDE_COSTS)


def _made_at(jobs: Sequence[TrainingJob]) -> str:
    """The commits and machines of the runs."""
    states = set()
    for job in jobs:
        if job.done and (job.run / "machine.json").is_file():
            machine = json.loads((job.run / "machine.json").read_bytes())
            git = machine["git"] or {"commit": "unknown", "dirty": False}
            device = machine["gpu"] or f"{machine['threads']} CPU threads"
            states.add(f"commit {git['commit'][:7]}{' (changed)' if git['dirty'] else ''} on {device}")
    return "; ".join(sorted(states)).capitalize() + ("." if states else "")


def _score_row(result: RowResult, paper: PaperScores | None) -> tuple[str, ...]:
    lesion = result.pooled("lesion_slices")
    return (
        result.row,
        percent_interval(lesion["dice"]),
        percent_interval(lesion["sensitivity"]),
        percent_interval(lesion["specificity"]),
        percent_interval(result.mean_of_slices()["dice"]),
        percent_interval(result.pooled("whole")["dice"]),
        " ".join(percent(dice) for dice in result.dice_of_seeds("lesion_slices")),
        *((f"{getattr(paper, name):.1f}" for name in SHOWN) if paper else "---"),
    )


def _points(difference: Estimate) -> str:
    if difference.value is None:
        return "-"
    shown = f"{100 * difference.value:+.1f}"
    if difference.interval is None:
        return shown
    low, high = difference.interval
    return f"{shown} ({100 * low:+.1f} to {100 * high:+.1f})"


def _section(heading: Sequence[str], rows: Iterable[Sequence[str]], above: str = "") -> Iterator[str]:
    """A Markdown table and the text above it; nothing without rows."""
    rows = list(rows)
    if rows:
        table = markdown_table(heading, rows, left=range(len(heading)))
        yield "\n".join([above, *table]).strip() + "\n"


def _score_rows(results: Sequence[RowResult], paper: Mapping[str, PaperScores | None]) -> Iterator[dict[str, Any]]:
    for result in results:
        theirs = paper[result.row]
        reported = theirs.model_dump() if theirs else {}
        counted = {title: result.pooled(kind) for kind, title in KINDS.items()}
        for title, scores in (counted | {"mean of lesion slices": result.mean_of_slices()}).items():
            for name, estimate in scores.items():
                yield {
                    "protocol": result.protocol,
                    "row": result.row,
                    "counted": title,
                    "score": name,
                    **_value(estimate),
                    "seeds": len(result.seeds),
                    "paper_percent": reported.get(name) if title == KINDS["lesion_slices"] else None,
                }


def _difference_rows(differences: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    for each in differences:
        yield {
            "protocol": each.protocol,
            "row": each.row,
            "against": each.against,
            "counted": KINDS[each.kind],
            "score": "dice",
            **_value(each.difference),
            "p": each.p_value,
        }


def _value(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval or (None, None)
    return {"value": estimate.value, "low": low, "high": high, "patients": estimate.patients}
