"""The configuration of a training: one TOML file with a section for each part."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, field_validator, model_validator

from groundglass.data.labels import CLASS_LABELS
from groundglass.errors import ConfigError
from groundglass.network.baselines import Architecture, BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.scan.kinds import FieldOfView
from groundglass.strict_model import StrictModel, WindowEnds, first_error
from groundglass.training.augment import AugmentConfig
from groundglass.training.batches import SamplingConfig
from groundglass.training.module import TrainingConfig

Model = TypeVar("Model", bound=BaseModel)


class FieldConfig(StrictModel):
    """The network's input: field of view, size and intensity window.

    Attributes:
        size: (height, width) in pixels of the letterboxed field of view; if left out, that of the prepared folder.
        view: `lungs`, or `slice` for the whole slice as in the paper; if left out, that of the prepared folder.
        window_hu: Lower and upper end of the intensity window in HU, scaled to [0, 1].
        neighbours_mm: Distance in mm to the slices below and above that are added to the input (2.5D); 0 adds none, as
            in the paper.
    """

    size: tuple[int, int] | None = None
    view: FieldOfView | None = None
    window_hu: WindowEnds = (-1250.0, 250.0)
    neighbours_mm: float = 0.0

    @field_validator("neighbours_mm")
    @classmethod
    def _not_negative(cls, distance: float) -> float:
        if distance < 0:
            raise ValueError("a distance must not be negative")
        return distance


class TeachersConfig(StrictModel):
    """Distillation: how much the models named by `train --teacher` contribute to the target.

    Attributes:
        weight: Weight of the teachers' mean probability in the target of the lesion map, from 0 (no teachers) to 1; the
            reader's mask has the rest.
    """

    weight: float = 0.0

    @field_validator("weight")
    @classmethod
    def _from_0_to_1(cls, weight: float) -> float:
        if not 0 <= weight <= 1:
            raise ValueError("the weight of the teachers must be from 0 to 1")
        return weight


class RunConfig(StrictModel):
    """Everything that determines a training except its data; each section of the file is one field.

    Attributes:
        name: Name of the run.
        classes: Output maps in addition to lesion: any of `ground-glass`, `consolidation`, `effusion`.
        lung_map: Also learn where the lungs are, as a second task; exported models leave this map out.
        baseline: A baseline architecture in place of the paper's network; it uses only the widths of `network`.
        field: Field of view, size and intensity window of the input.
        network: Widths and switches of the network; its output follows from `classes`, its input from `field`.
        loss: Weights of the loss.
        sampling: How the slices of an epoch are sampled.
        augment: Strength of the augmentation.
        teachers: Weight of other models in the target.
        training: Optimiser, schedule, length, seed.
    """

    name: str
    classes: tuple[str, ...] = ()
    lung_map: bool = False
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
            raise ValueError(f"expected any of {', '.join(CLASS_LABELS)}, each at most once")
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.field.neighbours_mm and not self.sampling.lesion_free:
            raise ValueError("field.neighbours_mm needs sampling.lesion_free = true: neighbours may be free of lesion")
        if self.teachers.weight and not self.loss.cross_entropy:
            raise ValueError("teachers.weight needs loss.cross_entropy above 0: a Tversky loss rounds soft targets")
        if self.baseline and self.lung_map:
            raise ValueError(f"{self.baseline} learns no lungs: leave out lung_map")
        if self.sampling.transplant_prob and not self.lung_map:
            raise ValueError("sampling.transplant_prob needs lung_map = true: lesions go into lungs alone")
        if self.baseline and self.network != NetworkConfig(self.network.widths):
            raise ValueError(f"{self.baseline} has no switches: leave only widths in [network]")
        _ = self.network_config  # raises ValueError if no such network can be built
        return self

    @property
    def output_classes(self) -> tuple[str, ...]:
        """Meaning of each output map: lesion, then `classes`."""
        return ("lesion", *self.classes)

    @property
    def network_config(self) -> NetworkConfig | BaselineConfig:
        """Complete configuration of the network that is exported, with its numbers of input slices and output maps."""
        slices, classes = 3 if self.field.neighbours_mm else 1, len(self.output_classes)
        if self.baseline:
            return BaselineConfig(self.baseline, self.network.widths, classes, slices)
        return replace(self.network, classes=classes, slices=slices)

    @property
    def training_network(self) -> NetworkConfig | BaselineConfig:
        """Configuration of the network that is trained: the exported one, with a map of the lungs if configured."""
        return replace(self.network_config, classes=len(self.output_classes) + self.lung_map)


# {key of version 0.1: its name since 0.2}, as dotted paths in the configuration of a training.
RENAMED_KEYS = {
    "draw": "sampling",
    "peer": "baseline",
    "augment.upside_down": "augment.rotate_180_prob",
    "augment.alone": "augment.drop_neighbours_prob",
    "training.halve_after": "training.lr_patience",
    "training.stop_after": "training.early_stopping_patience",
}


def read_config(path: Path) -> RunConfig:
    """Read the TOML file of a training's configuration.

    Raises:
        ConfigError: The file is missing or not TOML, a key is unknown or was renamed, or a value is invalid.
    """
    return parse_config(read_toml(path), str(path))


def read_stored_config(run: Path) -> RunConfig:
    """Read the `config.json` of a run folder.

    Raises:
        ConfigError: The run is of an older version; the message names the key that was renamed.
        OSError: The file cannot be read.
        ValueError: The file is damaged.
    """
    text = (run / "config.json").read_bytes()
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its lists nest without end") from None
    refuse_renamed_keys(content, f"{run} is a run of an older version, train it again; in its config.json")
    return RunConfig.model_validate_json(text)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: The file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse_config(content: dict[str, Any], location: str) -> RunConfig:
    """Return the configuration of a training from the content of a file.

    Raises:
        ConfigError: A key is unknown or was renamed, or a value is invalid; the message begins with `location`.
    """
    refuse_renamed_keys(content, location)
    return validate(RunConfig, content, location)


def validate(model: type[Model], content: dict[str, Any], location: str) -> Model:
    """Validate the content of a file with a pydantic model.

    Raises:
        ConfigError: A key is unknown, or a value is invalid; the message begins with `location`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{location}: {first_error(error)}") from error


def refuse_renamed_keys(content: Any, location: str, table: str = "") -> None:
    """Refuse keys of version 0.1 with an error that names the new key.

    Args:
        content: The configuration of a training or some of its sections, as nested dicts.
        location: The beginning of the message.
        table: The table of the file that holds `content`, such as `change.`.

    Raises:
        ConfigError: A key was renamed.
    """
    for old, new in RENAMED_KEYS.items():
        section, _, key = old.rpartition(".")
        keys = content.get(section) if section and isinstance(content, dict) else content
        if isinstance(keys, dict) and key in keys:
            raise ConfigError(f"{location}: the key {table}{old} is now called {table}{new}")
