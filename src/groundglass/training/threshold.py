"""The choice of the probability from which a pixel counts as lesion, on scans that folds held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import DatasetError
from groundglass.inference.model_card import TrainedOn
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.finished_run import open_run
from groundglass.training.provenance import training_exposure
from groundglass.training.run import THRESHOLDS, score


@dataclass(frozen=True)
class FoldThreshold:
    """A threshold chosen on the scans that the folds of a recipe held out.

    Attributes:
        threshold: The probability from which a pixel counts as lesion.
        dice: {scan: Dice at this threshold}.
        exposure: The data on which it was chosen.
    """

    threshold: float
    dice: dict[str, float]
    exposure: TrainedOn

    @property
    def lines(self) -> list[str]:
        """The lines that `export` prints: the threshold, and the Dice of each scan."""
        scans = [f"  {scan} {100 * dice:.1f}" for scan, dice in self.dice.items()]
        return [f"threshold {self.threshold:g}, chosen by the mean Dice of {len(self.dice)} held-out scans:", *scans]


def choose_threshold(folds: Sequence[Path], prepared: Path) -> FoldThreshold:
    """Choose the threshold for a model that was trained on all scans, from folds of its recipe.

    Each held-out scan has the same weight; pooled pixels would favour the scan with the most lesion.

    Args:
        folds: Finished runs.
        prepared: The prepared folder that they were trained on.

    Returns:
        The threshold with the highest mean Dice over the held-out scans.

    Raises:
        ModelError: A run is not finished.
        DatasetError: No run held a scan out, or the runs were trained on another folder.
    """
    manifest, slices = read_prepared(prepared)
    dice: dict[str, list[float]] = {}
    exposure = TrainedOn()
    for fold in folds:
        module, card = open_run(fold, fold.name)
        split = Split.model_validate_json((fold / "split.json").read_bytes())
        parts = resolve_split(split, slices)
        exposure |= training_exposure(split.test, parts.test, slices, manifest)
        held_out = slices.where(parts.test)
        for case in dict.fromkeys(held_out.case.tolist()):
            scan = held_out.where(held_out.case == case)
            batches = plain_batches(scan, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm)
            curve = score(module, batches, THRESHOLDS)
            dice[case] = [confusion.dice or 0.0 for confusion in curve]
    if not dice:
        raise DatasetError("no scan is held out by the folds: train them on splits with a test part")
    best = int(np.mean(list(dice.values()), axis=0).argmax())
    return FoldThreshold(float(THRESHOLDS[best]), {case: curve[best] for case, curve in dice.items()}, exposure)
