"""Scores of a model on whole volumes, unchanged and changed as other scanners and exports would change them.

Every changed volume is written to a file and scored by `evaluate`, so that it is read and segmented like a user's file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from groundglass.data.case import Case
from groundglass.data.case_files import read_case
from groundglass.errors import DatasetError, InputError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.tables import COUNTS, DIGITS, percent
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.evaluation.variants import VARIANTS, Variant, Volume
from groundglass.files import refuse_strangers, write_files
from groundglass.inference.model_card import read_card, write_card
from groundglass.inference.segmenter import Segmenter
from groundglass.io.nifti import write_scan
from groundglass.metrics import Confusion
from groundglass.plain_text import inert_markdown, printable
from groundglass.report.findings import ModelRef
from groundglass.scan.scan import ImageStack
from groundglass.tables.writing import csv_text, markdown_table

TABLE, KNOWN_BY = "robustness.csv", "robustness.md"
MAX_DICE_LOSS = 0.05  # variants that lose more are marked


@dataclass(frozen=True)
class VariantResult:
    """Scores of the volumes under one variant.

    Attributes:
        variant: The change that was made.
        counts: {case: counts of every pixel of its slices}.
        refused: {case: reason why the changed volume was refused}.
    """

    variant: Variant
    counts: dict[str, Confusion] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def pooled_counts(self) -> Confusion | None:
        """Counts added over all volumes; None if one was refused."""
        return None if self.refused else sum(self.counts.values(), Confusion())


@dataclass(frozen=True)
class Robustness:
    """Scores of a model on the same volumes under several variants.

    Attributes:
        model: Name and sha256 of the model.
        threshold: Probability from which a pixel is lesion.
        results: One for each variant; the others are compared with the first.
        warnings: Warnings that belong with the scores, such as those of `training_warnings`.
    """

    model: ModelRef
    threshold: float
    results: tuple[VariantResult, ...]
    warnings: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases, in the order of the targets."""
        return tuple(self.results[0].counts)

    @property
    def degraded(self) -> tuple[VariantResult, ...]:
        """The results whose pooled Dice is lower than the first by more than `MAX_DICE_LOSS`."""
        return tuple(result for result in self.results if (self.dice_difference(result) or 0.0) < -MAX_DICE_LOSS)

    @property
    def repeatability(self) -> float | None:
        """Coefficient of variation of a volume's lesions between simulated repeat scans of the same chest.

        The standard deviation of the logarithm of the predicted share of all voxels, over the first variant and those
        that are repeats, as the root mean square over the volumes. None if there is no repeat, a repeat was refused, or
        nothing was predicted in one.
        """
        repeats = [result for result in self.results if result.variant.repeat or result is self.results[0]]
        if len(repeats) < 2 or any(result.refused for result in repeats):
            return None
        shares = np.array([[_predicted_share(result.counts[case]) for case in self.cases] for result in repeats])
        if not shares.all():
            return None
        return float(np.sqrt(np.log(shares).var(axis=0, ddof=1).mean()))

    def dice_difference(self, result: VariantResult, case: str | None = None) -> float | None:
        """Subtract the Dice of the first result, for one case or pooled; None if either is undefined or refused."""
        dice, first = (
            _dice(each.pooled_counts if case is None else each.counts.get(case)) for each in (result, self.results[0])
        )
        return None if dice is None or first is None else dice - first


def _predicted_share(counts: Confusion) -> float:
    """Share of all pixels that are predicted as lesion."""
    true_positive, false_positive, *_ = counts.counts
    return (true_positive + false_positive) / sum(counts.counts)


def _dice(counts: Confusion | None) -> float | None:
    return counts.dice if counts else None


def measure_robustness(
    targets: Sequence[EvaluationTarget],
    segmenter: Segmenter,
    progress: Callable[[int, int], None] = lambda *_: None,
    warnings: tuple[str, ...] = (),
    variants: Sequence[Variant] = VARIANTS,
) -> Robustness:
    """Score a model on volumes under each variant.

    Args:
        targets: Whole volumes.
        segmenter: A loaded model.
        progress: Called with the number of changed volumes done and the number of all.
        warnings: Warnings that belong with the scores, such as those of `training_warnings`.
        variants: The changes; the others are compared with the first.

    Raises:
        DatasetError: There is nothing to score, or a target is a picture, a stack of slices of different patients, or
            restricted to some slices.
        InputError: A volume is refused under the first variant; the message starts with its name.
        OutputError: The disk has no space for temporary files.
    """
    if not targets:
        raise DatasetError("there is nothing to score: name whole volumes, such as --case 'volumes/*'")
    for target in targets:  # checks all targets before hours are spent on the first
        _read_volume(target)
    results = tuple(VariantResult(variant) for variant in variants)
    done, total = 0, len(targets) * len(variants)
    for target in targets:
        volume, name = _read_volume(target), target.case.name
        for result in results:
            try:
                result.counts[name] = _score_variant(result.variant, volume, target, segmenter)
            except InputError as error:
                if result is results[0]:
                    raise
                result.refused[name] = str(error).removeprefix(f"{name}: ")
            progress(done := done + 1, total)
    model = ModelRef(name=segmenter.card.name, sha256=segmenter.card.sha256)
    return Robustness(model, segmenter.card.threshold, results, warnings)


def _read_volume(target: EvaluationTarget) -> Volume:
    case = target.case
    if case.unrelated_slices:
        raise DatasetError(f"{case.name} is a stack of slices of different patients, expected whole volumes")
    if target.slices is not None:
        raise DatasetError(f"only some slices of {case.name} are to be scored, expected whole volumes")
    scan, labels = read_case(case)
    if isinstance(scan, ImageStack):
        raise DatasetError(f"{case.name} is a picture, expected whole volumes of known spacing: leave it out")
    if not (scan.geometry.in_mm and scan.geometry.has_directions):
        raise DatasetError(
            f"{case.name} states no {'directions' if scan.geometry.in_mm else 'spacing'}, without which it cannot be "
            "changed as scanners do: save it with its affine, or leave it out"
        )
    return Volume(scan, labels)


def _score_variant(variant: Variant, volume: Volume, target: EvaluationTarget, segmenter: Segmenter) -> Confusion:
    """Change a volume, write it to temporary files, and count its pixels as `evaluate` does."""
    changed = variant(volume, target.case.name)
    with tempfile.TemporaryDirectory(prefix="groundglass-") as folder:
        case: Case = replace(target.case, image=Path(folder, "ct.nii"), mask=Path(folder, "mask.nii"))
        write_scan(changed.scan, case.image)
        write_scan(changed.with_values(changed.labels).scan, case.mask)
        (score,) = evaluate([replace(target, case=case)], segmenter).cases
    return score.pooled_counts["whole"]


def robustness_table(robustness: Robustness) -> Table:
    """Tabulate for a terminal, in percent, one row for each variant; a loss of more than `MAX_DICE_LOSS` is marked."""
    table = Table(*_HEAD, *robustness.cases, caption=_caption())
    degraded = robustness.degraded
    for result in robustness.results:
        style = "bold red" if result in degraded else "yellow" if result.refused else ""
        table.add_row(*(Text(cell) for cell in _row(robustness, result)), style=style)
    return table


_HEAD = ("variant", "Dice", "difference", "sensitivity", "specificity")


def _caption() -> str:
    return (
        f"percent, pooled; ! marks a loss of more than {100 * MAX_DICE_LOSS:g} points of Dice; "
        "the last columns are the Dice of each volume"
    )


def _row(robustness: Robustness, result: VariantResult) -> list[str]:
    """Format the cells of `_HEAD` and the Dice of every case; reasons of refusals follow the name."""
    reasons = "; ".join(f"{case}: {reason}" for case, reason in result.refused.items())
    difference, pooled = robustness.dice_difference(result), result.pooled_counts
    mark = " !" if result in robustness.degraded else ""
    return [
        result.variant.name + (f" (refused: {reasons})" if reasons else ""),
        percent(_dice(pooled)),
        "-" if difference is None else f"{100 * difference:+z.1f}{mark}",
        percent(pooled.sensitivity if pooled else None),
        percent(pooled.specificity if pooled else None),
        *(percent(_dice(result.counts.get(case))) for case in robustness.cases),
    ]


def write_repeatability(model: Path, robustness: Robustness) -> None:
    """Write the repeatability into the card beside a model.

    Raises:
        DatasetError: The repeatability could not be measured: a volume was refused, or nothing was predicted in it.
    """
    if robustness.repeatability is None:
        raise DatasetError(
            "the repeatability cannot be measured: a changed volume was refused, or nothing was found in it"
        )
    write_card(model, read_card(model).model_copy(update={"repeatability": round(robustness.repeatability, 4)}))


def refuse_other_files(folder: Path) -> None:
    """Refuse a folder in which a report would replace a table of others, before hours of scoring.

    Raises:
        OccupiedError: It holds one.
    """
    refuse_strangers(folder, (TABLE,), KNOWN_BY)


def write_robustness(robustness: Robustness, folder: Path, command: str) -> list[Path]:
    """Write robustness.md and robustness.csv into a folder, which is created if it does not exist: both or none.

    Args:
        robustness: The scores to write.
        folder: The folder to write to.
        command: The command that repeats the scoring.

    Returns:
        The files written.

    Raises:
        OutputError: The folder cannot be written, or holds a robustness.csv of others; it is as it was before.
    """
    texts = {
        KNOWN_BY: _markdown(robustness, command),
        TABLE: csv_text(_csv_rows(robustness), digits=DIGITS),
    }
    files = {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    return write_files(folder, files, known_by=KNOWN_BY)


def _markdown(robustness: Robustness, command: str) -> str:
    head = [*_HEAD, *robustness.cases, "stands for"]
    rows = [[*_row(robustness, result), result.variant.stands_for] for result in robustness.results]
    lines = [
        f"# {inert_markdown(robustness.model.name)} on changed volumes",
        "",
        f"    {printable(command)}",
        "",
        f"Model sha256 {robustness.model.sha256}; a pixel is lesion from a probability of {robustness.threshold:g}. "
        f"Volumes: {len(robustness.cases)}, every slice. Scores are in {_caption()}; differences are in points to "
        f"'{robustness.results[0].variant.name}'; - is refused or undefined. Research use, not a medical device.",
        *(f"\n**Warning: {inert_markdown(warning)}.**" for warning in robustness.warnings),
        "",
        f"Coefficient of variation of a volume's lesions over simulated repeats of its scan: "
        f"{percent(robustness.repeatability)} %.",
        "",
        *markdown_table(head, rows, left=(0, -1)),
    ]
    return "\n".join(lines) + "\n"


def _csv_rows(robustness: Robustness) -> Iterator[dict[str, Any]]:
    """Yield, for each variant, a row for all cases together and a row for each case."""
    for result in robustness.results:
        for case in (None, *robustness.cases):
            counts = result.pooled_counts if case is None else result.counts.get(case)
            refused = "; ".join(result.refused) if case is None else result.refused.get(case)
            yield {
                "variant": result.variant.name,
                "case": case or "pooled",
                "refused": refused,
                **dict.fromkeys(COUNTS),
                **(dict(zip(COUNTS, counts.counts, strict=True)) if counts else {}),
                **(counts or Confusion()).scores,
                "dice_difference": robustness.dice_difference(result, case),
            }
