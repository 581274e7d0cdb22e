"""The trained models that a training builds on: one may initialise its weights, several may be distilled into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.data.slices import Slices
from groundglass.data.splits import Selection, Split
from groundglass.errors import ConfigError, ModelError
from groundglass.inference.model_card import BUNDLED, ModelCard, TrainedOn, bundled_model, read_card
from groundglass.network.baselines import parse_network_config
from groundglass.training.batches import SCORING_BATCH, plain_batches
from groundglass.training.config import RunConfig
from groundglass.training.finished_run import open_run
from groundglass.training.module import LesionModule
from groundglass.training.provenance import Origin, Provenance, read_provenance
from groundglass.training.weights import StateDict, adapt_weights, exported_weights, first_maps, untrained_module


@dataclass(frozen=True, eq=False)
class ParentModel:
    """A finished run or an exported model that a training builds on.

    Attributes:
        path: The run folder or the ONNX file.
        weights: Its weights.
        card: Its model card.
    """

    path: Path
    weights: StateDict
    card: ModelCard

    def __repr__(self) -> str:
        return f"ParentModel({self.path})"

    @property
    def origin(self) -> Origin:
        """The reference that the run folder keeps."""
        return Origin(path=self.path, sha256=self.card.sha256)

    @property
    def trained_on(self) -> TrainedOn:
        """All data that the model was trained on; `open_parent` has checked that it is recorded."""
        assert self.card.trained_on is not None
        return self.card.trained_on

    @property
    def module(self) -> LesionModule:
        """Its network, in evaluation mode."""
        module = untrained_module(parse_network_config(self.card.network)).eval()
        module.load_state_dict(self.weights)
        return module

    def lesion_probability(self, slices: Slices) -> NDArray[np.float32]:
        """Predict the probability of lesion, (n, height, width) in [0, 1]."""
        module = self.module
        batches = plain_batches(slices, self.card.window_hu, SCORING_BATCH, neighbours_mm=self.card.neighbours_mm)
        with torch.inference_mode():
            return np.concatenate([torch.sigmoid(module(image)[:, 0]).numpy() for image, _ in batches])


@dataclass(frozen=True)
class ParentModels:
    """The models that a training builds on.

    Attributes:
        start: The model whose weights initialise the training; None means random weights.
        teachers: The models whose predictions are part of the target.
    """

    start: ParentModel | None = None
    teachers: tuple[ParentModel, ...] = ()

    @property
    def all(self) -> tuple[ParentModel, ...]:
        """Start, if any, and teachers."""
        return (*((self.start,) if self.start else ()), *self.teachers)

    def provenance(self, own: TrainedOn, slices_sha256: str) -> Provenance:
        """Return the provenance of a run that builds on these models and is itself trained on `own`, those slices."""
        return Provenance(
            start=self.start.origin if self.start else None,
            teachers=tuple(teacher.origin for teacher in self.teachers),
            trained_on=reduce(TrainedOn.__or__, (parent.trained_on for parent in self.all), own),
            slices_sha256=slices_sha256,
        )

    def initial_weights(self, config: RunConfig) -> StateDict | None:
        """Return the initial weights of a training, or None for random ones.

        Raises:
            ConfigError: The output maps of `start` have other meanings.
            TrainingError: The weights of `start` are those of another network.
        """
        if self.start is None:
            return None
        card = self.start.card
        count = min(len(card.classes), len(config.output_classes))
        if card.classes[:count] != config.output_classes[:count]:
            raise ConfigError(
                f"{self.start.path} has the output maps {', '.join(card.classes)}, but {config.name} has "
                f"{', '.join(config.output_classes)}: the classes of one must be the first of the other"
            )
        source = replace(parse_network_config(card.network), classes=count)
        return adapt_weights(first_maps(self.start.weights, count), source, config.training_network)

    def soft_targets(self, slices: Slices, config: RunConfig) -> NDArray[np.float16] | None:
        """Mix the teachers' mean probability of lesion, weighted by `teachers.weight`, with the reader's mask.

        Hinton, Vinyals and Dean (2015), arXiv 1503.02531: an ensemble is distilled into one network.

        Args:
            slices: All slices of the training part, also those without lesion, because a teacher may see neighbours.
            config: Configuration of the training.

        Returns:
            (n, height, width) in [0, 1]; None without teachers.

        Raises:
            ConfigError: A teacher's input has another size or field of view.
        """
        if not self.teachers:
            return None
        weight, field = config.teachers.weight, config.field
        targets = np.where(slices.labels > 0, np.float32(1 - weight), np.float32(0))
        for teacher in self.teachers:
            card = teacher.card
            if (card.size, card.field_of_view) != (field.size, field.view):
                raise ConfigError(
                    f"the teacher {teacher.path} takes {card.size} ({card.field_of_view}), but {config.name} takes "
                    f"{field.size} ({field.view}): choose a teacher with the same input"
                )
            targets += teacher.lesion_probability(slices) * np.float32(weight / len(self.teachers))
        return targets.astype(np.float16)


def open_parents(
    start: Path | None, teachers: Sequence[Path], config: RunConfig, run: Path, resume: bool
) -> ParentModels:
    """Open the models that a training builds on; a resumed training builds on those that it started with.

    Raises:
        ConfigError: Teachers are named without a weight or the other way round; or a resumed training is given other
            models than it started with, or one of those no longer exists.
        ModelError: A path is neither a finished run nor an exported model.
        TrainingError: The weights of a model are missing.
    """
    if resume and start is not None:
        raise ConfigError("--from initialises a new training, but --resume continues with its own weights: omit --from")
    recorded = read_provenance(run) if resume else None
    if recorded and not teachers:
        teachers = [teacher.path for teacher in recorded.teachers]
        for path in teachers:
            if not path.exists():
                raise ConfigError(f"{path}, a teacher of {run}, no longer exists: name its new path with --teacher")
    if bool(teachers) != bool(config.teachers.weight):
        raise ConfigError(
            f"{config.name} has teachers.weight = {config.teachers.weight:g}, but {len(teachers)} teachers are named: "
            "name them with --teacher and set a weight, or leave both out"
        )
    parents = ParentModels(open_parent(start) if start else None, tuple(open_parent(teacher) for teacher in teachers))
    if recorded:
        check_same_teachers(recorded, [teacher.card.sha256 for teacher in parents.teachers], run)
    return parents


def open_parent(path: Path) -> ParentModel:
    """Open a finished run, an exported model, or the bundled model by its name.

    Raises:
        ConfigError: The model is int8.
        ModelError: The path is neither a finished run nor an exported model, or its training data is not recorded.
        TrainingError: The weights are missing.
    """
    if path == Path(BUNDLED) and not path.exists():
        path = bundled_model()
    path = path.resolve()
    if path.suffix == ".onnx":
        card = read_card(path)
        if card.quantized:
            raise ConfigError(f"{path} is int8: choose the float32 model that it was made from")
        weights = exported_weights(path, parse_network_config(card.network))
    else:
        module, card = open_run(path, path.name)
        weights = module.state_dict()
    if card.trained_on is None:
        raise ModelError(
            f"{path} is of an older version that did not record its training data: train or export it again"
        )
    return ParentModel(path, weights, card)


def check_same_teachers(recorded: Provenance, sha256: Sequence[str], run: Path) -> None:
    """Check that a run is continued with the teachers that it was started with.

    Raises:
        ConfigError: The teachers are others.
    """
    if sorted(teacher.sha256 for teacher in recorded.teachers) != sorted(sha256):
        raise ConfigError(f"{run} was started with other teachers, or they were trained again: name another folder")


def check_same_parents(run: Path, start: Path | None, teachers: Sequence[Path]) -> None:
    """Check that a run folder, if it exists, was started from these runs; unfinished ones cannot be compared.

    Raises:
        ConfigError: The run was started from others.
        ModelError: One of the runs is damaged.
    """
    recorded, parents = read_provenance(run), [path for path in (start, *teachers) if path]
    if recorded is None or not all((parent / "result.json").is_file() for parent in parents):
        return
    sha256 = {parent: open_run(parent, parent.name)[1].sha256 for parent in parents}
    if (recorded.start.sha256 if recorded.start else None) != (sha256[start] if start else None):
        raise ConfigError(f"{run} was started from other weights, or they were trained again: name another folder")
    check_same_teachers(recorded, [sha256[teacher] for teacher in teachers], run)


def check_test_leakage(parents: ParentModels, split: Split, tested: Selection, slices: Slices) -> None:
    """Check that no parent was trained on a test slice or, unless the split is leaky, on a patient of the test part.

    Args:
        parents: Start and teachers.
        split: The split of the training; a leaky one may have a patient's slices in several parts.
        tested: (n,) True for the slices of its test part.
        slices: All slices of the prepared folder.

    Raises:
        ConfigError: A parent was trained on such a slice or patient.
    """
    for parent in parents.all:
        known = parent.trained_on
        pairs = zip(slices.case.tolist(), slices.number.tolist(), strict=True)
        excluded = np.array([known.holds(case, {number}) for case, number in pairs], dtype=bool)  # (n,)
        if not split.leaky:
            # A patient group here may join, as near-duplicates, cases that the parent knows as different patients.
            patients = [*known.patients, *slices.patient[excluded].tolist()]
            excluded |= np.isin(slices.patient, patients) | np.isin(slices.case, patients)
        leaked = slices.case[tested & excluded]
        if len(leaked):
            raise ConfigError(
                f"{parent.path} was trained on {leaked[0]} or its patient, which split {split.name} tests on: "
                "choose another model or another split"
            )
