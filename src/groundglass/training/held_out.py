"""What the folds of a recipe tell about it: the threshold, and how certain the burden is, on held-out scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import NOT_READ, Slices
from groundglass.data.splits import Split, read_split, resolve_split
from groundglass.errors import DatasetError
from groundglass.inference.density_rules import apply_density_rules
from groundglass.inference.model_card import BurdenInterval, ModelCard, TrainedOn
from groundglass.inference.smoothing import smooth_between_slices
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.finished_run import open_run
from groundglass.training.module import LesionModule
from groundglass.training.provenance import training_exposure
from groundglass.training.run import THRESHOLDS

SMOOTHING_MM, LIGHT_HU, SMALLEST_ML = 2.5, -500.0, 0.05  # of models whose threshold folds chose; docs/history.md
OFFSET_PERCENT = 0.1  # of the lung, about 5 ml: what is marked in healthy lungs, and what readers hardly agree about
COVERAGE = 0.8


@dataclass(frozen=True)
class HeldOutScan:
    """A scan or picture that a fold held out, as its network sees it.

    Attributes:
        case: Name of the scan.
        patient: Its patient group.
        is_volume: Whether it is a scan, not a single picture.
        dice: (thresholds,) Dice with the first reader at each of `THRESHOLDS`.
        share: (thresholds,) share of the lung in percent that is marked at each of them.
        readers_share: Share of the lung in percent that each reader marked.
    """

    case: str
    patient: str
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
        mean = 100 * np.mean(list(self.dice.values()))
        lines = [f"threshold {self.threshold:g}, mean Dice of {len(self.dice)} held-out scans {mean:.1f}:", *scans]
        if self.interval is None:
            return [*lines, "no interval for the burden: it needs five held-out scans"]
        low, high = (f"{ratio:.2f}" for ratio in (self.interval.low, self.interval.high))
        return [
            *lines,
            f"share of lung: readers marked {low} to {high} times what is found; {self.interval.coverage:.0%} of what "
            f"they marked in {self.interval.scans} scans lies in the interval that other patients give",
        ]


def calibrate_on_folds(
    folds: Sequence[Path], prepared: Path, mirrored: bool = False, threshold: float | None = None
) -> FoldCalibration:
    """Choose the threshold for a model that was trained on all scans, and its interval, from folds of its recipe.

    Such a model has no validation part that could choose an epoch, so the folds' last epochs stand for it.
    Each held-out scan with lesion has the same weight; pooled pixels would favour the scan with the most lesion. Single
    pictures count only if the folds hold out no scan: many pictures of much disease would outvote few scans.

    Args:
        folds: Finished runs; of two on one split, the second one predicts the mirror images.
        prepared: The prepared folder that they were trained on.
        mirrored: Average each prediction with that of the slice's mirror image.
        threshold: One of `THRESHOLDS` (else the nearest) that is taken whatever the folds tell.

    Returns:
        The threshold with the highest mean Dice over these scans, and the interval at that threshold.

    Raises:
        ModelError: A run is not finished.
        DatasetError: No run held a scan out, none that was shows lesion, or the runs were trained on another folder.
    """
    manifest, slices = read_prepared(prepared)
    scans: dict[str, HeldOutScan] = {}
    exposure = TrainedOn()
    opened = {fold: open_run(fold, fold.name, last_epoch=True) for fold in folds}
    for split, runs in _by_split(folds, 2 if mirrored else 1):
        (module, card), *mirrors = [opened[run] for run in runs]
        card, mirror = calibrated_card(card, mirrored), mirrors[0][0] if mirrors else None
        parts = resolve_split(split, slices)
        exposure |= training_exposure(split.test, parts.test, slices, manifest)
        held_out = slices.where(parts.test)
        for case in dict.fromkeys(held_out.case.tolist()):
            scan = held_out.where(held_out.case == case)
            scans[case] = _held_out_scan(case, scan, predict_scan(module, scan, card, mirror)[:, 0])
    if not scans:
        raise DatasetError("no scan is held out by the folds: train them on splits with a test part")
    chosen_on = deciding_scans(tuple(scans.values()))
    mean_dice = np.mean([scan.dice for scan in chosen_on], axis=0)
    best = int(mean_dice.argmax() if threshold is None else np.abs(THRESHOLDS - threshold).argmin())
    dice = {scan.case: float(scan.dice[best]) for scan in chosen_on}
    return FoldCalibration(float(THRESHOLDS[best]), dice, burden_interval(tuple(scans.values()), best), exposure)


def _by_split(folds: Sequence[Path], most: int) -> Iterator[tuple[Split, list[Path]]]:
    """Yield each split with the runs on it.

    Raises:
        ConfigError: A run has no split.
        DatasetError: A split has more than `most` runs.
    """
    runs: dict[str, list[Path]] = {}
    for fold in folds:
        runs.setdefault(read_split(fold / "split.json").model_dump_json(), []).append(fold)
    for text, of_split in runs.items():
        if len(of_split) > most:
            raise DatasetError(
                f"{', '.join(map(str, of_split))} hold out the same scans: give one of them, or with --mirrored two, "
                "of which the second predicts the mirror images"
            )
        yield Split.model_validate_json(text), of_split


def deciding_scans(held_out: Sequence[HeldOutScan]) -> list[HeldOutScan]:
    """Return those that a threshold is chosen by: scans with lesion, or without any the pictures with lesion.

    Where a reader marked none, Dice is 0 or undefined, whatever the threshold.

    Raises:
        DatasetError: None shows lesion.
    """
    with_lesion = [scan for scan in held_out if scan.readers_share[0]]
    if not with_lesion:
        raise DatasetError("no scan that the folds hold out shows lesion, by which a threshold could be chosen")
    return [scan for scan in with_lesion if scan.is_volume] or with_lesion


def calibrated_card(card: ModelCard, mirrored: bool) -> ModelCard:
    """Return the card of a run with the rules by which folds are predicted, and the model that they calibrate."""
    rules = {"smoothing_mm": SMOOTHING_MM, "light_hu": LIGHT_HU, "smallest_ml": SMALLEST_ML}
    return card.model_copy(update={"mirrored": mirrored, **rules})


@torch.inference_mode()
def predict_scan(
    module: LesionModule, scan: Slices, card: ModelCard, mirror: LesionModule | None = None
) -> NDArray[np.float32]:
    """Predict the probabilities of a scan's slices, or of a picture, by the rules of a card.

    Args:
        module: The network.
        scan: The slices.
        card: The card.
        mirror: The network that predicts the mirror images; None: the same one.

    Returns:
        (n, maps, height, width); the first map is lesion.
    """
    batches = []
    for image, _ in plain_batches(scan, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm):
        probability = torch.sigmoid(module(image))
        if card.mirrored:
            probability = (probability + torch.sigmoid((mirror or module)(image.flip(3))).flip(3)) / 2
        batches.append(apply_density_rules(probability.numpy(), image.numpy(), card))
    probabilities = np.concatenate(batches)
    if not np.isfinite(scan.spacing_mm).all():
        return probabilities
    numbered = zip(scan.number.tolist(), probabilities, strict=True)
    return np.stack(list(smooth_between_slices(numbered, float(scan.spacing_mm[0]), card.smoothing_mm)))


def _held_out_scan(case: str, scan: Slices, probability: NDArray[np.float32]) -> HeldOutScan:
    truth = scan.labels > 0
    lung = max(1, int(truth.sum() if scan.lungs is None else scan.lungs.sum()))
    readings = [truth]
    if scan.second_reader is not None and (scan.second_reader != NOT_READ).all():
        readings.append(scan.second_reader == 1)
    return HeldOutScan(
        case=case,
        patient=str(scan.patient[0]),
        is_volume=bool(np.isfinite(scan.spacing_mm).all()),
        dice=np.array([Confusion.count(probability >= threshold, truth).dice or 0.0 for threshold in THRESHOLDS]),
        share=np.array([100 * np.count_nonzero(probability >= threshold) / lung for threshold in THRESHOLDS]),
        readers_share=tuple(100 * int(reading.sum()) / lung for reading in readings),
    )


def burden_interval(held_out: Sequence[HeldOutScan], threshold: int) -> BurdenInterval | None:
    """Return the interval that holds 80 % of what readers mark in new scans and pictures.

    None for under five scans, or if all are of one patient. Few scans leave its ends to chance, so that single pictures
    count as well: all of them as much as all scans. Its coverage is that of patients of whom it knows nothing.

    Args:
        held_out: Scans and pictures that folds held out.
        threshold: Index of the threshold in `THRESHOLDS`.
    """
    scans = sum(scan.is_volume for scan in held_out)
    if scans < 5:
        return None
    pictures = len(held_out) - scans
    readings = []
    for scan in held_out:
        weight = 1 / (scans if scan.is_volume else pictures) / len(scan.readers_share)
        readings += [_Reading(scan.patient, scan.is_volume, ratio, weight) for ratio in _ratios(scan, threshold)]
    covered = {True: 0.0, False: 0.0}  # of scans, and of pictures
    for reading in readings:
        others = [other for other in readings if other.patient != reading.patient]
        if not others:
            return None
        low, high = _ends(others, 1 / scans)
        covered[reading.of_scan] += reading.weight * (low <= reading.ratio <= high)
    low, high = _ends(readings, 1 / scans)
    return BurdenInterval(
        offset_percent=OFFSET_PERCENT,
        low=round(low, 4),
        high=round(high, 4),
        scans=scans,
        coverage=round(covered[True], 4),
        pictures=pictures,
        picture_coverage=round(covered[False], 4) if pictures else None,
    )


class _Reading(NamedTuple):
    """What one reader marked of a scan or picture, relative to what is found, and how much that counts."""

    patient: str
    of_scan: bool
    ratio: float
    weight: float


def _ratios(scan: HeldOutScan, threshold: int) -> Iterator[float]:
    """Yield the share that each reader marked, relative to the one that is found."""
    for share in scan.readers_share:
        yield (share + OFFSET_PERCENT) / (float(scan.share[threshold]) + OFFSET_PERCENT)


def _ends(readings: Sequence[_Reading], weight: float) -> tuple[float, float]:
    """Return the ratios between which that of a further scan of this weight lies with a probability of `COVERAGE`.

    Weighted conformal quantiles (Tibshirani et al. 2019): at either end, as many readings are cut off as fit into half
    of 1 - COVERAGE of all weights, the new one among them; the outermost reading stays inside.
    """
    allowed = (sum(reading.weight for reading in readings) + weight) * (1 - COVERAGE) / 2 + 1e-9
    upwards = sorted(readings, key=lambda reading: reading.ratio)
    return _end(upwards, allowed), _end(upwards[::-1], allowed)


def _end(ordered: Sequence[_Reading], allowed: float) -> float:
    """Return the ratio of the last reading up to which the weights do not exceed `allowed`; at least the first."""
    below = np.cumsum([reading.weight for reading in ordered])
    return ordered[max(0, int(np.searchsorted(below, allowed, side="right")) - 1)].ratio
