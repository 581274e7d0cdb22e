"""Seconds a slice of the paper's network and its peers, by engine and precision; and of whole scans through `segment`.

    python bench/engine.py networks [--size 512] [--rounds 3]    # each network whole-picture, every engine, interleaved
    python bench/engine.py scan [--widths 32 64 128 256 512] [--slices 300]    # the whole of `groundglass segment`
    python bench/engine.py growth                                # slices, threads and sizes
    python bench/engine.py start                                 # one picture from process start; --help; import
    python bench/engine.py ways                                  # batches, streams and fixed shapes, on the lung field
    python bench/engine.py gpu                                   # each network whole-picture on a GPU, in bfloat16

Weights are random: they do not change the time. Figures of one call can be compared, those of two machines cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundglass.files import sha256_of
from groundglass.inference.engine import OnnxRuntimeEngine, OpenVINOEngine, int8_model_path, no_telemetry
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, Quantized, write_card
from groundglass.io import nifti
from groundglass.network.baselines import BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.scan.phantom import chest_phantom
from groundglass.training.export import write_onnx
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.quantize import write_int8

PAPER_SECONDS = 0.29  # a 512 x 512 slice on a Quadro P5000
WIDTHS = (32, 64, 128, 256, 512)
Run = Callable[[np.ndarray], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (networks, scan, growth, start, ways, gpu):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(command=command)
        sub.add_argument("--size", type=int, default=512)
        sub.add_argument("--rounds", type=int, default=3)
        sub.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
        sub.add_argument("--slices", type=int, default=300)
        sub.add_argument("--device", default="cuda", help="Of gpu.")
        sub.add_argument("--json", type=Path, help="Keep the figures here, for bench/plots.py.")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {_cpu()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        found = arguments.command(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def networks(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every network in every engine on the same slice, the rounds interleaved; the median counts."""
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        print(f"matrix rate {name}: {_gemm_rate(dtype) / 1e9:.0f} GFLOP/s")
    images = np.random.default_rng(0).random((1, 1, arguments.size, arguments.size), dtype=np.float32)
    rows: list[tuple[str, str, float, Run]] = []
    for name, module in _modules(tuple(arguments.widths)).items():
        path = folder / f"{name}.onnx"
        write_onnx(module, (1, arguments.size, arguments.size), path)
        gflop = _flop(module, images) / 1e9
        print(f"{name}: {sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters, {gflop:.0f} GFLOP")
        rows += [(name, engine, gflop, run) for engine, run in _engines(module, path, images).items()]
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.rounds + 1):  # the first is for warming up
        for name, engine, _, run in rows:
            begun = time.perf_counter()
            run(images)
            if turn:
                seconds.setdefault((name, engine), []).append(time.perf_counter() - begun)
    print("| network | engine | s a slice | GFLOP/s | of the paper's 0.29 s |\n|---|---|---|---|---|")
    found: dict[str, Any] = {}
    for name, engine, gflop, _ in rows:
        median = statistics.median(seconds[name, engine])
        found.setdefault(name, {})[engine] = median
        print(f"| {name} | {engine} | {median:.3f} | {gflop / median:.0f} | {median / PAPER_SECONDS:.2f} |", flush=True)
    return found


def _engines(module: LesionModule, path: Path, images: np.ndarray) -> dict[str, Run]:
    """One network in each engine and precision; int8 where nncf is installed."""
    engines: dict[str, Run] = {
        "torch eager f32": _torch(module),
        "torch.compile f32": _torch(torch.compile(module)),
        "torch.compile bf16": _torch(torch.compile(module), torch.bfloat16),
        "ONNX Runtime f32": OnnxRuntimeEngine(path).run,
        "OpenVINO f32": OpenVINOEngine(path, EngineConfig(precision=Precision.F32)).run,
        "OpenVINO bf16": OpenVINOEngine(path, EngineConfig(precision=Precision.BF16)).run,
    }
    if find_spec("nncf") is None:
        print("nncf is not installed: no int8")
    else:
        int8 = int8_model_path(path)
        write_int8(path, images, int8)  # its ranges are of noise, which does not change the time
        engines["OpenVINO int8, rest f32"] = OpenVINOEngine(int8, EngineConfig(precision=Precision.INT8)).run
        engines["OpenVINO int8, rest bf16"] = OpenVINOEngine(int8, EngineConfig(precision=Precision.BF16)).run
    return engines


def scan(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A phantom of many slices through `groundglass segment`, in each precision; the whole process is measured."""
    source = _write_phantom(arguments.slices, folder)
    model = _write_model(tuple(arguments.widths), folder)
    found: dict[str, Any] = {}
    for precision in (*Precision, None):
        words = ["segment", str(source), "-o", str(folder / "out"), "--model", str(model)]
        took, peak = _command([*words, *(["--precision", precision] if precision else [])])
        stages = json.loads((folder / "out" / "findings.json").read_text())["seconds"]
        share = took / arguments.slices
        print(
            f"{precision or 'default'}: {took:.1f} s, {share:.3f} s a slice, peak {peak:.0f} MiB, {stages}", flush=True
        )
        found[precision or "default"] = {"seconds": took, "mib": peak, "stages": stages}
    return found


def growth(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How the cost grows with slices, threads, the network's input and a batch's workers."""
    model = _write_model(tuple(arguments.widths), folder)
    found: dict[str, Any] = {"slices": {}, "threads": {}, "size": {}, "workers": {}}
    for slices in (10, 75, 150, 300, 600):
        source = _write_phantom(slices, folder)
        took, peak = _command(["segment", str(source), "-o", str(folder / "out"), "--model", str(model)])
        found["slices"][slices] = {"seconds": took, "mib": peak}
        print(f"slices {slices}: {took:.1f} s, {took / slices:.3f} s a slice, peak {peak:.0f} MiB", flush=True)
    source = _write_phantom(75, folder)
    for threads in (1, 2):
        words = ["segment", str(source), "-o", str(folder / "out"), "--model", str(model), "--threads", str(threads)]
        found["threads"][threads] = _command(words)[0]
        print(f"threads {threads}: {found['threads'][threads]:.1f} s", flush=True)
    for precision, file in ((Precision.BF16, model), (Precision.INT8, int8_model_path(model))):
        run = OpenVINOEngine(file, EngineConfig(precision=precision)).run
        for size in (256, 384, 512, 768):
            images = np.random.default_rng(0).random((1, 1, size, size), dtype=np.float32)
            run(images)
            begun = time.perf_counter()
            for _ in range(arguments.rounds):
                run(images)
            took = (time.perf_counter() - begun) / arguments.rounds
            found["size"].setdefault(precision, {})[size] = took
            print(f"input {size} x {size}, {precision}: {took:.3f} s", flush=True)
    scans = folder / "scans"
    scans.mkdir()
    for number in range(8):
        shutil.copy(source, scans / f"{number}.nii.gz")
    for workers in (1, 2):
        words = ["batch", str(scans), "-o", str(folder / f"batch-{workers}"), "--workers", str(workers)]
        found["workers"][workers] = _command([*words, "--model", str(model)])[0]
        print(f"workers {workers}: 8 scans of 75 slices in {found['workers'][workers]:.1f} s", flush=True)
    return found


def start(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a person waits for: a picture with the bundled model, the help, the import."""
    from PIL import Image

    values = chest_phantom(shape=(48, 512, 512)).scan.values[22]
    grey = np.clip((values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / "slice.png")
    found = {}
    for words in (["segment", str(folder / "slice.png"), "-o", str(folder / "out")], ["--help"]):
        found[words[0]] = statistics.median(_command(words)[0] for _ in range(arguments.rounds))
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import groundglass"], check=True)
    found["import"] = time.perf_counter() - begun
    for what, took in found.items():
        print(f"{what}: {took:.2f} s")
    return found


def ways(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The default on the lung field: batches, one stream of all threads or several, shapes left open or fixed."""
    with no_telemetry():
        import openvino
    file = int8_model_path(_write_model(tuple(arguments.widths), folder))
    core, rows = openvino.Core(), {}
    for batch in (1, 2, 4, 8, 16):
        for fixed in (False, True):
            network = core.read_model(file)
            if fixed:
                network.reshape([batch, 1, 192, 256])
            for hint in ("LATENCY", "THROUGHPUT"):
                rows[batch, fixed, hint] = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": hint})
    seconds: dict[tuple[int, bool, str], list[float]] = {}
    slices = np.random.default_rng(0).random((48, 1, 192, 256), dtype=np.float32)
    for turn in range(arguments.rounds + 1):
        for (batch, fixed, hint), compiled in rows.items():
            queue = openvino.AsyncInferQueue(compiled)
            begun = time.perf_counter()
            for first in range(0, len(slices), batch):
                queue.start_async({0: slices[first : first + batch]})
            queue.wait_all()
            if turn:
                seconds.setdefault((batch, fixed, hint), []).append(time.perf_counter() - begun)
    print("| batch | shapes | streams | ms a slice |\n|---|---|---|---|")
    found = {}
    for (batch, fixed, hint), times in seconds.items():
        streams = rows[batch, fixed, hint].get_property("NUM_STREAMS")
        took = statistics.median(times) / len(slices)
        found[f"{batch} {'fixed' if fixed else 'open'} {streams}"] = took
        print(f"| {batch} | {'fixed' if fixed else 'open'} | {streams} | {1000 * took:.1f} |", flush=True)
    return found


def gpu(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    """Every network on a GPU: milliseconds a slice, and the share of the measured bfloat16 matrix rate."""
    device, dtype = torch.device(arguments.device), torch.bfloat16
    rate = _gemm_rate(dtype, device, side=8192 if device.type == "cuda" else 512)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else device}: {rate / 1e12:.2f} TFLOP/s in bf16")
    print("| network | batch | compiled | ms a slice | TFLOP/s | share of the matrix rate |\n|---|---|---|---|---|---|")
    found: dict[str, Any] = {}
    for name, module in _modules(tuple(arguments.widths)).items():
        one = np.zeros((1, 1, arguments.size, arguments.size), dtype=np.float32)
        flop = _flop(module, one)
        module.to(device, memory_format=torch.channels_last)
        for compiled in (False, True):
            network = torch.compile(module) if compiled else module
            for batch in (1, 8):
                images = torch.rand(batch, *one.shape[1:], device=device).to(memory_format=torch.channels_last)
                took = _seconds(network, images, dtype, arguments.rounds) / batch
                found[f"{name} {batch} {'compiled' if compiled else 'eager'}"] = took
                reached = flop / took
                row = f"| {name} | {batch} | {'yes' if compiled else 'no'} | {1000 * took:.2f} | {reached / 1e12:.2f}"
                print(f"{row} | {100 * reached / rate:.0f} % |", flush=True)
    return found


def _seconds(network: Callable[[torch.Tensor], object], images: torch.Tensor, dtype: torch.dtype, rounds: int) -> float:
    """Median of calls that are waited for; three before them do not count."""
    times = []
    for turn in range(rounds + 3):
        begun = time.perf_counter()
        with torch.inference_mode(), torch.autocast(images.device.type, dtype):
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _modules(widths: tuple[int, ...]) -> dict[str, LesionModule]:
    """The paper's network, nnU-Net's 2-D one for 512 x 512, and MONAI's others at the paper's widths."""
    configs: dict[str, NetworkConfig | BaselineConfig] = {
        "paper": NetworkConfig(widths=widths),
        "DynUNet": BaselineConfig("DynUNet", (*widths, *(widths[-1],) * 3)),
        "AttentionUnet": BaselineConfig("AttentionUnet", widths),
        "BasicUNet": BaselineConfig("BasicUNet", widths),
    }
    return {name: _module(config) for name, config in configs.items()}


def _module(config: NetworkConfig | BaselineConfig) -> LesionModule:
    torch.manual_seed(0)
    return LesionModule(config, LossConfig(), TrainingConfig()).eval()


def _torch(module: Callable[[torch.Tensor], object], dtype: torch.dtype = torch.float32) -> Run:
    def run(images: np.ndarray) -> object:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            return module(torch.from_numpy(images))

    return run


def _flop(module: LesionModule, images: np.ndarray) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.from_numpy(images))
    return int(counter.get_total_flops())


def _gemm_rate(dtype: torch.dtype, device: torch.device | str = "cpu", side: int = 2048, rounds: int = 10) -> float:
    """Operations a second of a square matrix product."""
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    float((a @ b)[0, 0])  # reading a number waits for the device
    begun = time.perf_counter()
    for _ in range(rounds):
        c = a @ b
    float(c[0, 0])
    return 2 * side**3 * rounds / (time.perf_counter() - begun)


def _write_model(widths: tuple[int, ...], folder: Path) -> Path:
    """An untrained model of those widths with its card, as `export` would write it."""
    config, path = NetworkConfig(widths=widths), folder / "model.onnx"
    write_onnx(_module(config), (1, 192, 256), path)
    card = ModelCard(
        name="untrained",
        sha256=sha256_of(path),
        network=asdict(config),
        window_hu=(-1250, 250),
        size=(192, 256),
        threshold=0.999,
        training_data=(),
        never_trained_on=(),
        intended_use="a benchmark",
        limits=(),
    )
    write_card(path, card)
    if find_spec("nncf") is not None:
        write_int8(path, np.random.default_rng(0).random((4, 1, 192, 256), dtype=np.float32), int8_model_path(path))
        made = Quantized(of=card.sha256, slices=4, dice=0, dice_f32=0)
        write_card(
            int8_model_path(path),
            card.model_copy(update={"sha256": sha256_of(int8_model_path(path)), "quantized": made}),
        )
    return path


def _write_phantom(slices: int, folder: Path) -> Path:
    """A chest of that many slices of 512 x 512."""
    path = folder / f"{slices}.nii.gz"
    nifti.write_scan(chest_phantom(shape=(slices, 512, 512), extent_mm=(300, 350, 350)).scan, path)
    return path


def _command(words: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the peak of its memory in MiB (its own: `getrusage` would count this process too)."""
    code = (
        "from groundglass.cli import main\n"
        "try: main()\n"
        "finally: print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - begun, int(done.stdout.split("VmHWM:")[1].split()[0]) / 1024


def _cpu() -> str:
    names: Any = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return str(names[0].split(":")[1].strip()) if names else "unknown CPU"


if __name__ == "__main__":
    main()
