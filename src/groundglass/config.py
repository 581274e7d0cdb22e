"""A training's configuration: the parts' own configurations in one TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from groundglass.data.augment import AugmentConfig
from groundglass.data.batches import DrawConfig
from groundglass.data.splits import SplitConfig
from groundglass.errors import ConfigError
from groundglass.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.module import TrainingConfig


class FieldConfig(BaseModel):
    """What the network sees of a slice.

    Attributes:
        size: (height, width) in pixels of the lung field, letterboxed.
        window_hu: Lower and upper end of the intensity window, scaled to [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[int, int] = (256, 256)
    window_hu: tuple[float, float] = (-1250.0, 250.0)

    @field_validator("window_hu")
    @classmethod
    def _ascending(cls, window: tuple[float, float]) -> tuple[float, float]:
        if window[0] >= window[1]:
            raise ValueError("the window's lower end comes first")
        return window


class RunConfig(BaseModel):
    """Everything that decides a training; one section of the file each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    field: FieldConfig = FieldConfig()
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    draw: DrawConfig = DrawConfig()
    augment: AugmentConfig = AugmentConfig()
    split: SplitConfig = SplitConfig()
    training: TrainingConfig = TrainingConfig()


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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
