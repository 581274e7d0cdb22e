"""Dice and average precision of finished runs on each scan that they hold out, on the network's own grid.

    python bench/held_out.py PREPARED RUN...                 # each run by itself
    python bench/held_out.py PREPARED RUN... --mirrored      # mean prediction of each slice and its mirror image
    python bench/held_out.py PREPARED RUN... --together      # mean of the predictions of runs trained on one split
    python bench/held_out.py PREPARED --study STUDY.toml STUDY   # each row of a study, compared with its first row

A recipe is chosen on runs on the splits `final-fold-N`, which do not contain the public test volumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, resolve_split
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.finished_run import open_run
from groundglass.training.study.plan import read_study

THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
AVERAGE_PRECISION, DICE_AT_HALF = 0, 1 + THRESHOLDS.index(0.5)  # indices of the scores of a scan
Scores: TypeAlias = Mapping[str, Sequence[float]]  # {scan: average precision, then Dice at each threshold}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--study", type=Path, nargs=2, metavar=("STUDY.toml", "STUDY"))
    arguments = parser.parse_args()
    if bool(arguments.runs) == bool(arguments.study):
        parser.error("name runs, or a study with --study")
    _, slices = read_prepared(arguments.prepared)
    if arguments.study:
        file, folder = arguments.study
        _print_rows(file, folder, slices)
        return
    print(f"| runs | scan | average precision | {' | '.join(f'Dice at {threshold:g}' for threshold in THRESHOLDS)} |")
    print("|---" * (3 + len(THRESHOLDS)) + "|")
    for runs in [arguments.runs] if arguments.together else [[run] for run in arguments.runs]:
        name, scores = " + ".join(map(str, runs)), _scores(runs, slices, arguments.mirrored)
        for case, row in (*scores.items(), ("mean", np.mean(list(scores.values()), axis=0))):
            print(f"| {name} | {case} | {' | '.join(f'{100 * score:.1f}' for score in row)} |", flush=True)


def _scores(runs: Sequence[Path], slices: Slices, mirrored: bool = False) -> Scores:
    splits = [Split.model_validate_json((run / "split.json").read_bytes()) for run in runs]
    if any(split != splits[0] for split in splits):
        raise SystemExit("--together needs runs that were trained on the same split")
    held_out = slices.where(resolve_split(splits[0], slices).test & (slices.source != "slices"))
    probability = np.mean([_probability(run, held_out, mirrored) for run in runs], axis=0)
    scores = {}
    for case in dict.fromkeys(held_out.case.tolist()):
        scan = held_out.case == case
        predicted, truth = probability[scan], held_out.labels[scan] > 0
        dice = [Confusion.count(predicted >= threshold, truth).dice or 0.0 for threshold in THRESHOLDS]
        scores[case] = [float(average_precision_score(truth.ravel(), predicted.ravel())), *dice]
    return scores


@torch.inference_mode()
def _probability(run: Path, slices: Slices, mirrored: bool) -> NDArray[np.float32]:
    module, card = open_run(run, run.name)
    probabilities = []
    for image, _ in plain_batches(slices, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm):
        probability = torch.sigmoid(module(image)[:, 0])
        if mirrored:
            probability = (probability + torch.sigmoid(module(image.flip(3))[:, 0]).flip(2)) / 2
        probabilities.append(probability.numpy())
    return np.concatenate(probabilities)


def _print_rows(file: Path, folder: Path, slices: Slices) -> None:
    """Print the mean scores of each row over the scans that it holds out, and its difference from the first row."""
    study = read_study(file)
    score_columns = "average precision | difference | Dice at 0.5 | difference"
    print(f"| row | seed | {' | '.join(study.protocols)} | scans | {score_columns} |")
    print("|---" * (7 + len(study.protocols)) + "|")
    first: dict[str, Sequence[float]] = {}
    for row in study.rows:
        for seed in study.seeds:
            runs = [folder / "runs" / row.name / protocol / f"seed-{seed}" for protocol in study.protocols]
            folds = [_scores([run], slices) if (run / "result.json").is_file() else {} for run in runs]
            scores = {case: case_scores for fold in folds for case, case_scores in fold.items()}
            if not scores:
                continue
            first = first or scores
            cells = [row.name, str(seed), *(_mean(fold, AVERAGE_PRECISION) for fold in folds), str(len(scores))]
            for index in (AVERAGE_PRECISION, DICE_AT_HALF):
                cells += [_mean(scores, index), _difference(scores, first, index)]
            print(f"| {' | '.join(cells)} |", flush=True)


def _mean(scores: Scores, index: int) -> str:
    """Return the mean of a score over the scans in percent."""
    return f"{100 * np.mean([of_scan[index] for of_scan in scores.values()]):.1f}" if scores else "-"


def _difference(scores: Scores, first: Scores, index: int) -> str:
    """Return the mean difference of a score over the scans of both in percentage points, with its standard error."""
    difference = 100 * np.array([scores[case][index] - first[case][index] for case in scores if case in first])
    return f"{difference.mean():+.1f} ± {difference.std(ddof=1) / np.sqrt(len(difference)):.1f}"


if __name__ == "__main__":
    main()
