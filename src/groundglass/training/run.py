"""A training as a whole: a configuration, a prepared folder and a split in, a run folder out.

RUN/
    config.json  split.json           configuration; the parts of the data, by case
    machine.json                      versions, git state and machine
    provenance.json                   models that the run builds on, and all data that it and they were trained on
    metrics.csv  events.out.*         metrics of each epoch, as CSV and for TensorBoard
    last.ckpt  best.ckpt              last checkpoint, to resume from; best one, to export
    result.json                       threshold chosen on the validation part (0.5 without one), and the scores there
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

from groundglass.data.prepared import Manifest, read_manifest, read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import ConfigError, DatasetError
from groundglass.metrics import Confusion
from groundglass.training.batches import SCORING_BATCH, Batches, plain_batches, training_batches
from groundglass.training.config import RunConfig
from groundglass.training.fit import fit, initial_module, is_first_process
from groundglass.training.module import LesionModule
from groundglass.training.parents import check_same_parents, check_test_leakage, open_parents
from groundglass.training.provenance import sha256_of_slices, training_exposure
from groundglass.training.run_folder import (
    check_new,
    check_resumable,
    check_same_run,
    describe_run,
    going_on,
    stored_result,
    write_text,
)
from groundglass.training.weights import load_network

THRESHOLDS = np.array([0.02, 0.05, *np.round(np.arange(0.1, 0.95, 0.05), 2), 0.95, 0.98])


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
    """Train as configured, choose the threshold on the validation part, and write the run folder.

    Args:
        config: The whole configuration.
        prepared: A prepared folder.
        split: The parts that train, choose the epoch and threshold, and are left untouched for testing.
        run: The run folder; created if necessary.
        resume: Continue from the run's last checkpoint.
        devices: Number of processes, each with a GPU if there are any, that share every batch.
        start: A finished run or an exported model whose weights initialise this training; None initialises at random.
        teachers: Finished runs or exported models to distil into this training (`config.teachers`). When resuming, the
            default is the teachers that the run started with.

    Returns:
        The content of `result.json`; an empty dict in every process but the first.

    Raises:
        ConfigError: The folder was prepared with other settings, the run folder holds another training, or `start` or
            `teachers` do not fit the configuration, or were trained on data that this split tests on.
        DatasetError: The prepared folder is incomplete, or the split does not match it.
        ModelError: `start` or a teacher is missing or damaged.
        TrainingError: The training could not be completed, or `start` holds the weights of another network.
    """
    manifest, slices = read_prepared(prepared)
    config = with_prepared_settings(config, manifest)
    parts = resolve_split(split, slices)
    members, exposed = (*split.train, *split.validation), parts.train | parts.validation
    slices_sha256 = sha256_of_slices(manifest, set(slices.case[exposed].tolist()))
    if is_first_process() and resume:
        check_resumable(run, config, split, slices_sha256)
    elif is_first_process():
        check_new(run)
    train_slices, validation_slices = slices.where(parts.train), slices.where(parts.validation)
    if len(validation_slices) and not validation_slices.has_lesion.any():
        raise DatasetError(
            f"the validation part of split {split.name} shows no lesion, so that neither epoch nor threshold can be "
            "chosen by it: add a case with lesion to it, or leave it empty"
        )
    selected = select_training_slices(train_slices, config)
    if not selected.any():
        raise DatasetError(f"no training slice of split {split.name} shows lesion: set sampling.lesion_free = true")

    parents = open_parents(start, teachers, config, run, resume)
    check_test_leakage(parents, split, parts.test, slices)
    weights = parents.initial_weights(config)
    soft_targets = parents.soft_targets(train_slices, config)
    soft_targets = None if soft_targets is None else soft_targets[selected]
    provenance = parents.provenance(training_exposure(members, exposed, slices, manifest), slices_sha256)
    with going_on(run):
        if is_first_process():
            describe_run(run, config, split, None if resume else provenance)
        batches = build_training_batches(train_slices.where(selected), config, soft_targets)
        validation = build_scoring_batches(validation_slices, config) if len(validation_slices) else None
        module = initial_module(config.training_network, config.loss, config.training, weights)
        checkpoint = fit(module, batches, validation, run, resume, devices)

    if not is_first_process():
        return {}
    counts = {"train": int(selected.sum()), "validation": len(validation_slices), "test": int(parts.test.sum())}
    result: dict[str, Any] = {"checkpoint": checkpoint.name, "slices": counts, "threshold": 0.5, "validation": None}
    if validation_slices.has_lesion.any():
        trained = load_network(checkpoint, config.network_config)
        curve = score(trained, build_scoring_batches(validation_slices, config), THRESHOLDS)
        best = max(range(len(THRESHOLDS)), key=lambda i: curve[i].dice or 0.0)
        result |= {"threshold": float(THRESHOLDS[best]), "validation": curve[best].scores}
    write_text(run / "result.json", json.dumps(result, indent=2))
    return result


def describe_result(folder: Path, result: dict[str, Any]) -> list[str]:
    """Return the lines that `train` prints; none in any process but the first, whose result is empty."""
    if not result:
        return []
    scores = [
        f"  validation {name} {'undefined' if value is None else f'{value:.3f}'}"
        for name, value in (result["validation"] or {}).items()
    ]
    return [f"{folder}: result {result['checkpoint']}, probability threshold {result['threshold']}", *scores]


def resume_or_train(
    config: RunConfig, prepared: Path, split: Split, run: Path, start: Path | None = None, teachers: Sequence[Path] = ()
) -> dict[str, Any]:
    """Call `train`, resuming from the run folder's last checkpoint if there is one; a finished run is left unchanged.

    Raises:
        GroundglassError: As `train` raises it.
    """
    result = finished_result(config, prepared, split, run, start, teachers)
    if result is not None:
        return result
    resume = (run / "last.ckpt").is_file()
    return train(config, prepared, split, run, resume, start=None if resume else start, teachers=teachers)


def finished_result(
    config: RunConfig, prepared: Path, split: Split, run: Path, start: Path | None, teachers: Sequence[Path]
) -> dict[str, Any] | None:
    """Return the result of a run folder that holds this training, completed to its last epoch; None if it is not.

    Raises:
        ConfigError: The folder holds another training, or one that builds on other models.
        ModelError: A model that it builds on is damaged.
    """
    check_same_parents(run, start, teachers)
    result = stored_result(run)
    if result is None:
        return None
    stored = check_same_run(run, with_prepared_settings(config, read_manifest(prepared)), split)
    return result if stored.training.epochs == config.training.epochs else None


def select_training_slices(slices: Slices, config: RunConfig) -> NDArray[np.bool_]:
    """Return (n,) True for the slices that a training samples from: all, or those with lesion."""
    return slices.has_lesion | config.sampling.lesion_free


def build_training_batches(
    slices: Slices, config: RunConfig, soft_targets: NDArray[np.float16] | None = None
) -> Batches:
    """Return the batches of a training on slices that `select_training_slices` has selected."""
    field = config.field
    return training_batches(
        slices,
        field.window_hu,
        config.sampling,
        config.augment,
        config.training.seed,
        config.classes,
        field.neighbours_mm,
        soft_targets,
        config.lung_map,
    )


def build_scoring_batches(slices: Slices, config: RunConfig) -> Batches:
    """Return all slices in order and without augmentation."""
    field = config.field
    return plain_batches(slices, field.window_hu, SCORING_BATCH, config.classes, field.neighbours_mm, config.lung_map)


def with_prepared_settings(config: RunConfig, manifest: Manifest) -> RunConfig:
    """Return the configuration completed with the prepared folder's size and field of view.

    Raises:
        ConfigError: The configuration needs another size or view, or slices that were not prepared.
    """
    field, settings = config.field, {"size": manifest.size, "view": manifest.field_of_view}
    for name, value in settings.items():
        if getattr(field, name) not in (None, value):
            height, width = field.size or manifest.size
            raise ConfigError(
                f"field.{name} of {config.name} is {getattr(field, name)}, but the folder was prepared with {value}: "
                f"groundglass prepare … --size {height} {width} --view {field.view or manifest.field_of_view}"
            )
    if config.sampling.lesion_free and manifest.lesion_slices_only:
        raise ConfigError(
            f"{config.name} samples lesion-free slices, but the folder was prepared with --lesion-slices-only"
        )
    return config.model_copy(update={"field": field.model_copy(update=settings)})


@torch.inference_mode()
def score(module: LesionModule, batches: Batches, thresholds: NDArray[np.float64]) -> list[Confusion]:
    """Count lesion pixels on the network's own grid, pooled over all batches, at each threshold."""
    totals = [Confusion() for _ in thresholds]
    for image, target in batches:
        probability, truth = torch.sigmoid(module(image)[:, 0]).numpy(), target[:, 0].numpy() > 0
        for i, threshold in enumerate(thresholds):
            totals[i] += Confusion.count(probability >= threshold, truth)
    return totals
