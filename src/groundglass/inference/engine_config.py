"""What a user may ask of an engine. Light, so that the command line can name it without loading one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EngineName(StrEnum):
    """The engines, the fastest first."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


class Precision(StrEnum):
    """What an engine computes in."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True)
class EngineConfig:
    """What a user asks for; None leaves it to the machine.

    Attributes:
        engine: Which; None: the first that is installed and takes the model.
        precision: In what it computes; None: int8 where the model comes in it too, else bf16 where the CPU computes in
            it of its own, else f32.
        threads: How many; None: all cores.
    """

    engine: EngineName | None = None
    precision: Precision | None = None
    threads: int | None = None


DEFAULT_ENGINE_CONFIG = EngineConfig()  # all of it left to the machine
