"""What the folds of a recipe tell about it: the threshold, and how certain the burden is, on held-out scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import NOT_READ, Slices
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import DatasetError
from groundglass.inference.model_card import BurdenInterval, TrainedOn
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.finished_run import open_run
from groundglass.training.module import LesionModule
from groundglass.training.provenance import training_exposure
from groundglass.training.run import THRESHOLDS

OFFSET_PERCENT = 0.1  # of the lung, about 5 ml: what is marked in healthy lungs, and what readers hardly agree about
COVERAGE = 0.8


@dataclass(frozen=True)
class HeldOutScan:
    """A scan that a fold held out, as its network sees it.

    Attributes:
        case: Name of the scan.
        is_volume: Whether it is a scan, not a single picture.
        dice: (thresholds,) Dice with the first reader at each of `THRESHOLDS`.
        share: (thresholds,) share of the lung in percent that is marked at each of them.
        readers_share: Share of the lung in percent that each reader marked.
    """

    case: str
    is_volume: bool
    dice: NDArray[np.float64]
    share: NDArray[np.float64]
    readers_share: tuple[float, ...]


@dataclass(frozen=True)
class FoldCalibration:
    """Threshold and certainty of a recipe, from the scans that its folds held out.

    Attributes:
        threshold: The probability from which a pixel counts as lesion.
        dice: {scan: Dice at this threshold}.
        interval: How certain the share of lung is that lesion fills; None: too few scans.
        exposure: The data on which both were chosen.
    """

    threshold: float
    dice: dict[str, float]
    interval: BurdenInterval | None
    exposure: TrainedOn

    @property
    def lines(self) -> list[str]:
        """The lines that `export` prints: the threshold, the Dice of each scan, and the interval."""
        scans = [f"  {scan} {100 * dice:.1f}" for scan, dice in self.dice.items()]
        lines = [f"threshold {self.threshold:g}, chosen by the mean Dice of {len(self.dice)} held-out scans:", *scans]
        if self.interval is None:
            return [*lines, "no interval for the burden: it needs five held-out scans"]
        low, high = (f"{ratio:.2f}" for ratio in (self.interval.low, self.interval.high))
        return [
            *lines,
            f"share of lung: readers marked {low} to {high} times what is found; {self.interval.coverage:.0%} of "
            f"{self.interval.readings} readings lie in the interval that the other scans give",
        ]


def calibrate_on_folds(folds: Sequence[Path], prepared: Path, mirrored: bool = False) -> FoldCalibration:
    """Choose the threshold for a model that was trained on all scans, and its interval, from folds of its recipe.

    Such a model has no validation part that could choose an epoch, so the folds' last epochs stand for it.
    Each held-out scan has the same weight; pooled pixels would favour the scan with the most lesion. Single pictures
    count only if the folds hold out no scan: many pictures of much disease would outvote few scans.

    Args:
        folds: Finished runs.
        prepared: The prepared folder that they were trained on.
        mirrored: Average each prediction with that of the slice's mirror image.

    Returns:
        The threshold with the highest mean Dice over these scans, and the interval at that threshold.

    Raises:
        ModelError: A run is not finished.
        DatasetError: No run held a scan out, or the runs were trained on another folder.
    """
    manifest, slices = read_prepared(prepared)
    scans: dict[str, HeldOutScan] = {}
    exposure = TrainedOn()
    for fold in folds:
        module, card = open_run(fold, fold.name, last_epoch=True)
        split = Split.model_validate_json((fold / "split.json").read_bytes())
        parts = resolve_split(split, slices)
        exposure |= training_exposure(split.test, parts.test, slices, manifest)
        held_out = slices.where(parts.test)
        for case in dict.fromkeys(held_out.case.tolist()):
            scan = held_out.where(held_out.case == case)
            batches = plain_batches(scan, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm)
            probability = np.concatenate([lesion_probability(module, image, mirrored) for image, _ in batches])
            scans[case] = _held_out_scan(case, scan, probability)
    if not scans:
        raise DatasetError("no scan is held out by the folds: train them on splits with a test part")
    volumes = [scan for scan in scans.values() if scan.is_volume]
    chosen_on = volumes or list(scans.values())
    best = int(np.mean([scan.dice for scan in chosen_on], axis=0).argmax())
    dice = {scan.case: float(scan.dice[best]) for scan in chosen_on}
    return FoldCalibration(float(THRESHOLDS[best]), dice, burden_interval(volumes, best), exposure)


@torch.inference_mode()
def lesion_probability(module: LesionModule, image: torch.Tensor, mirrored: bool) -> NDArray[np.float32]:
    """Predict the probability of lesion, (N, H, W), of (N, 1 or 3, H, W) images."""
    probability = torch.sigmoid(module(image)[:, 0])
    if mirrored:
        probability = (probability + torch.sigmoid(module(image.flip(3))[:, 0]).flip(2)) / 2
    return np.asarray(probability.numpy())


def _held_out_scan(case: str, scan: Slices, probability: NDArray[np.float32]) -> HeldOutScan:
    truth = scan.labels > 0
    lung = max(1, int(truth.sum() if scan.lungs is None else scan.lungs.sum()))
    readings = [truth]
    if scan.second_reader is not None and (scan.second_reader != NOT_READ).all():
        readings.append(scan.second_reader == 1)
    return HeldOutScan(
        case=case,
        is_volume=bool(np.isfinite(scan.spacing_mm).all()),
        dice=np.array([Confusion.count(probability >= threshold, truth).dice or 0.0 for threshold in THRESHOLDS]),
        share=np.array([100 * np.count_nonzero(probability >= threshold) / lung for threshold in THRESHOLDS]),
        readers_share=tuple(100 * int(reading.sum()) / lung for reading in readings),
    )


def burden_interval(scans: Sequence[HeldOutScan], threshold: int) -> BurdenInterval | None:
    """Return the interval that holds the readings of 80 % of new scans; None for fewer than five scans.

    Args:
        scans: Scans that folds held out.
        threshold: Index of the threshold in `THRESHOLDS`.
    """
    if len(scans) < 5:
        return None
    ratios = {scan.case: list(_ratios(scan, threshold)) for scan in scans}
    covered = []
    for case, own in ratios.items():
        low, high = _conformal_ends([ratio for other, found in ratios.items() if other != case for ratio in found])
        covered += [low <= ratio <= high for ratio in own]
    low, high = _conformal_ends([ratio for found in ratios.values() for ratio in found])
    return BurdenInterval(
        offset_percent=OFFSET_PERCENT,
        low=round(low, 4),
        high=round(high, 4),
        readings=len(covered),
        coverage=round(float(np.mean(covered)), 4),
    )


def _ratios(scan: HeldOutScan, threshold: int) -> Iterator[float]:
    """Yield the share that each reader marked, relative to the one that is found."""
    for share in scan.readers_share:
        yield (share + OFFSET_PERCENT) / (float(scan.share[threshold]) + OFFSET_PERCENT)


def _conformal_ends(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the order statistics between which a further ratio lies with a probability of `COVERAGE` or more.

    Of n + 1 exchangeable ratios each is as likely to be the k-th smallest: cut off as many at either end as fit into
    half of 1 - COVERAGE.
    """
    ordered = sorted(ratios)
    cut = max(1, int((len(ordered) + 1) * (1 - COVERAGE) / 2 + 1e-9))
    return ordered[cut - 1], ordered[-cut]
