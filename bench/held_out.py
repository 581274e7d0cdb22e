"""Dice and average precision of finished runs on each scan that they held out, on the network's own grid.

    python bench/held_out.py PREPARED RUN...                 # each run
    python bench/held_out.py PREPARED RUN... --mirrored      # the mean of each slice and its mirror image
    python bench/held_out.py PREPARED RUN... --together      # the mean of the runs, which were trained on one split

What a recipe is chosen by: runs on `ship-fold-N`, in whose parts the public test volumes are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from groundglass.data.batches import plain_batches
from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, sides_of
from groundglass.experiment import SCORING_BATCH
from groundglass.export import open_run
from groundglass.scores import Confusion

THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--together", action="store_true")
    arguments = parser.parse_args()
    _, slices = read_prepared(arguments.prepared)
    print(f"| runs | scan | average precision | {' | '.join(f'at {at:g}' for at in THRESHOLDS)} |")
    print("|---" * (3 + len(THRESHOLDS)) + "|")
    for runs in [arguments.runs] if arguments.together else [[run] for run in arguments.runs]:
        _print_scans(runs, slices, arguments.mirrored)


def _print_scans(runs: Sequence[Path], slices: Slices, mirrored: bool) -> None:
    splits = [Split.model_validate_json((run / "split.json").read_bytes()) for run in runs]
    if any(split != splits[0] for split in splits):
        raise SystemExit("runs that are looked at together were trained on one split")
    held_out = slices.where(sides_of(splits[0], slices).test & (slices.source != "slices"))
    probability = np.mean([_probability(run, held_out, mirrored) for run in runs], axis=0)
    name, rows = " + ".join(str(run) for run in runs), []
    for case in dict.fromkeys(held_out.case.tolist()):
        scan = held_out.case == case
        found, truth = probability[scan], held_out.labels[scan] > 0
        dice = [Confusion.count(found >= at, truth).dice or 0.0 for at in THRESHOLDS]
        rows.append([float(average_precision_score(truth.ravel(), found.ravel())), *dice])
        print(f"| {name} | {case} | {' | '.join(f'{100 * score:.1f}' for score in rows[-1])} |", flush=True)
    print(f"| {name} | mean | {' | '.join(f'{100 * score:.1f}' for score in np.mean(rows, axis=0))} |", flush=True)


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


if __name__ == "__main__":
    main()
