"""Running an ONNX model: one protocol, two engines.

A model runs in bfloat16 where the CPU is faster in it, else in float32: the two agree to a Dice of 0.999, so that a
scan has one burden on every machine. An int8 version NAME-int8.onnx beside it, made by `groundglass quantize`, is
faster on some CPUs and marks less on others, so that it runs only where a user asks for it. docs/performance.md gives
the speed and the loss of accuracy of each. In float32 the mask is the same for every batch size and number of threads.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import EngineError
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig, EngineName, Precision

# ONNX Runtime sends telemetry and writes a device's id into the home unless this is set before it is loaded: the whole
# process, and those that it starts, keep it, as several threads open engines.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

GPU_DEVICE = Path("/dev/nvidiactl")
CPU_INFO = Path("/proc/cpuinfo")
OPENVINO_CONVERTER = "openvino.tools.ovc"  # the library goes without it where its import fails


@dataclass(frozen=True)
class EngineCard:
    """Describes the engine that runs a model.

    Attributes:
        name: Name and version of the library.
        precision: Number format the model is computed in.
        threads: Number of threads; None: one for each core.
        reason: Why this engine and this precision were chosen.
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
        """Compute (n, classes, height, width) logits from (n, slices, height, width) images in [0, 1]."""
        ...


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities, as `scipy.special.expit` does to a rounding, whose import takes a fifth of a second."""
    with np.errstate(over="ignore"):  # infinity gives 0
        return np.float32(1) / (np.float32(1) + np.exp(-logits.astype(np.float64)).astype(np.float32))


def log_odds(probability: NDArray[np.float32], smallest: float) -> NDArray[np.float32]:
    """Return log(p / (1 - p)), the inverse of `sigmoid`; what is surer than `smallest` counts no more than that."""
    likely = probability.clip(np.float32(smallest), np.float32(1 - smallest))
    return np.asarray(np.log(likely / (1 - likely)), dtype=np.float32)


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Keep OpenVINO and NNCF from sending telemetry while `with` lasts; the environment is restored afterwards.

    Both send it, and look up hosts to do so, unless the environment variable `CI` is set; they read it on import.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("CI", None)
        else:
            os.environ["CI"] = before


def int8_model_path(model: Path) -> Path:
    """Return where the int8 version of a model lies, if it has one."""
    return model.with_name(f"{model.stem}-int8.onnx")


def choose_model_file(model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> Path:
    """Choose between a model and its int8 version, which is for those who ask for it.

    Raises:
        EngineError: The user asks for int8, and the model has no int8 version.
    """
    if config.precision is not Precision.INT8:
        return model
    int8 = int8_model_path(model)
    if not int8.is_file():
        raise EngineError(f"{int8} is not there: make it with groundglass quantize, or ask for --precision f32")
    return int8


class OpenVINOEngine:
    """Intel's OpenVINO: the fastest engine on a CPU."""

    def __init__(
        self, model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG, shape: tuple[int, int, int] | None = None
    ) -> None:
        """Compile a model.

        Args:
            model: The ONNX file.
            config: Precision and threads that the user asks for.
            shape: (slices, height, width) of every image to come: the model is compiled for it, and the images of a
                batch are computed in parallel, each in a stream of its own, which is faster for a scan. None: images
                may differ in size, and all threads compute the batch as a whole, which is faster for a single image.

        Raises:
            EngineError: The CPU does not compute in the precision that the user asks for.
        """
        with no_telemetry():
            import openvino
            from openvino.frontend import FrontEndManager
        core: Any = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        faster = native and _gains_from_bf16(core.get_property("CPU", "FULL_DEVICE_NAME"))
        precision = config.precision or (Precision.BF16 if faster else Precision.F32)
        if precision is Precision.BF16 and not native:
            raise EngineError("this CPU does not compute in bfloat16: ask for --precision f32")
        rest = Precision.BF16 if native and precision is not Precision.F32 else Precision.F32  # not quantised
        # A core would also read OpenVINO's own format in a file of that name, with weights of another file.
        reader = FrontEndManager().load_by_framework("onnx")
        network = reader.convert(reader.load(str(model)))
        self._one_by_one = shape is not None
        if shape is not None:
            network.reshape([1, *shape])
        hint = "THROUGHPUT" if self._one_by_one else "LATENCY"
        settings = {"INFERENCE_PRECISION_HINT": rest.value, "PERFORMANCE_HINT": hint}
        if config.threads is not None:  # several engines would all be pinned to the first cores
            settings |= {"INFERENCE_NUM_THREADS": str(config.threads), "ENABLE_CPU_PINNING": "NO"}
        compiled = core.compile_model(network, "CPU", settings)
        # Twice as many requests as are computed at once: the next image waits in the library, not in Python.
        count = 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            self._idle.put(compiled.create_infer_request())
        self._threads = ThreadPoolExecutor(count)
        # Threads that were the first to exchange arrays with the library, at the same moment, would wait for each other
        # for ever: one holds Python's lock, the other that of what the library sets up once.
        openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018
        if precision is Precision.INT8:
            reason = f"the model comes in int8, the rest of it in {rest}"
        elif config.precision:
            reason = "as requested"
        else:
            reason = f"the CPU {'is faster' if faster else 'is slower' if native else 'does not compute'} in bfloat16"
        self.card = EngineCard(f"OpenVINO {version('openvino')}", precision.value, config.threads, reason)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute (n, classes, height, width) logits from (n, slices, height, width) images in [0, 1]."""
        parts = np.split(images, len(images)) if self._one_by_one else [images]
        return np.concatenate(list(self._threads.map(self._infer, parts)))

    def _infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self._idle.get()
        try:
            return np.asarray(request.infer({0: images})[0], dtype=np.float32)
        finally:
            self._idle.put(request)


class OnnxRuntimeEngine:
    """ONNX Runtime in float32: for NVIDIA GPUs, with its build for them, and for machines without OpenVINO."""

    def __init__(self, model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> None:
        import onnxruntime

        if config.precision is Precision.BF16:
            raise EngineError("ONNX Runtime computes in float32: ask for --precision f32")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        self._session = onnxruntime.InferenceSession(str(model), options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        on_gpu = self._session.get_providers()[0] == "CUDAExecutionProvider"
        reason = "as requested" if config.engine else "OpenVINO does not run here"
        reason = "a GPU is available" if on_gpu else reason
        precision = config.precision or Precision.F32
        self.card = EngineCard(f"ONNX Runtime {onnxruntime.__version__}", precision.value, config.threads, reason)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute (n, classes, height, width) logits from (n, slices, height, width) images in [0, 1]."""
        return np.asarray(self._session.run(None, {self._input: images})[0], dtype=np.float32)


def open_engine(
    model: Path, config: EngineConfig = DEFAULT_ENGINE_CONFIG, shape: tuple[int, int, int] | None = None
) -> Engine:
    """Open the engine that the user asks for, or the first that is installed and accepts the model.

    Args:
        model: The ONNX file.
        config: Engine, precision and threads that the user asks for.
        shape: (slices, height, width) of every image to come; None: images may differ in size.

    Raises:
        EngineError: No engine can run the model; the message holds the reason of each.
    """
    reasons = []
    engines: dict[EngineName, Callable[[Path, EngineConfig], Engine]] = {
        EngineName.OPENVINO: partial(OpenVINOEngine, shape=shape),
        EngineName.ONNXRUNTIME: OnnxRuntimeEngine,
    }
    for name in _preferred_engines():
        if config.engine not in (None, name):
            continue
        if importlib.util.find_spec(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        try:
            return engines[name](model, config)
        except Exception as error:  # libraries raise errors of many types; the next engine may run the model
            reasons.append(f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise EngineError(f"no engine can run {model.name}: {'; '.join(reasons)}")


def import_engine(config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> None:
    """Import the library that `open_engine` will probably choose; that function says what is wrong with it.

    For programs that call nothing else of OpenVINO: it comes without its converter, whose import takes a sixth of a
    second, with the telemetry that it loads.
    """
    with suppress(Exception), no_telemetry(), _without_module(OPENVINO_CONVERTER):
        importlib.import_module(config.engine or _preferred_engines()[0])


@contextmanager
def _without_module(name: str) -> Iterator[None]:
    """Let the import of a module fail while `with` lasts, unless it was imported before."""
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is documented for this
    try:
        yield
    finally:
        if sys.modules[name] is None:
            del sys.modules[name]


def _gains_from_bf16(cpu: str) -> bool:
    """Return whether a CPU that computes in bfloat16 does so faster than in float32.

    Intel's do with AMX. With the bfloat16 of AVX-512 alone they multiply no faster, and convolutions take longer.

    Args:
        cpu: Its name.
    """
    flags = CPU_INFO.read_text() if CPU_INFO.is_file() else ""
    return "Intel" not in cpu or "amx_bf16" in flags


def _preferred_engines() -> tuple[EngineName, ...]:
    """Return the engines, the fastest on this machine first."""
    names = tuple(EngineName)
    return names[::-1] if _has_gpu() else names


def _has_gpu() -> bool:
    """Return whether there is an NVIDIA GPU, and ONNX Runtime's build for it is installed."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return GPU_DEVICE.exists()
