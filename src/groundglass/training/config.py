"""A training's configuration: the parts' own configurations in one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from groundglass.data.slices import CLASS_LABELS
from groundglass.errors import ConfigError
from groundglass.network.baselines import Architecture, BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.scan.kinds import FieldOfView
from groundglass.strict_model import first_error
from groundglass.training.augment import AugmentConfig
from groundglass.training.batches import SamplingConfig
from groundglass.training.module import TrainingConfig

Model = TypeVar("Model", bound=BaseModel)


class FieldConfig(BaseModel):
    """What the network sees of a slice.

    Attributes:
        size: (height, width) in pixels of the field of view, letterboxed; left out: what was prepared.
        view: `lungs` or `slice` (the whole one, as in the paper); left out: what was prepared.
        window_hu: Lower and upper end of the intensity window, scaled to [0, 1].
        neighbours_mm: How far the slices lie, below and above, that it sees besides (2.5D); 0: none, as in the paper.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int] | None = None
    view: FieldOfView | None = None
    window_hu: tuple[float, float] = (-1250.0, 250.0)
    neighbours_mm: float = 0.0

    @field_validator("neighbours_mm")
    @classmethod
    def _apart(cls, distance: float) -> float:
        if distance < 0:
            raise ValueError("a distance is not negative")
        return distance

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, window: tuple[float, float]) -> tuple[float, float]:
        if window[0] >= window[1]:
            raise ValueError("the window's lower end comes first")
        return window


class TeachersConfig(BaseModel):
    """How far a training believes its teachers (`train --teacher`): ensembles distilled into one network.

    Attributes:
        weight: Of the teachers' mean probability in the lesion map's target, the reader's mask having the rest; 0:
            there are no teachers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = 0.0

    @field_validator("weight")
    @classmethod
    def _share(cls, weight: float) -> float:
        if not 0 <= weight <= 1:
            raise ValueError("a weight of teachers is from 0 to 1")
        return weight


class RunConfig(BaseModel):
    """Everything that decides a training but its data; one section of the file each.

    Attributes:
        name: Of the run.
        classes: Maps besides the lesion's, of `ground-glass`, `consolidation`, `effusion`.
        peer: A network of others in the place of the paper's; it takes the widths of `network`, and nothing else.
        field: What the network sees of a slice.
        network: The network's switches; its maps follow from `classes`, its input from `field`.
        loss: The loss.
        draw: How an epoch's slices are drawn.
        augment: How far they are changed.
        teachers: How far other models are believed.
        training: Optimiser, schedule, length, seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[str, ...] = ()
    baseline: Architecture | None = None
    field: FieldConfig = FieldConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    teachers: TeachersConfig = TeachersConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not set(classes) <= set(CLASS_LABELS) or len(set(classes)) < len(classes):
            raise ValueError(f"classes are of {', '.join(CLASS_LABELS)}, each once")
        return classes

    @property
    def maps(self) -> tuple[str, ...]:
        """What each output map means: lesion, then the classes."""
        return ("lesion", *self.classes)

    @model_validator(mode="after")
    def _buildable(self) -> RunConfig:
        if self.field.neighbours_mm and not self.sampling.lesion_free:
            raise ValueError("field.neighbours_mm wants sampling.lesion_free = true: neighbours may be free of lesion")
        if self.teachers.weight and not self.loss.cross_entropy:
            raise ValueError("teachers.weight wants loss.cross_entropy above 0: a Tversky index rounds soft targets")
        if self.baseline and self.network != NetworkConfig(self.network.widths):
            raise ValueError(f"{self.baseline} has no switches: of [network] leave widths only")
        _ = self.built
        return self

    @property
    def built(self) -> NetworkConfig | BaselineConfig:
        """The network as it is built, with a map for each of `maps`."""
        slices = 3 if self.field.neighbours_mm else 1
        if self.baseline:
            return BaselineConfig(self.baseline, self.network.widths, len(self.maps), slices)
        return replace(self.network, classes=len(self.maps), slices=slices)


def read_config(path: Path) -> RunConfig:
    """Read a configuration.

    Raises:
        ConfigError: The file is missing or no TOML, a key is unknown, or a value is of the wrong kind.
    """
    return checked(RunConfig, read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        ConfigError: The file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


# {key of version 0.1: its name since 0.2}, as paths in a run's configuration.
RENAMED_KEYS = {
    "draw": "sampling",
    "peer": "baseline",
    "augment.upside_down": "augment.rotate_180_prob",
    "augment.alone": "augment.drop_neighbours_prob",
    "training.halve_after": "training.lr_patience",
    "training.stop_after": "training.early_stopping_patience",
}


def refuse_renamed_keys(content: dict[str, Any], where: str) -> None:
    """Refuse keys of version 0.1 with an error that names the new key.

    Args:
        content: A run's configuration, or a part of one, as nested dicts.
        where: The beginning of the message.

    Raises:
        ConfigError: A key has been renamed.
    """
    for old, new in RENAMED_KEYS.items():
        section, _, key = old.rpartition(".")
        keys = content.get(section, {}) if section else content
        if isinstance(keys, dict) and key in keys:
            raise ConfigError(f"{where}: {old} is now called {new}: rename it")


def checked(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """A configuration from what a file holds.

    Raises:
        ConfigError: A key is unknown or a value is of the wrong kind; the message begins with `where`.
    """
    refuse_renamed_keys(content, where)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_error(error)}") from error
