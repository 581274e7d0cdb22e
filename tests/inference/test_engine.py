import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, save
from scipy.special import expit

from groundglass.errors import EngineError
from groundglass.inference import engine as engines
from groundglass.inference.engine import (
    OnnxRuntimeEngine,
    OpenVINOEngine,
    choose_model_file,
    int8_model_path,
    no_telemetry,
    open_engine,
    sigmoid,
)
from groundglass.inference.engine_config import EngineConfig, EngineName, Precision


@pytest.fixture
def double_plus_one(tmp_path: Path) -> Path:
    """A model of any batch and size that computes 2 x + 1."""
    shape: list[str | int | None] = ["n", 1, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"]), helper.make_node("Add", ["y", "one"], ["z"])],
        "double_plus_one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)],
        [helper.make_tensor("two", TensorProto.FLOAT, [], [2]), helper.make_tensor("one", TensorProto.FLOAT, [], [1])],
    )
    path = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.mark.parametrize("engine", [OpenVINOEngine, OnnxRuntimeEngine])
@pytest.mark.parametrize("shape", [(1, 1, 4, 5), (3, 1, 8, 6)])
@pytest.mark.parametrize("threads", [None, 1])
def test_each_engine_computes_the_model_in_float32(
    double_plus_one: Path, engine: type[OpenVINOEngine | OnnxRuntimeEngine], shape: tuple[int, ...], threads: int | None
) -> None:
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    config = engine(double_plus_one, EngineConfig(precision=Precision.F32, threads=threads))
    assert (config.card.precision, config.card.threads) == ("f32", threads)
    y = config.run(x)
    assert y.dtype == np.float32
    assert np.abs(y - (2 * x + 1)).max() < 1e-6  # bfloat16 would be off by 1e-3


def test_openvino_is_opened_by_default(double_plus_one: Path) -> None:
    assert isinstance(open_engine(double_plus_one), OpenVINOEngine)


def test_onnx_runtime_is_opened_where_openvino_fails(double_plus_one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(engines, "OpenVINOEngine", broken)
    assert isinstance(open_engine(double_plus_one), OnnxRuntimeEngine)


def test_the_engine_that_the_user_asks_for_is_opened(double_plus_one: Path) -> None:
    engine = open_engine(double_plus_one, EngineConfig(engine=EngineName.ONNXRUNTIME))
    assert isinstance(engine, OnnxRuntimeEngine)
    assert str(engine.card).startswith("ONNX Runtime ")
    assert str(engine.card).endswith(", f32, all cores: as requested")
    with pytest.raises(EngineError, match=r"model\.onnx: onnxruntime: .* computes in float32"):
        open_engine(double_plus_one, EngineConfig(EngineName.ONNXRUNTIME, Precision.BF16))


def test_a_gpu_is_used_where_the_build_for_it_is_installed(
    double_plus_one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    class Session:
        """Records the providers that it was given; no GPU is needed."""

        def __init__(self, _: str, options: object, providers: list[str]) -> None:
            self.get_providers = lambda: providers

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="x")]

    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    installed = {"onnxruntime-gpu", "openvino"}  # onnxruntime-gpu replaces onnxruntime

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(engines, "version", version)
    assert isinstance(open_engine(double_plus_one), OpenVINOEngine)  # there is no GPU
    monkeypatch.setattr(engines, "GPU_DEVICE", double_plus_one)  # any file that exists
    engine = open_engine(double_plus_one)
    assert isinstance(engine, OnnxRuntimeEngine)
    assert vars(engine)["_session"].get_providers() == providers[1:]
    assert engine.card.reason == "a GPU is available"


def test_the_int8_version_runs_only_on_request(double_plus_one: Path) -> None:
    asked = EngineConfig(precision=Precision.INT8)
    with pytest.raises(EngineError, match=r"-int8\.onnx is not there: make it with groundglass quantize"):
        choose_model_file(double_plus_one, asked)
    int8_model_path(double_plus_one).touch()
    assert choose_model_file(double_plus_one, asked) == int8_model_path(double_plus_one)
    for config in (EngineConfig(), EngineConfig(EngineName.ONNXRUNTIME), EngineConfig(precision=Precision.F32)):
        assert choose_model_file(double_plus_one, config) == double_plus_one


@pytest.mark.parametrize(
    ("native", "cpu", "flags", "expected"),
    [
        (True, "Intel(R) Xeon(R) Processor", "avx512_bf16 amx_bf16", "bf16"),
        (True, "Intel(R) Xeon(R) Processor", "avx512_bf16", "f32"),
        (True, "AMD EPYC 9R14", "avx512_bf16", "bf16"),
        (False, "Intel(R) Xeon(R) Processor", "", "f32"),
    ],
)
def test_bfloat16_is_the_default_where_it_is_faster(
    native: bool, cpu: str, flags: str, expected: str, double_plus_one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    class Core:
        def get_property(self, _: str, name: str) -> list[str] | str:
            return cpu if name == "FULL_DEVICE_NAME" else ["FP32", "BF16"] if native else ["FP32"]

        def read_model(self, path: Path) -> Path:
            return path

        def compile_model(self, _: Path, device: str, settings: dict[str, str]) -> SimpleNamespace:
            compiled.append(settings)
            return SimpleNamespace(get_property=lambda _: 2, create_infer_request=object)

    compiled: list[dict[str, str]] = []

    cpu_info = double_plus_one.with_name("cpuinfo")
    cpu_info.write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(engines, "CPU_INFO", cpu_info)
    monkeypatch.setattr(openvino, "Core", Core)
    engine = OpenVINOEngine(double_plus_one)
    assert engine.card.precision == expected
    assert [settings["INFERENCE_PRECISION_HINT"] for settings in compiled] == [engine.card.precision]
    assert OpenVINOEngine(double_plus_one, EngineConfig(precision=Precision.F32)).card.precision == "f32"
    asked = EngineConfig(precision=Precision.BF16)
    if native:
        assert OpenVINOEngine(double_plus_one, asked).card.precision == "bf16"
    else:
        with pytest.raises(EngineError, match="does not compute in bfloat16: ask for --precision f32"):
            OpenVINOEngine(double_plus_one, asked)


def test_results_of_images_of_one_shape_are_in_the_order_of_the_images(double_plus_one: Path) -> None:
    images = np.random.default_rng(0).random((11, 1, 4, 6), dtype=np.float32)
    engine = open_engine(double_plus_one, EngineConfig(precision=Precision.F32), shape=(1, 4, 6))
    for _ in range(3):
        assert np.array_equal(engine.run(images), 2 * images + 1)
    with pytest.raises(RuntimeError):
        engine.run(images[..., :5])


@pytest.mark.thorough
def test_threads_that_run_images_at_once_in_a_new_process_do_not_wait_for_each_other(double_plus_one: Path) -> None:
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\nimport numpy as np\n"
        "from groundglass.inference.engine import OpenVINOEngine\n"
        "sys.setswitchinterval(1e-6)\n"
        "engine = OpenVINOEngine(Path(sys.argv[1]), shape=(1, 64, 64))\n"
        "together = threading.Barrier(4)\n"
        "def run(image): together.wait(); return engine.run(image)\n"
        "images = np.ones((4, 1, 1, 64, 64), np.float32)\n"
        "with ThreadPoolExecutor(4) as pool: print(np.ptp(list(pool.map(run, images))))\n"
    )
    for _ in range(8):  # every third of these processes waited for ever
        program = [sys.executable, "-c", code, str(double_plus_one)]
        assert subprocess.run(program, capture_output=True, text=True, timeout=30, check=True).stdout == "0.0\n"


def test_a_file_that_no_engine_accepts_is_refused_with_the_reason_of_each(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"no engine can run model\.onnx: openvino: .*; onnxruntime: "):
        open_engine(path)


@pytest.mark.parametrize("beginning", [b"", b"\x08\x0a"], ids=["as it is", "like ONNX"])
def test_a_file_of_another_format_with_weights_in_another_file_is_refused(
    double_plus_one: Path, beginning: bytes
) -> None:
    """OpenVINO reads its own format by its content; the checksum of a card covers one file alone."""
    with no_telemetry():
        import openvino
    openvino.save_model(openvino.Core().read_model(double_plus_one), double_plus_one.with_suffix(".xml"))
    assert double_plus_one.with_suffix(".bin").stat().st_size
    double_plus_one.write_bytes(beginning + double_plus_one.with_suffix(".xml").read_bytes())
    assert openvino.Core().read_model(double_plus_one)
    with pytest.raises(EngineError, match=r"no engine can run model\.onnx"):
        open_engine(double_plus_one)


def test_probabilities_are_those_of_scipy_to_a_rounding() -> None:
    numbers = np.random.default_rng(0).normal(0, 20, 100_000)
    logits = np.append(numbers, [0, 88.8, -88.8, -150, 150, np.inf, -np.inf]).astype(np.float32)
    expected = expit(logits)
    found = sigmoid(logits)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 2**-23
    assert (found != expected).mean() < 0.001


@pytest.mark.parametrize("before", [None, "", "false"])
def test_no_telemetry_restores_the_environment(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", before)
    with no_telemetry():
        assert os.environ["CI"] == "true"
    assert os.environ.get("CI") == before
    with pytest.raises(ZeroDivisionError), no_telemetry():
        raise ZeroDivisionError
    assert os.environ.get("CI") == before


def test_opening_an_engine_calls_no_host_and_leaves_the_environment_alone(double_plus_one: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): print('called out', a, flush=True); raise OSError\n"
        "socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse\n"
        "from pathlib import Path; from groundglass.inference.engine import OpenVINOEngine\n"
        "OpenVINOEngine(Path(sys.argv[1])); import os; print('CI' in os.environ)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    program = [sys.executable, "-c", code, str(double_plus_one)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False\n"


def test_onnx_runtime_writes_no_id_of_the_device_and_sends_nothing(double_plus_one: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from groundglass.inference.engine import OnnxRuntimeEngine\n"
        "OnnxRuntimeEngine(Path(sys.argv[1]))"
    )
    kept_out = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in kept_out}
    (tmp_path / "home").mkdir()
    environment["HOME"] = str(tmp_path / "home")  # where its telemetry keeps the id, and what it has not sent yet
    subprocess.run([sys.executable, "-c", code, str(double_plus_one)], env=environment, check=True)
    assert list((tmp_path / "home").rglob("*")) == []
