"""Running an ONNX model: one protocol, two engines.

In float32 both give the same mask, whatever the batch and the number of threads. Where a CPU computes in bfloat16 of
its own, OpenVINO takes that by default: twice as fast, and the mask differs at a few rims (docs/performance.md).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import EngineError
from groundglass.inference.engine_config import ON_THIS_MACHINE, EngineConfig, EngineName, Precision


@dataclass(frozen=True)
class EngineCard:
    """What runs a model.

    Attributes:
        name: And version.
        precision: In what it computes.
        threads: How many; None: all cores.
        reason: Why that.
    """

    name: str
    precision: str
    threads: int | None
    reason: str

    def __str__(self) -> str:
        threads = "all cores" if self.threads is None else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.name}, {self.precision}, {threads}: {self.reason}"


class Engine(Protocol):
    """Runs a network."""

    card: EngineCard

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        ...


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """OpenVINO's telemetry looks up hosts unless it believes to be in a CI; this program calls nobody."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


class OpenVINOEngine:
    """Intel's engine: the fastest on a CPU."""

    def __init__(self, model: Path, config: EngineConfig = ON_THIS_MACHINE) -> None:
        with _no_telemetry():
            import openvino
        core: Any = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = config.precision or (Precision.BF16 if native else Precision.F32)
        if precision is Precision.BF16 and not native:
            raise EngineError("this CPU does not compute in bfloat16: ask for --precision f32")
        settings = {"INFERENCE_PRECISION_HINT": precision.value, "PERFORMANCE_HINT": "LATENCY"}
        if config.threads is not None:  # engines side by side would all be pinned to the first cores
            settings |= {"INFERENCE_NUM_THREADS": str(config.threads), "ENABLE_CPU_PINNING": "NO"}
        self._compiled = core.compile_model(core.read_model(model), "CPU", settings)
        why = "as asked" if config.precision else f"the CPU {'computes' if native else 'does not compute'} in bfloat16"
        self.card = EngineCard(f"OpenVINO {version('openvino')}", precision.value, config.threads, why)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._compiled(images)[0], dtype=np.float32)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU, in float32: where OpenVINO does not run."""

    def __init__(self, model: Path, config: EngineConfig = ON_THIS_MACHINE) -> None:
        import onnxruntime

        if config.precision is Precision.BF16:
            raise EngineError("ONNX Runtime computes in float32 on a CPU: ask for --precision f32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        why = "as asked" if config.engine else "OpenVINO does not run here"
        self.card = EngineCard(f"ONNX Runtime {version('onnxruntime')}", Precision.F32.value, config.threads, why)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._session.run(None, {self._input: images})[0], dtype=np.float32)


def open_engine(model: Path, config: EngineConfig = ON_THIS_MACHINE) -> Engine:
    """The engine that is asked for, or the first that is installed and takes the model.

    Raises:
        EngineError: None does; the message holds each one's reason.
    """
    reasons = []
    for name, engine in ((EngineName.OPENVINO, OpenVINOEngine), (EngineName.ONNXRUNTIME, OnnxRuntimeEngine)):
        if config.engine not in (None, name):
            continue
        if importlib.util.find_spec(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        try:
            return engine(model, config)
        except Exception as error:  # whatever an engine's library raises, the next one may do
            reasons.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise EngineError(f"no engine can run {model.name}: {'; '.join(reasons)}")
