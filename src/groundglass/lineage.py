"""What a training builds on: weights that it begins with, teachers, and what all of those have learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from groundglass.config import RunConfig
from groundglass.data.batches import plain_batches
from groundglass.data.slices import Slices
from groundglass.data.splits import Split
from groundglass.errors import ConfigError
from groundglass.inference.card import BUNDLED, TrainedOn, bundled_model, read_card
from groundglass.losses import LossConfig
from groundglass.network.peers import PeerConfig, network_of
from groundglass.network.unet import NetworkConfig
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import State, exported_weights, load_network

LINEAGE = "lineage.json"  # in a run folder, where there is anything to say
TEACHING_BATCH = 8


@dataclass(frozen=True, eq=False)
class Ancestor:
    """A finished run or an exported model that another training builds on.

    Attributes:
        path: The run folder or the ONNX file.
        weights: By name.
        network: What they are of.
        window_hu: Lower and upper end of what it sees.
        neighbours_mm: How far the slices lie that it sees besides; 0: none.
        trained_on: What it has learnt from.
    """

    path: Path
    weights: State
    network: NetworkConfig | PeerConfig
    window_hu: tuple[float, float]
    neighbours_mm: float
    trained_on: TrainedOn

    def __repr__(self) -> str:
        return f"Ancestor({self.path})"


class Lineage(BaseModel):
    """What a run builds on, as its folder keeps it.

    Attributes:
        start: The run or model that it began with; None: random weights.
        teachers: The runs or models that it was taught by.
        trained_on: What those have learnt from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Path | None = None
    teachers: tuple[Path, ...] = ()
    trained_on: TrainedOn = TrainedOn()

    @classmethod
    def of(cls, start: Ancestor | None, teachers: Sequence[Ancestor]) -> Lineage | None:
        """The lineage of a training; None where it builds on nothing."""
        everyone = [*([start] if start else []), *teachers]
        if not everyone:
            return None
        return cls(
            start=start.path if start else None,
            teachers=tuple(teacher.path for teacher in teachers),
            trained_on=reduce(TrainedOn.__or__, (each.trained_on for each in everyone)),
        )


def remembered(run: Path) -> Lineage:
    """What a run folder says that the run builds on; nothing where it says nothing."""
    path = run / LINEAGE
    return Lineage.model_validate_json(path.read_bytes()) if path.is_file() else Lineage()


def trained_on(run: Path, split: Split) -> TrainedOn:
    """What a run has learnt from: its own split's parts, and what it builds on."""
    own = TrainedOn(members=(*split.train, *split.validation), patients=tuple(split.patients_learnt_from))
    return own | remembered(run).trained_on


def ancestor(path: Path, split: Split) -> Ancestor:
    """A finished run, an exported model, or by its name the bundled one, for a training of this split to build on.

    Raises:
        ConfigError: It is no finished run, or was trained on what the split tests on.
        ModelError: It is no exported model.
        TrainingError: Its weights are not there.
    """
    if path == Path(BUNDLED) and not path.exists():
        path = bundled_model()
    found = _model(path.resolve()) if path.suffix == ".onnx" else _run(path.resolve())
    known = found.trained_on
    for member in split.test:
        case = member.partition(":")[0]
        kin = not split.leaky and set(split.groups.get(case, ())) & set(known.patients)
        if kin or {member, case} & set(known.members):
            raise ConfigError(
                f"{path} was trained on {member} or its patient, which split {split.name} tests on: "
                "the scores would be no test; take another model, or another split"
            )
    return found


def _model(path: Path) -> Ancestor:
    card = read_card(path)
    if card.quantized:
        raise ConfigError(f"{path} is int8: take the float32 model that it was made of")
    network = network_of(card.network)
    weights = exported_weights(path, network)
    return Ancestor(path, weights, network, card.window_hu, card.neighbours_mm, card.trained_on)


def _run(path: Path) -> Ancestor:
    try:
        config = RunConfig.model_validate_json((path / "config.json").read_bytes())
        result = json.loads((path / "result.json").read_bytes())
        split = Split.model_validate_json((path / "split.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no finished run to build on: name a folder that train wrote, or a model, NAME.onnx"
        ) from error
    weights = load_network(path / result["checkpoint"], config.built).state_dict()
    field, learnt = config.field, trained_on(path, split)
    return Ancestor(path, weights, config.built, field.window_hu, field.neighbours_mm, learnt)


@torch.inference_mode()
def taught(teachers: Sequence[Ancestor], slices: Slices, weight: float) -> NDArray[np.float16]:
    """Soft targets: the teachers' mean probability of lesion with a weight, the reader's mask with the rest.

    Hinton, Vinyals and Dean (2015), arXiv 1503.02531: an ensemble distilled into one network.

    Args:
        teachers: One or more.
        slices: What is trained on, unchanged.
        weight: In [0, 1].

    Returns:
        (n, height, width) in [0, 1].
    """
    told = np.zeros(slices.labels.shape, np.float32)
    for teacher in teachers:
        module = LesionModule(teacher.network, LossConfig(), TrainingConfig()).eval()
        module.load_state_dict(teacher.weights)
        batches = plain_batches(slices, teacher.window_hu, TEACHING_BATCH, neighbours_mm=teacher.neighbours_mm)
        found = [torch.sigmoid(module(image)[:, 0]).numpy() for image, _ in batches]
        told += np.concatenate(found) / len(teachers)
    return (weight * told + (1 - weight) * (slices.labels > 0)).astype(np.float16)
