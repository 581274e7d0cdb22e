"""A training's configuration: the parts' own configurations in one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from groundglass.data.augment import AugmentConfig
from groundglass.data.batches import DrawConfig
from groundglass.data.slices import CLASS_LABELS
from groundglass.errors import ConfigError, first_fault
from groundglass.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.scan.lungs import FieldOfView
from groundglass.training.module import TrainingConfig


class FieldConfig(BaseModel):
    """What the network sees of a slice.

    Attributes:
        size: (height, width) in pixels of the field of view, letterboxed; left out: what was prepared.
        view: `lungs` or `slice` (the whole one, as in the paper); left out: what was prepared.
        window_hu: Lower and upper end of the intensity window, scaled to [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int] | None = None
    view: FieldOfView | None = None
    window_hu: tuple[float, float] = (-1250.0, 250.0)

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, window: tuple[float, float]) -> tuple[float, float]:
        if window[0] >= window[1]:
            raise ValueError("the window's lower end comes first")
        return window


class RunConfig(BaseModel):
    """Everything that decides a training but its data; one section of the file each.

    Attributes:
        name: Of the run.
        classes: Maps besides the lesion's, of `ground-glass`, `consolidation`, `effusion`.
        field: What the network sees of a slice.
        network: The network's switches; its number of classes follows from `classes`.
        loss: The loss.
        draw: How an epoch's slices are drawn.
        augment: How far they are changed.
        training: Optimiser, schedule, length, seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[str, ...] = ()
    field: FieldConfig = FieldConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    draw: DrawConfig = DrawConfig()
    augment: AugmentConfig = AugmentConfig()
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

    @property
    def built(self) -> NetworkConfig:
        """The network as it is built, with a map for each of `maps`."""
        return replace(self.network, classes=len(self.maps))


def read_config(path: Path) -> RunConfig:
    """Read a configuration.

    Raises:
        ConfigError: The file is missing or no TOML, a key is unknown, or a value is of the wrong kind.
    """
    try:
        return RunConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error)}") from error
