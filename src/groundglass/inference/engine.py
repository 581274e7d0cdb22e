"""Running an ONNX model: one protocol, two engines.

A model NAME.onnx may have a twin NAME-int8.onnx beside it, made by `groundglass quantize`: OpenVINO takes that by
default, several times as fast as float32 on any CPU of the last years. A model without one runs in bfloat16 where the
CPU computes in it of its own, and so does the rest of an int8 one. What each costs is in docs/performance.md. In
float32 the mask is the same for every batch and number of threads.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import EngineError
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig, EngineName, Precision

GPU_DEVICE = Path("/dev/nvidiactl")


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
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        ...


@contextmanager
def no_telemetry() -> Iterator[None]:
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


def int8_model_path(model: Path) -> Path:
    """Where a model's int8 twin lies, if it has one."""
    return model.with_name(f"{model.stem}-int8.onnx")


def choose(model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> tuple[Path, EngineConfig]:
    """The file that will run, and in what: the int8 twin where it is asked for, or nothing else is.

    Raises:
        EngineError: int8 is asked for, and there is no twin.
    """
    int8 = int8_model_path(model)
    if config.precision is Precision.INT8 and not int8.is_file():
        raise EngineError(f"{int8} is not there: make it with groundglass quantize, or ask for --precision f32")
    # ONNX Runtime takes it too, but is slower with it than in float32.
    unasked = config.precision is None and (config.engine or _order()[0]) is EngineName.OPENVINO
    if config.precision is Precision.INT8 or (unasked and int8.is_file() and importlib.util.find_spec("openvino")):
        return int8, replace(config, precision=Precision.INT8)
    return model, config


class OpenVINOEngine:
    """Intel's engine: the fastest on a CPU.

    Where it is told the shape of its input it is compiled for that, and images are computed side by side, each in a
    stream of its own; else each batch as one, in all threads. The first is faster for a scan, the second for a picture.
    """

    def __init__(
        self, model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG, shape: tuple[int, int, int] | None = None
    ) -> None:
        with no_telemetry():
            import openvino
        core: Any = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = config.precision or (Precision.BF16 if native else Precision.F32)
        if precision is Precision.BF16 and not native:
            raise EngineError("this CPU does not compute in bfloat16: ask for --precision f32")
        rest = Precision.BF16 if native and precision is not Precision.F32 else Precision.F32  # of an int8 model
        network = core.read_model(model)
        self._singly = shape is not None
        if shape is not None:
            network.reshape([1, *shape])
        hint = "THROUGHPUT" if self._singly else "LATENCY"
        settings = {"INFERENCE_PRECISION_HINT": rest.value, "PERFORMANCE_HINT": hint}
        if config.threads is not None:  # engines side by side would all be pinned to the first cores
            settings |= {"INFERENCE_NUM_THREADS": str(config.threads), "ENABLE_CPU_PINNING": "NO"}
        self._queue = openvino.AsyncInferQueue(core.compile_model(network, "CPU", settings))
        why = "as asked" if config.precision else f"the CPU {'computes' if native else 'does not compute'} in bfloat16"
        if precision is Precision.INT8:
            why = f"the model comes in int8, the rest of it in {rest}"
        self.card = EngineCard(f"OpenVINO {version('openvino')}", precision.value, config.threads, why)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        parts = np.split(images, len(images)) if self._singly else [images]
        logits: dict[int, NDArray[np.float32]] = {}

        def keep(request: Any, place: int) -> None:
            logits[place] = request.get_output_tensor(0).data.astype(np.float32)

        self._queue.set_callback(keep)
        for place, part in enumerate(parts):
            self._queue.start_async({0: part}, place)
        self._queue.wait_all()
        return np.concatenate([logits[place] for place in range(len(parts))])


class OnnxRuntimeEngine:
    """ONNX Runtime in float32: on an NVIDIA GPU where it was built for one, and where OpenVINO does not run."""

    def __init__(self, model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> None:
        import onnxruntime

        if config.precision is Precision.BF16:
            raise EngineError("ONNX Runtime computes in float32: ask for --precision f32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        found = onnxruntime.get_available_providers()
        providers = [each for each in ("CUDAExecutionProvider", "CPUExecutionProvider") if each in found]
        self._session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        on_gpu = self._session.get_providers()[0] == "CUDAExecutionProvider"
        why = "as asked" if config.engine else "OpenVINO does not run here"
        why = "a GPU is there" if on_gpu else why
        precision = config.precision or Precision.F32
        self.card = EngineCard(f"ONNX Runtime {onnxruntime.__version__}", precision.value, config.threads, why)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._session.run(None, {self._input: images})[0], dtype=np.float32)


def open_engine(
    model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG, shape: tuple[int, int, int] | None = None
) -> Engine:
    """The engine that is asked for, or the first that is installed and takes the model.

    Args:
        model: The ONNX file.
        config: What is asked for.
        shape: (slices, height, width) of every image to come; None: they may differ.

    Raises:
        EngineError: None does; the message holds each one's reason.
    """
    reasons = []
    engines: dict[EngineName, Callable[[Path, EngineConfig], Engine]] = {
        EngineName.OPENVINO: partial(OpenVINOEngine, shape=shape),
        EngineName.ONNXRUNTIME: OnnxRuntimeEngine,
    }
    for name in _order():
        if config.engine not in (None, name):
            continue
        if importlib.util.find_spec(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        try:
            return engines[name](model, config)
        except Exception as error:  # whatever an engine's library raises, the next one may do
            reasons.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise EngineError(f"no engine can run {model.name}: {'; '.join(reasons)}")


def _order() -> tuple[EngineName, ...]:
    """The engines, the fastest first."""
    names = tuple(EngineName)
    return names[::-1] if _has_gpu() else names


def _has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, and ONNX Runtime's build for it."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return GPU_DEVICE.exists()
