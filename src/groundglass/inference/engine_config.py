"""Engine settings that a user may choose. The module loads no engine, so that the command line starts quickly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from groundglass.errors import ConfigError


class EngineName(StrEnum):
    """The engines, the fastest first."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


class Precision(StrEnum):
    """Number formats that a model can be computed in."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True)
class EngineConfig:
    """Settings of an engine; None leaves the choice to the program.

    Attributes:
        engine: The engine, or its name; None: the first that is installed and accepts the model.
        precision: Number format of the computation, or its name; None: bf16 where the CPU is faster in it, else f32.
        threads: Number of threads; None: one for each core.
        fast: Look at each slice once, even with a model that averages it with its mirror image.

    Raises:
        ConfigError: A name is that of no engine, or of no number format.
    """

    engine: EngineName | None = None
    precision: Precision | None = None
    threads: int | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("engine", EngineName), ("precision", Precision)):
            value = getattr(self, name)
            if value is not None and value not in set(kind):
                raise ConfigError(f"the {name} is {value!r}, expected one of {', '.join(kind)}")
            object.__setattr__(self, name, None if value is None else kind(value))


DEFAULT_ENGINE_CONFIG = EngineConfig()
