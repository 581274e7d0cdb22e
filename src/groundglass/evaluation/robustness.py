"""A model on whole volumes as they are, and changed as by scanners and exports that it has not seen.

Every changed volume is written as a file and scored by `evaluate`: it goes through the doors of a user's file.
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

from groundglass.data.catalogue import Case
from groundglass.data.slices import read_pair
from groundglass.errors import DatasetError, InputError
from groundglass.evaluation.evaluate import Target, evaluate
from groundglass.evaluation.tables import COUNTS, DIGITS, percent
from groundglass.evaluation.variants import VARIANTS, Variant, Volume
from groundglass.files import write_atomic
from groundglass.inference.model_card import read_card, write_card
from groundglass.inference.segmenter import Segmenter
from groundglass.io.nifti import write_scan
from groundglass.metrics import Confusion
from groundglass.report.findings import ModelRef
from groundglass.scan.scan import ImageStack
from groundglass.tables import csv_text, markdown_table

LARGEST_LOSS = 0.05  # of Dice: what loses more is marked


@dataclass(frozen=True)
class VariantResult:
    """What became of the volumes under one variant.

    Attributes:
        variant: Which.
        counts: {case: counts of every pixel of its slices}.
        refused: {case: why it was refused}.
    """

    variant: Variant
    counts: dict[str, Confusion] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def pooled(self) -> Confusion | None:
        """Counts of all volumes together; None where one was refused."""
        return None if self.refused else sum(self.counts.values(), Confusion())


@dataclass(frozen=True)
class Robustness:
    """A model's scores on the same volumes, changed one way after the other.

    Attributes:
        model: Name and sha256.
        threshold: A pixel is lesion from this probability on.
        outcomes: One for each variant; the first is what the others are compared with.
        warnings: What a reader of the scores has to know.
    """

    model: ModelRef
    threshold: float
    outcomes: tuple[VariantResult, ...]
    warnings: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        """Their names, in the order of the targets."""
        return tuple(self.outcomes[0].counts)

    @property
    def losing(self) -> tuple[VariantResult, ...]:
        """Those whose pooled Dice is lower by more than `LARGEST_LOSS`."""
        return tuple(outcome for outcome in self.outcomes if (self.difference(outcome) or 0.0) < -LARGEST_LOSS)

    @property
    def repeatability(self) -> float | None:
        """Coefficient of variation of a volume's lesions over what another scan of the same chest could differ by.

        The root mean square, over the volumes, of the standard deviation of the logarithm of their lesions' share of
        all voxels, over the first variant and those that are repeats. None where a repeat is missing or finds nothing.
        """
        repeats = [outcome for outcome in self.outcomes if outcome.variant.repeat or outcome is self.outcomes[0]]
        if len(repeats) < 2 or any(outcome.refused for outcome in repeats):
            return None
        found = np.array([[_share(outcome.counts[case]) for case in self.cases] for outcome in repeats])
        if not found.all():
            return None
        return float(np.sqrt(np.log(found).var(axis=0, ddof=1).mean()))

    def difference(self, outcome: VariantResult, case: str | None = None) -> float | None:
        """Dice less that of the first outcome, of one case or pooled; None where either is undefined or refused."""
        dice = [_dice(each.pooled if case is None else each.counts.get(case)) for each in (outcome, self.outcomes[0])]
        return None if dice[0] is None or dice[1] is None else dice[0] - dice[1]


def _share(counts: Confusion) -> float:
    true_positive, false_positive, *_ = counts.counts
    return (true_positive + false_positive) / sum(counts.counts)


def _dice(counts: Confusion | None) -> float | None:
    return counts.dice if counts else None


def measure_robustness(
    targets: Sequence[Target],
    segmenter: Segmenter,
    progress: Callable[[int, int], None] = lambda *_: None,
    warnings: tuple[str, ...] = (),
    variants: Sequence[Variant] = VARIANTS,
) -> Robustness:
    """Score a model on volumes as they are, and after each change.

    Args:
        targets: Whole volumes.
        segmenter: A loaded model.
        progress: Called with the changed volumes that are done, and their number.
        warnings: What a reader of the scores has to know.
        variants: The changes; the first is what the others are compared with.

    Raises:
        DatasetError: There is nothing to score, or a target is a picture, a stack of strangers, or only in part to be
            scored.
        InputError: A volume is refused as it is; the message starts with its name.
        OutputError: There is no room for temporary files.
    """
    if not targets:
        raise DatasetError("there is nothing to score: name whole volumes, such as --case 'volumes/*'")
    for target in targets:  # all are looked at before hours are spent on the first
        _whole(target)
    outcomes = tuple(VariantResult(variant) for variant in variants)
    done, total = 0, len(targets) * len(variants)
    for target in targets:
        volume = _whole(target)
        for outcome in outcomes:
            name = target.case.name
            try:
                outcome.counts[name] = _score(outcome.variant, volume, target, segmenter)
            except InputError as error:
                if outcome is outcomes[0]:
                    raise
                outcome.refused[name] = str(error).removeprefix(f"{name}: ")
            progress(done := done + 1, total)
    model = ModelRef(name=segmenter.card.name, sha256=segmenter.card.sha256)
    return Robustness(model, segmenter.card.threshold, outcomes, warnings)


def _whole(target: Target) -> Volume:
    case = target.case
    if case.unrelated_slices:
        raise DatasetError(f"{case.name} is a stack of slices of different patients, expected whole volumes")
    if target.slices is not None:
        raise DatasetError(f"{case.name} is to be scored in part, expected whole volumes")
    scan, labels = read_pair(case)
    if isinstance(scan, ImageStack):
        raise DatasetError(f"{case.name} is a picture, expected whole volumes of known spacing: leave it out")
    return Volume(scan, labels)


def _score(variant: Variant, volume: Volume, target: Target, segmenter: Segmenter) -> Confusion:
    """Counts of a changed volume, written to files that are removed again."""
    changed = variant(volume, target.case.name)
    with tempfile.TemporaryDirectory(prefix="groundglass-") as folder:
        case: Case = replace(target.case, image=Path(folder, "ct.nii"), lesion=Path(folder, "mask.nii"))
        write_scan(changed.scan, case.image)
        write_scan(changed.holding(changed.labels).scan, case.lesion)
        (score,) = evaluate([replace(target, case=case)], segmenter).cases
    return score.pooled["whole"]


def robustness_table(robustness: Robustness) -> Table:
    """For a terminal: a row a variant, in percent; what loses more than `LARGEST_LOSS` is red and ends in !."""
    table = Table(*_HEAD, *robustness.cases, caption=_caption())
    losing = robustness.losing
    for outcome in robustness.outcomes:
        style = "bold red" if outcome in losing else "yellow" if outcome.refused else ""
        table.add_row(*(Text(cell) for cell in _row(robustness, outcome)), style=style)
    return table


_HEAD = ("variant", "Dice", "difference", "sensitivity", "specificity")


def _caption() -> str:
    return f"percent, pooled; ! more than {100 * LARGEST_LOSS:g} points of Dice lost; a column a volume: its Dice"


def _row(robustness: Robustness, outcome: VariantResult) -> list[str]:
    """Cells of `_HEAD`, and the Dice of every case; a refusal stands with the name."""
    reasons = "; ".join(f"{case}: {reason}" for case, reason in outcome.refused.items())
    difference, pooled = robustness.difference(outcome), outcome.pooled
    lost = " !" if outcome in robustness.losing else ""
    return [
        outcome.variant.name + (f" (refused: {reasons})" if reasons else ""),
        percent(_dice(pooled)),
        "-" if difference is None else f"{100 * difference:+z.1f}{lost}",
        percent(pooled.sensitivity if pooled else None),
        percent(pooled.specificity if pooled else None),
        *(percent(_dice(outcome.counts.get(case))) for case in robustness.cases),
    ]


def write_repeatability(model: Path, robustness: Robustness) -> None:
    """Put the repeatability into the card beside a model.

    Raises:
        DatasetError: It could not be measured: a volume was refused, or holds no lesion.
    """
    if robustness.repeatability is None:
        raise DatasetError("the repeatability cannot be measured: a changed volume was refused, or nothing found in it")
    write_card(model, read_card(model).model_copy(update={"repeatability": round(robustness.repeatability, 4)}))


def write_robustness(robustness: Robustness, folder: Path, command: str) -> list[Path]:
    """Write robustness.md and robustness.csv into a folder, which is made if need be.

    Args:
        robustness: What was measured.
        folder: Where to.
        command: By which it can be done again.

    Returns:
        The files.

    Raises:
        OutputError: The folder cannot be written.
    """
    texts = {
        "robustness.md": _markdown(robustness, command),
        "robustness.csv": csv_text(_csv_rows(robustness), digits=DIGITS),
    }
    for name, text in texts.items():
        write_atomic(folder / name, text.encode(errors="backslashreplace"))
    return [folder / name for name in texts]


def _markdown(robustness: Robustness, command: str) -> str:
    head = [*_HEAD, *robustness.cases, "stands for"]
    rows = [[*_row(robustness, outcome), outcome.variant.stands_for] for outcome in robustness.outcomes]
    lines = [
        f"# {robustness.model.name} on changed volumes",
        "",
        f"    {command}",
        "",
        f"Model sha256 {robustness.model.sha256}; lesion from a probability of {robustness.threshold:g} on. "
        f"Volumes: {len(robustness.cases)}, every slice. Scores in {_caption()}; difference in points to "
        f"'{robustness.outcomes[0].variant.name}'; - refused or undefined. Research use, not a medical device.",
        *(f"\n**Warning: {warning}.**" for warning in robustness.warnings),
        "",
        f"Coefficient of variation of a volume's lesions over simulated repeats of its scan: "
        f"{percent(robustness.repeatability)} %.",
        "",
        *markdown_table(head, rows, left=(0, -1)),
    ]
    return "\n".join(lines) + "\n"


def _csv_rows(robustness: Robustness) -> Iterator[dict[str, Any]]:
    """A row for each variant and case, and one for each variant over all of them."""
    for outcome in robustness.outcomes:
        for case in (None, *robustness.cases):
            counts = outcome.pooled if case is None else outcome.counts.get(case)
            refused = "; ".join(outcome.refused) if case is None else outcome.refused.get(case)
            yield {
                "variant": outcome.variant.name,
                "case": case or "pooled",
                "refused": refused,
                **dict.fromkeys(COUNTS),
                **(dict(zip(COUNTS, counts.counts, strict=True)) if counts else {}),
                **(counts or Confusion()).scores,
                "dice_difference": robustness.difference(outcome, case),
            }
