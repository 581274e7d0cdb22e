"""A training as a whole: a configuration, a prepared folder and a split in, a run folder out.

RUN/
    config.json  split.json           what was asked for; the parts, by case
    machine.json                      versions, git state, and on what it ran
    lineage.json                      what it builds on, and what it and all of that have learnt from
    metrics.csv  events.out.*         per epoch, as CSV and for TensorBoard
    last.ckpt  best.ckpt              to resume from; to export
    result.json                       the threshold chosen on the validation (0.5 without one), and the scores there
    test.csv                          in a study: the counts of each slice of the test part
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from groundglass.data.prepared import Manifest, read_manifest, read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, sides_of
from groundglass.errors import ConfigError, DatasetError
from groundglass.files import write_atomic
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, Batches, plain_batches, training_batches
from groundglass.training.config import RunConfig
from groundglass.training.fit import describe_machine, fit, is_first_process
from groundglass.training.module import LesionModule
from groundglass.training.provenance import (
    PROVENANCE_FILE,
    Provenance,
    check_builds_on,
    check_test_leakage,
    find_parents,
    training_exposure,
)
from groundglass.training.weights import load_network

THRESHOLDS = np.array([0.02, 0.05, *np.round(np.arange(0.1, 0.95, 0.05), 2), 0.95, 0.98])
OUTCOMES = ("result.json", "test.csv")  # of a training that is finished


def train(
    config: RunConfig,
    prepared: Path,
    split: Split,
    run: Path,
    resume: bool = False,
    devices: int = 1,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
) -> dict[str, Any]:
    """Train as configured, choose the threshold on the validation, and write the run folder.

    Args:
        config: The whole configuration.
        prepared: A prepared folder.
        split: What trains, what chooses, what is left alone.
        run: The run folder; made if need be.
        resume: Go on from the run's last checkpoint.
        devices: Processes (on GPUs, one each) that share every batch.
        start: A finished run or an exported model, whose weights this one begins with; None: random ones.
        teachers: Finished runs or exported models, whose mean probability is part of the target (`config.teachers`);
            none while resuming: those that the run began with.

    Returns:
        What `result.json` holds; nothing in any process but the first.

    Raises:
        ConfigError: The folder was prepared otherwise, the run folder holds another training, or start or teachers
            (`lineage`) do not go with it, or were trained on what this split tests on.
        DatasetError: The prepared folder is not whole, or the split does not fit it.
        ModelError: Start or teacher is missing or damaged.
        TrainingError: The training could not go on, or cannot begin with those weights.
    """
    manifest, slices = read_prepared(prepared)
    config = with_prepared_settings(config, manifest)
    sides = sides_of(split, slices)
    training = config.training
    trained_on = slices.where(sides.train)
    drawn = select_training_slices(trained_on, config)
    if not drawn.any():
        raise DatasetError(f"no slice of split {split.name}'s training shows lesion: set sampling.lesion_free = true")
    chosen_on = slices.where(sides.validation)
    parents = find_parents(start, teachers, config, run, resume)
    check_test_leakage(parents, split, sides.test, slices)
    first_weights = parents.initial_weights(config)
    soft = parents.soft_targets(trained_on, config)
    if is_first_process():
        learnt = training_exposure((*split.train, *split.validation), sides.train | sides.validation, slices, manifest)
        begin_run(run, config, split, resume, parents.lineage(learnt))
    batches = batches_of(trained_on.where(drawn), config, None if soft is None else soft[drawn])
    validation = scored_batches(chosen_on, config) if len(chosen_on) else None
    checkpoint = fit(config.built, config.loss, training, batches, validation, run, resume, devices, first_weights)

    if not is_first_process():
        return {}
    counts = {"train": int(drawn.sum()), "validation": len(chosen_on), "test": int(sides.test.sum())}
    result: dict[str, Any] = {"checkpoint": checkpoint.name, "slices": counts, "threshold": 0.5, "validation": None}
    if chosen_on.has_lesion.any():
        curve = score(load_network(checkpoint, config.built), scored_batches(chosen_on, config), THRESHOLDS)
        best = max(range(len(THRESHOLDS)), key=lambda i: curve[i].dice or 0.0)
        result |= {"threshold": float(THRESHOLDS[best]), "validation": curve[best].scores}
    _write(run / "result.json", json.dumps(result, indent=2))
    return result


def describe_result(folder: Path, result: dict[str, Any]) -> list[str]:
    """What `train` prints; nothing in any process but the first, whose result is empty."""
    if not result:
        return []
    scores = [
        f"  validation {name} {'undefined' if value is None else f'{value:.3f}'}"
        for name, value in (result["validation"] or {}).items()
    ]
    chosen = f"{folder}: {result['checkpoint']} is the result, lesion from a probability of {result['threshold']} on"
    return [chosen, *scores]


def resume_or_train(
    config: RunConfig, prepared: Path, split: Split, run: Path, start: Path | None = None, teachers: Sequence[Path] = ()
) -> dict[str, Any]:
    """`train`, going on with what the run folder holds; a run that `is_finished` is left as it is.

    Raises:
        GroundglassError: As `train` does.
    """
    if is_finished(config, prepared, split, run, start, teachers):
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        return result
    resume = (run / "last.ckpt").is_file()
    return train(config, prepared, split, run, resume, start=None if resume else start, teachers=teachers)


def is_finished(
    config: RunConfig, prepared: Path, split: Split, run: Path, start: Path | None, teachers: Sequence[Path]
) -> bool:
    """Whether a run folder holds this training to its last epoch.

    Raises:
        ConfigError: The folder holds another training.
        ModelError: What it builds on is damaged.
    """
    check_builds_on(run, start, teachers)
    if not (run / "result.json").is_file():
        return False
    begun = check_same_run(run, with_prepared_settings(config, read_manifest(prepared)), split)
    return begun.training.epochs == config.training.epochs


def select_training_slices(slices: Slices, config: RunConfig) -> NDArray[np.bool_]:
    """(n,) which slices a training draws: all, or the ones with lesion."""
    return slices.has_lesion | config.sampling.lesion_free


def batches_of(slices: Slices, config: RunConfig, soft: NDArray[np.float16] | None = None) -> Batches:
    """The batches of a training on slices that `select_training_slices` has chosen, with soft targets where it is taught."""
    field, seed = config.field, config.training.seed
    return training_batches(
        slices, field.window_hu, config.sampling, config.augment, seed, config.classes, field.neighbours_mm, soft
    )


def scored_batches(slices: Slices, config: RunConfig) -> Batches:
    """All of the slices, unchanged."""
    field = config.field
    return plain_batches(slices, field.window_hu, SCORING_BATCH, config.classes, field.neighbours_mm)


def with_prepared_settings(config: RunConfig, manifest: Manifest) -> RunConfig:
    """The configuration with the prepared folder's size and field of view.

    Raises:
        ConfigError: It asks for another one, or for slices that were left out.
    """
    asked, has = config.field, {"size": manifest.size, "view": manifest.field_of_view}
    for name, value in has.items():
        if getattr(asked, name) not in (None, value):
            height, width = asked.size or manifest.size
            raise ConfigError(
                f"field.{name} of {config.name} is {getattr(asked, name)}, the folder was prepared with {value}: "
                f"groundglass prepare … --size {height} {width} --view {asked.view or manifest.field_of_view}"
            )
    if config.sampling.lesion_free and manifest.lesion_slices_only:
        raise ConfigError(f"{config.name} draws lesion-free slices, the folder was prepared with --lesion-slices-only")
    return config.model_copy(update={"field": asked.model_copy(update=has)})


def begin_run(run: Path, config: RunConfig, split: Split, resume: bool, lineage: Provenance) -> None:
    """Write down what is asked for, or hold it against what the run folder was begun with.

    Raises:
        ConfigError: The folder holds another training, or one that was not to be gone on with.
    """
    if (run / "last.ckpt").exists() and not resume:
        raise ConfigError(f"{run} holds a training already: go on with --resume, or name another folder")
    if resume and (run / "config.json").is_file():
        check_same_run(run, config, split)
    for outcome in OUTCOMES:
        (run / outcome).unlink(missing_ok=True)
    _write(run / "config.json", config.model_dump_json(indent=2))
    _write(run / "split.json", split.model_dump_json(indent=1))
    _write(run / "machine.json", json.dumps(describe_machine(), indent=2))
    if not resume:  # what it began with stays
        _write(run / PROVENANCE_FILE, lineage.model_dump_json(indent=2))


def check_same_run(run: Path, config: RunConfig, split: Split) -> RunConfig:
    """Hold what is asked for against what a run folder was begun with.

    Returns:
        The configuration that it was begun with, or last gone on with; only its epochs may differ.

    Raises:
        ConfigError: It is another training.
    """
    try:
        begun = RunConfig.model_validate_json((run / "config.json").read_bytes())
        begun_with = Split.model_validate_json((run / "split.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{run} cannot be gone on with, it is damaged or of an older version") from error
    if _but_for_epochs(begun) != _but_for_epochs(config):
        raise ConfigError(f"{run} was begun with another configuration: only training.epochs may change")
    if begun_with != split:
        raise ConfigError(f"{run} was begun with another split: name the one that it was begun with")
    return begun


def _but_for_epochs(config: RunConfig) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    del plain["training"]["epochs"]
    return plain


@torch.inference_mode()
def score(module: LesionModule, batches: Batches, thresholds: NDArray[np.float64]) -> list[Confusion]:
    """Pooled lesion counts of the network over batches of slices as they are cut, for each threshold."""
    totals = [Confusion() for _ in thresholds]
    for image, target in batches:
        probability, truth = torch.sigmoid(module(image)[:, 0]).numpy(), target[:, 0].numpy() > 0
        for i, threshold in enumerate(thresholds):
            totals[i] += Confusion.count(probability >= threshold, truth)
    return totals


def _write(path: Path, text: str) -> None:
    write_atomic(path, (text + "\n").encode())
