"""Dice and average precision of finished runs on each scan that they hold out, on the network's own grid.

The last epoch of each run is scored, since a model that is trained on all scans has no validation part to choose one.

    python bench/held_out.py PREPARED RUN...                 # each run by itself
    python bench/held_out.py PREPARED RUN... --mirrored      # mean prediction of each slice and its mirror image
    python bench/held_out.py PREPARED RUN... --smoothing-mm 2.5   # smoothed between slices, as exported models are
    python bench/held_out.py PREPARED RUN... --light-hu -500      # less of it where it is light, as well
    python bench/held_out.py PREPARED RUN... --together      # mean of the predictions of runs trained on one split
    python bench/held_out.py PREPARED RUN... --where         # where the false volume lies, and lesions by size
    python bench/held_out.py PREPARED --study STUDY.toml STUDY   # each row of a study, compared with its first row

`--where` divides the marked pixels that are no lesion, at each run's own threshold, by the lungs of the prepared
folder: `lesion border` within 3 pixels of a lesion; `dome` within 6 pixels of the lung's outline in the lowest third of
its slices, inside or outside; `abdomen` further outside there; `lung border` within 3 pixels of the outline further up;
`hilum` in the middle third and the third of the field of view around its middle; `elsewhere`. A pixel of the network's
grid is about 1.5 mm. The volume of a pixel follows from the lesion in the file and on the grid.

A recipe is chosen on runs on the splits `final-fold-N`, which do not contain the public test volumes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score

from groundglass.data.prepared import Manifest, read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, resolve_split
from groundglass.evaluation.lesions import Region, match_regions, score_by_size
from groundglass.metrics import Confusion
from groundglass.training.finished_run import open_run
from groundglass.training.held_out import predict_scan
from groundglass.training.study.plan import read_study

THRESHOLDS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
PLACES = ("lesion border", "dome", "abdomen", "lung border", "hilum", "elsewhere")
AVERAGE_PRECISION, DICE_AT_HALF = 0, 1 + THRESHOLDS.index(0.5)  # indices of the scores of a scan
Scores: TypeAlias = Mapping[str, Sequence[float]]  # {scan: average precision, then Dice at each threshold}
Rules: TypeAlias = Mapping[str, Any]  # fields of a `ModelCard`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--smoothing-mm", type=float, default=0.0)
    parser.add_argument("--light-hu", type=float)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--where", action="store_true")
    parser.add_argument("--study", type=Path, nargs=2, metavar=("STUDY.toml", "STUDY"))
    arguments = parser.parse_args()
    if bool(arguments.runs) == bool(arguments.study):
        parser.error("name runs, or a study with --study")
    rules = {name: getattr(arguments, name) for name in ("mirrored", "smoothing_mm", "light_hu")}
    manifest, slices = read_prepared(arguments.prepared)
    if arguments.study:
        file, folder = arguments.study
        _print_rows(file, folder, slices)
        return
    if arguments.where:
        _print_places(arguments.runs, slices, manifest, rules)
        return
    print(f"| runs | scan | average precision | {' | '.join(f'Dice at {threshold:g}' for threshold in THRESHOLDS)} |")
    print("|---" * (3 + len(THRESHOLDS)) + "|")
    for runs in [arguments.runs] if arguments.together else [[run] for run in arguments.runs]:
        name, scores = " + ".join(map(str, runs)), _scores(runs, slices, rules)
        for case, row in (*scores.items(), ("mean", np.mean(list(scores.values()), axis=0))):
            print(f"| {name} | {case} | {' | '.join(f'{100 * score:.1f}' for score in row)} |", flush=True)


def _scores(runs: Sequence[Path], slices: Slices, rules: Rules) -> Scores:
    splits = [Split.model_validate_json((run / "split.json").read_bytes()) for run in runs]
    if any(split != splits[0] for split in splits):
        raise SystemExit("--together needs runs that were trained on the same split")
    held_out = slices.where(resolve_split(splits[0], slices).test & (slices.source != "slices"))
    probability = np.mean([_probability(run, held_out, rules) for run in runs], axis=0)
    scores = {}
    for case in dict.fromkeys(held_out.case.tolist()):
        scan = held_out.case == case
        predicted, truth = probability[scan], held_out.labels[scan] > 0
        dice = [Confusion.count(predicted >= threshold, truth).dice or 0.0 for threshold in THRESHOLDS]
        scores[case] = [float(average_precision_score(truth.ravel(), predicted.ravel())), *dice]
    return scores


def _probability(run: Path, slices: Slices, rules: Rules) -> NDArray[np.float32]:
    module, card = open_run(run, run.name, last_epoch=True)
    scans = [slices.where(slices.case == case) for case in dict.fromkeys(slices.case.tolist())]
    card = card.model_copy(update=rules)
    return np.concatenate([predict_scan(module, scan, card)[:, 0] for scan in scans])


def _print_places(runs: Sequence[Path], slices: Slices, manifest: Manifest, rules: Rules) -> None:
    """Print for each held-out scan where the false volume lies, and for all of them the lesions found by size."""
    regions: list[Region] = []
    print(f"| run | scan | lesion ml | marked ml | {' | '.join(f'{place}, false ml' for place in PLACES)} |")
    print("|---" * (4 + len(PLACES)) + "|")
    for run in runs:
        split = Split.model_validate_json((run / "split.json").read_bytes())
        threshold = open_run(run, run.name, last_epoch=True)[1].threshold
        held_out = slices.where(resolve_split(split, slices).test & (slices.source != "slices"))
        for case in (entry for entry in manifest.cases if entry.name in set(held_out.case.tolist())):
            scan = held_out.where(held_out.case == case.name)
            predicted, truth = _probability(run, scan, rules) >= threshold, scan.labels > 0
            pixel_ml = math.prod(case.spacing_mm or (0.0,)) / 1000 * sum(case.pixels.values()) / max(1, truth.sum())
            assert scan.lungs is not None, "a prepared folder holds the lungs"
            false = places_of_false_pixels(predicted, truth, scan.lungs)
            volumes = [truth.sum(), predicted.sum(), *(false[place] for place in PLACES)]
            cells = [run.name, case.name, *(f"{count * pixel_ml:.1f}" for count in volumes)]
            print(f"| {' | '.join(cells)} |", flush=True)
            regions += match_regions(predicted, truth, pixel_ml, case.name, [case.name] * len(scan))
    print("\n| size | lesions found | marked regions that are lesion |\n|---|---|---|")
    for row in score_by_size(regions, "ml"):
        print(f"| {row.size_class} | {row.found} of {row.recall.rows} | {row.right} of {row.precision.rows} |")


def places_of_false_pixels(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], lungs: NDArray[np.bool_]
) -> dict[str, int]:
    """Count the pixels that are marked and no lesion by where they lie; all masks are (z, y, x) from feet to head."""
    shown = np.flatnonzero(lungs.any((1, 2)))
    height = (np.arange(len(lungs)) - shown[0]) / max(1, shown[-1] - shown[0])
    low, middle = (part[:, None, None] for part in (height < 1 / 3, abs(height - 0.5) < 1 / 6))
    column = np.abs(np.arange(lungs.shape[2]) / lungs.shape[2] - 0.5) < 1 / 6
    to_lesion = _distance(truth)
    to_outline = np.where(lungs, _distance(~lungs), _distance(lungs))
    rules = {
        "lesion border": to_lesion <= 3,
        "dome": low & (to_outline <= 6),
        "abdomen": low & ~lungs,
        "lung border": to_outline <= 3,
        "hilum": middle & column,
        "elsewhere": np.ones(lungs.shape, bool),
    }
    left, counts = predicted & ~truth, {}
    for place, rule in rules.items():
        counts[place] = int((left & rule).sum())
        left = left & ~rule
    return counts


def _distance(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel from the mask of its slice, infinite where that is empty."""
    return np.stack(
        [ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf) for mask in masks]
    )


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
            folds = [_scores([run], slices, {}) if (run / "result.json").is_file() else {} for run in runs]
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
