"""Dice and average precision of finished runs on each scan that they held out, on the network's own grid.

    python bench/held_out.py PREPARED RUN...                 # each run
    python bench/held_out.py PREPARED RUN... --mirrored      # the mean of each slice and its mirror image
    python bench/held_out.py PREPARED RUN... --together      # the mean of the runs, which were trained on one split
    python bench/held_out.py PREPARED --study STUDY.toml STUDY   # each row of a study, beside its first row

What a recipe is chosen by: runs on `final-fold-N`, in whose parts the public test volumes are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, sides_of
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.provenance import open_run
from groundglass.training.study.plan import read_study

THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
HALF = 1 + THRESHOLDS.index(0.5)
Scores = Mapping[str, Sequence[float]]  # {scan: average precision, then Dice at each threshold}


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
    print(f"| runs | scan | average precision | {' | '.join(f'at {at:g}' for at in THRESHOLDS)} |")
    print("|---" * (3 + len(THRESHOLDS)) + "|")
    for runs in [arguments.runs] if arguments.together else [[run] for run in arguments.runs]:
        name, scores = " + ".join(map(str, runs)), _scores(runs, slices, arguments.mirrored)
        for case, row in (*scores.items(), ("mean", np.mean(list(scores.values()), axis=0))):
            print(f"| {name} | {case} | {' | '.join(f'{100 * score:.1f}' for score in row)} |", flush=True)


def _scores(runs: Sequence[Path], slices: Slices, mirrored: bool = False) -> Scores:
    splits = [Split.model_validate_json((run / "split.json").read_bytes()) for run in runs]
    if any(split != splits[0] for split in splits):
        raise SystemExit("runs that are looked at together were trained on one split")
    held_out = slices.where(sides_of(splits[0], slices).test & (slices.source != "slices"))
    probability = np.mean([_probability(run, held_out, mirrored) for run in runs], axis=0)
    scores = {}
    for case in dict.fromkeys(held_out.case.tolist()):
        scan = held_out.case == case
        found, truth = probability[scan], held_out.labels[scan] > 0
        dice = [Confusion.count(found >= at, truth).dice or 0.0 for at in THRESHOLDS]
        scores[case] = [float(average_precision_score(truth.ravel(), found.ravel())), *dice]
    return scores


@torch.inference_mode()
def _probability(run: Path, slices: Slices, mirrored: bool) -> NDArray[np.float32]:
    module, card = open_run(run, run.name)
    found = []
    for image, _ in plain_batches(slices, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm):
        probability = torch.sigmoid(module(image)[:, 0])
        if mirrored:
            probability = (probability + torch.sigmoid(module(image.flip(3))[:, 0]).flip(2)) / 2
        found.append(probability.numpy())
    return np.concatenate(found)


def _print_rows(file: Path, folder: Path, slices: Slices) -> None:
    """Means over the scans that each row held out, and how far it is from the first row, scan by scan."""
    study = read_study(file)
    print(f"| row | seed | {' | '.join(study.protocols)} | scans | average precision | more | Dice at 0.5 | more |")
    print("|---" * (7 + len(study.protocols)) + "|")
    first: dict[str, Sequence[float]] = {}
    for row in study.rows:
        for seed in study.seeds:
            runs = [folder / "runs" / row.name / protocol / f"seed-{seed}" for protocol in study.protocols]
            folds = [_scores([run], slices) if (run / "result.json").is_file() else {} for run in runs]
            scores = {case: each for fold in folds for case, each in fold.items()}
            if not scores:
                continue
            first = first or scores
            parts = [f"{100 * np.mean([each[0] for each in fold.values()]):.1f}" if fold else "-" for fold in folds]
            both = [
                (f"{100 * np.mean([each[at] for each in scores.values()]):.1f}", _more(scores, first, at))
                for at in (0, HALF)
            ]
            cells = [row.name, str(seed), *parts, str(len(scores)), *both[0], *both[1]]
            print(f"| {' | '.join(cells)} |", flush=True)


def _more(scores: Scores, first: Scores, at: int) -> str:
    """Mean difference over the scans of both, with its standard error."""
    apart = 100 * np.array([scores[case][at] - first[case][at] for case in scores if case in first])
    return f"{apart.mean():+.1f} ± {apart.std(ddof=1) / np.sqrt(len(apart)):.1f}"


if __name__ == "__main__":
    main()
