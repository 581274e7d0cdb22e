"""A training as a whole: a configuration and a dataset folder in, a run folder out.

RUN/
    config.json  machine.json         what was asked for, and on what it ran
    split.json                        the cases (by patient) or slices on each side
    metrics.csv  events.out.*         per epoch, as CSV and for TensorBoard
    last.ckpt  best.ckpt              to resume from; to export
    result.json                       the threshold chosen on the validation, and the scores there
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.config import RunConfig
from groundglass.data.batches import plain_batches, training_batches
from groundglass.data.catalogue import find_cases
from groundglass.data.slices import Slices, load_slices
from groundglass.data.splits import Split, split_slices
from groundglass.errors import ConfigError
from groundglass.scores import Confusion
from groundglass.training.fit import describe_machine, fit, load_network
from groundglass.training.module import LesionModule

THRESHOLDS = np.array([0.02, 0.05, *np.round(np.arange(0.1, 0.95, 0.05), 2), 0.95, 0.98])
SCORING_BATCH = 8


def train(
    config: RunConfig,
    data: Path,
    run: Path,
    cache: Path,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Train as configured, choose the threshold on the validation, and write the run folder.

    Args:
        config: The whole configuration.
        data: A dataset folder in one of the layouts of `data.catalogue`.
        run: The run folder; made if need be.
        cache: Where slices cut for this dataset and size are kept.
        resume: Go on from the run's last checkpoint.
        progress: Called with the cases cut and their number.

    Returns:
        What `result.json` holds.

    Raises:
        ConfigError: The run folder holds another training already.
        DatasetError: The dataset is not laid out as expected.
        TrainingError: The training could not go on.
    """
    if (run / "last.ckpt").exists() and not resume:
        raise ConfigError(f"{run} holds a training already: go on with --resume, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    slices = load_slices(find_cases(data), config.field.size, cache, progress)
    split = split_slices(slices, config.split)
    _write(run / "config.json", config.model_dump_json(indent=2))
    _write(run / "machine.json", describe_machine())
    _write(run / "split.json", json.dumps(_describe(slices, split), indent=2))

    training, window = config.training, config.field.window_hu
    batches = training_batches(slices.where(split.train), window, config.draw, config.augment, training.seed)
    chosen_on = slices.where(split.validation)
    validation = plain_batches(chosen_on, window, SCORING_BATCH) if len(chosen_on) else None
    checkpoint = fit(config.network, config.loss, training, batches, validation, run, resume)

    result: dict[str, Any] = {"checkpoint": checkpoint.name, "threshold": None, "validation": None}
    module = load_network(checkpoint, config.network)
    if len(chosen_on):
        curve = score(module, chosen_on, window, THRESHOLDS)
        best = max(range(len(THRESHOLDS)), key=lambda i: curve[i].dice or 0.0)
        result |= {"threshold": float(THRESHOLDS[best]), "validation": curve[best].scores}
    _write(run / "result.json", json.dumps(result, indent=2))
    return result


@torch.inference_mode()
def score(
    module: LesionModule, slices: Slices, window: tuple[float, float], thresholds: NDArray[np.float64]
) -> list[Confusion]:
    """Pooled counts of the network over slices as they are cut, for each threshold."""
    totals = [Confusion() for _ in thresholds]
    for image, target in plain_batches(slices, window, SCORING_BATCH):
        probability, truth = torch.sigmoid(module(image)).numpy(), target.numpy() > 0
        for i, threshold in enumerate(thresholds):
            totals[i] += Confusion.count(probability >= threshold, truth)
    return totals


def _describe(slices: Slices, split: Split) -> dict[str, Any]:
    sides = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        side: {"slices": int(members.sum()), "cases": sorted(set(slices.case[members].tolist()))}
        for side, members in sides.items()
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")
