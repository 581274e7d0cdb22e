"""Choosing the probability from which a pixel counts as lesion, on scans that folds held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split, sides_of
from groundglass.errors import DatasetError
from groundglass.inference.model_card import TrainedOn
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.provenance import open_run, training_exposure
from groundglass.training.run import THRESHOLDS, score


@dataclass(frozen=True)
class FoldThreshold:
    """A threshold that was chosen on scans which the folds of a recipe held out.

    Attributes:
        threshold: The probability from which a pixel counts as lesion.
        dice: {scan: Dice at this threshold}.
        exposure: The slices and patients on which it was chosen.
    """

    threshold: float
    dice: dict[str, float]
    exposure: TrainedOn

    @property
    def lines(self) -> list[str]:
        """The threshold and the Dice of each scan, to be printed."""
        scans = [f"  {scan} {100 * dice:.1f}" for scan, dice in self.dice.items()]
        return [f"threshold {self.threshold:g}, by the mean Dice of {len(self.dice)} held-out scans:", *scans]


def threshold_of_folds(folds: Sequence[Path], prepared: Path) -> FoldThreshold:
    """Choose the threshold for a model that was trained on all scans, from folds of its recipe.

    Each held-out scan has the same weight: pooled pixels would choose for the scan with most lesion alone.

    Args:
        folds: Finished runs.
        prepared: The folder that they were trained on.

    Returns:
        The threshold with the highest mean Dice over the held-out scans.

    Raises:
        ModelError: A run is not finished.
        DatasetError: A run held no scan out, or the folder is not the runs' own.
    """
    manifest, slices = read_prepared(prepared)
    dice: dict[str, list[float]] = {}
    chosen_on = TrainedOn()
    for fold in folds:
        module, card = open_run(fold, fold.name)
        split = Split.model_validate_json((fold / "split.json").read_bytes())
        sides = sides_of(split, slices)
        chosen_on |= training_exposure(split.test, sides.test, slices, manifest)
        held_out = slices.where(sides.test)
        for case in dict.fromkeys(held_out.case.tolist()):
            scan = held_out.where(held_out.case == case)
            batches = plain_batches(scan, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm)
            curve = score(module, batches, THRESHOLDS)
            dice[case] = [counts.dice or 0.0 for counts in curve]
    if not dice:
        raise DatasetError("the folds hold no scan out: train them on a split with a test part")
    best = int(np.mean(list(dice.values()), axis=0).argmax())
    return FoldThreshold(float(THRESHOLDS[best]), {case: curve[best] for case, curve in dice.items()}, chosen_on)
