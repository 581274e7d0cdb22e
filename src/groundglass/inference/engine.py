"""Running an ONNX model: one protocol, two engines.

Both compute in float32, so that they give the same mask.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import EngineError


class Engine(Protocol):
    """Runs a network."""

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

    def __init__(self, model: Path) -> None:
        with _no_telemetry():
            import openvino
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = core.compile_model(core.read_model(model), "CPU", settings)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._compiled(images)[0], dtype=np.float32)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU: where OpenVINO does not run."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._session.run(None, {self._input: images})[0], dtype=np.float32)


def open_engine(model: Path) -> Engine:
    """The first engine that is installed and takes the model.

    Raises:
        EngineError: None does; the message holds each one's reason.
    """
    reasons = []
    for module, engine in (("openvino", OpenVINOEngine), ("onnxruntime", OnnxRuntimeEngine)):
        if importlib.util.find_spec(module) is None:
            reasons.append(f"{module} is not installed")
            continue
        try:
            return engine(model)
        except Exception as error:  # whatever an engine's library raises, the next one may do
            reasons.append(f"{module}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise EngineError(f"no engine can run {model.name}: {'; '.join(reasons)}")
