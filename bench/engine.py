"""Measure the paper's network and its baselines by engine and precision, and whole scans through `groundglass segment`.

    python bench/engine.py networks [--size 512] [--rounds 3]    # each network on whole slices, in every engine
    python bench/engine.py scan [--slices 300] [--input SCAN]    # `groundglass segment` against the network alone
    python bench/engine.py layers                                # where the network's own time goes
    python bench/engine.py precisions [--widths 32 64 128 256 512]    # `groundglass segment` in each precision
    python bench/engine.py growth                                # cost by slices, threads, input size and workers
    python bench/engine.py startup                               # one picture from process start; --help; import
    python bench/engine.py batching                              # batches, streams and fixed shapes, on the lung field
    python bench/engine.py gpu                                   # each network on whole slices on a GPU, in bfloat16

`scan` and `layers` run the bundled model; elsewhere weights are random, which does not change the time. Only times of
one call can be compared with each other.
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
from groundglass.inference.model_card import ModelCard, Quantized, bundled_model, read_card, write_card
from groundglass.io import nifti
from groundglass.network.baselines import BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.scan.phantom import chest_phantom
from groundglass.training.export import write_onnx
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.quantize import write_int8
from network_time import Cost, product_rate, profile_layers, time_alone

PAPER_SECONDS = 0.29  # a 512 x 512 slice on a Quadro P5000
WIDTHS = (32, 64, 128, 256, 512)
Run = Callable[[np.ndarray], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (networks, scan, layers, precisions, growth, startup, batching, gpu):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--size", type=int, default=512, help="Height and width of the network's input in pixels.")
        sub.add_argument("--rounds", type=int, default=3, help="Number of repetitions whose median counts.")
        sub.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="Channels of each level of the network.")
        sub.add_argument("--slices", type=int, default=300, help="Number of slices of the phantom.")
        sub.add_argument("--input", type=Path, nargs="+", default=(), help="Scans instead of the phantom.")
        sub.add_argument("--device", default="cuda", help="Device for the command gpu.")
        sub.add_argument("--json", type=Path, help="JSON file for the results, for bench/plots.py.")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {_cpu()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        results = arguments.command(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def networks(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time every network in every engine on the same slice, with interleaved rounds."""
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        print(f"matrix product, {name}: {_matmul_rate(dtype) / 1e9:.0f} GFLOP/s")
    images = np.random.default_rng(0).random((1, 1, arguments.size, arguments.size), dtype=np.float32)
    rows: list[tuple[str, str, float, Run]] = []
    results: dict[str, Any] = {}
    for name, module in _modules(tuple(arguments.widths)).items():
        path = folder / f"{name}.onnx"
        write_onnx(module, (1, arguments.size, arguments.size), path)
        gflop = _flop(module, images) / 1e9
        parameters = sum(p.numel() for p in module.parameters())
        print(f"{name}: {parameters / 1e6:.1f} M parameters, {gflop:.0f} GFLOP")
        results[name] = {"parameters": parameters, "gflop": gflop, "seconds": {}}
        rows += [(name, engine, gflop, run) for engine, run in _engines(module, path, images).items()]
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.rounds + 1):  # the first round warms up
        for name, engine, _, run in rows:
            start = time.perf_counter()
            run(images)
            if turn:
                times.setdefault((name, engine), []).append(time.perf_counter() - start)
    print("| network | engine | s per slice | GFLOP/s | share of the paper's 0.29 s |\n|---|---|---|---|---|")
    for name, engine, gflop, _ in rows:
        median = statistics.median(times[name, engine])
        results[name]["seconds"][engine] = median
        print(f"| {name} | {engine} | {median:.3f} | {gflop / median:.0f} | {median / PAPER_SECONDS:.2f} |", flush=True)
    return results


def _engines(module: LesionModule, path: Path, images: np.ndarray) -> dict[str, Run]:
    """Load a network into each engine and precision; int8 if nncf is installed."""
    engines: dict[str, Run] = {
        "torch eager f32": _torch(module),
        "torch.compile f32": _torch(torch.compile(module)),
        "torch.compile bf16": _torch(torch.compile(module), torch.bfloat16),
        "ONNX Runtime f32": OnnxRuntimeEngine(path).run,
        "OpenVINO f32": OpenVINOEngine(path, EngineConfig(precision=Precision.F32)).run,
        "OpenVINO bf16": OpenVINOEngine(path, EngineConfig(precision=Precision.BF16)).run,
    }
    if find_spec("nncf") is None:
        print("nncf is not installed: int8 is not measured")
    else:
        int8 = int8_model_path(path)
        write_int8(path, images, int8)  # calibrated on noise, which does not change the time
        engines["OpenVINO int8, rest f32"] = OpenVINOEngine(int8, EngineConfig(precision=Precision.INT8)).run
        engines["OpenVINO int8, rest bf16"] = OpenVINOEngine(int8, EngineConfig(precision=Precision.BF16)).run
    return engines


def scan(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure whole commands with the bundled model, in turns with its network alone on as many slices."""
    results: dict[str, Any] = {}
    print("| input | slices with lung | whole command, s (of all cores) | network alone | ratio | MiB | load |")
    print("|---|---|---|---|---|---|---|")
    for source in arguments.input or [_write_phantom(arguments.slices, folder)]:
        whole, alone, peaks, slices = [], [], [], 0
        for _ in range(arguments.rounds):
            before = os.times()
            seconds, peak = _measure_command(["segment", str(source), "-o", str(folder / "out")])
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            whole.append(Cost(seconds, used))
            peaks.append(peak)
            lung = json.loads((folder / "out" / "findings.json").read_text())["profile"]["lung"]
            slices = int(np.count_nonzero(lung))
            alone.append(time_alone(slices))
        (whole_s, whole_cpu), (alone_s, alone_cpu) = (np.median(costs, axis=0) for costs in (whole, alone))
        print(
            f"| {source.name} | {slices} | {whole_s:.1f} ({whole_cpu:.1f}) | {alone_s:.1f} ({alone_cpu:.1f}) | "
            f"{whole_s / alone_s:.2f} ({whole_cpu / alone_cpu:.2f}) | {max(peaks):.0f} | {os.getloadavg()[0]:.0f} |",
            flush=True,
        )
        results[source.name] = {"slices": slices, "whole": whole, "alone": alone, "mib": peaks}
    return results


def layers(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Print where the network's own time goes, in milliseconds a slice on one core, by OpenVINO's own profile."""
    results = profile_layers(arguments.rounds, folder)
    print(f"| ms a slice, one core | {' | '.join(results)} |\n|---|{'---|' * len(results)}")
    for part in dict.fromkeys(part for parts in results.values() for part in parts):
        print(f"| {part} | {' | '.join(f'{parts.get(part, 0):.1f}' for parts in results.values())} |")
    print(f"| all | {' | '.join(f'{sum(parts.values()):.1f}' for parts in results.values())} |")
    card = read_card(bundled_model())
    module = _module(NetworkConfig(**{**card.network, "widths": tuple(card.network["widths"])}))
    gflop = _flop(module, np.zeros((1, *card.input_shape), dtype=np.float32)) / 1e9
    rates = {name: product_rate(name) for name in results}
    for name, rate in rates.items():
        reached = gflop / sum(results[name].values()) * 1000
        share = 100e9 * reached / rate
        print(
            f"{name}: {gflop:.1f} GFLOP a slice, {reached:.0f} GFLOP/s, {share:.0f} % of a product's {rate / 1e9:.0f}"
        )
    return {"layers": results, "gflop": gflop, "rates": rates}


def precisions(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the whole process of `groundglass segment` on a phantom of many slices, in each precision."""
    source = _write_phantom(arguments.slices, folder)
    model = _write_model(tuple(arguments.widths), folder)
    results: dict[str, Any] = {}
    for precision in (*Precision, None):
        argv = ["segment", str(source), "-o", str(folder / "out"), "--model", str(model)]
        seconds, peak = _measure_command([*argv, *(["--precision", precision] if precision else [])])
        stages = json.loads((folder / "out" / "findings.json").read_text())["seconds"]
        share = seconds / arguments.slices
        print(
            f"{precision or 'default'}: {seconds:.1f} s, {share:.3f} s per slice, peak {peak:.0f} MiB, {stages}",
            flush=True,
        )
        results[precision or "default"] = {"seconds": seconds, "mib": peak, "stages": stages}
    return results


def growth(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure how the cost grows with slices, threads, the size of the network's input and the workers of a batch."""
    model = _write_model(tuple(arguments.widths), folder)
    results: dict[str, Any] = {"slices": {}, "threads": {}, "size": {}, "workers": {}}
    for slices in (10, 75, 150, 300, 600):
        source = _write_phantom(slices, folder)
        seconds, peak = _measure_command(["segment", str(source), "-o", str(folder / "out"), "--model", str(model)])
        results["slices"][slices] = {"seconds": seconds, "mib": peak}
        print(f"slices {slices}: {seconds:.1f} s, {seconds / slices:.3f} s per slice, peak {peak:.0f} MiB", flush=True)
    source = _write_phantom(75, folder)
    for threads in (1, 2):
        argv = ["segment", str(source), "-o", str(folder / "out"), "--model", str(model), "--threads", str(threads)]
        results["threads"][threads] = _measure_command(argv)[0]
        print(f"threads {threads}: {results['threads'][threads]:.1f} s", flush=True)
    for precision, file in ((Precision.BF16, model), (Precision.INT8, int8_model_path(model))):
        run = OpenVINOEngine(file, EngineConfig(precision=precision)).run
        for size in (256, 384, 512, 768):
            images = np.random.default_rng(0).random((1, 1, size, size), dtype=np.float32)
            run(images)
            start = time.perf_counter()
            for _ in range(arguments.rounds):
                run(images)
            seconds = (time.perf_counter() - start) / arguments.rounds
            results["size"].setdefault(precision, {})[size] = seconds
            print(f"input {size} x {size}, {precision}: {seconds:.3f} s", flush=True)
    scans = folder / "scans"
    scans.mkdir()
    for number in range(8):
        shutil.copy(source, scans / f"{number}.nii.gz")
    for workers in (1, 2):
        argv = ["batch", str(scans), "-o", str(folder / f"batch-{workers}"), "--workers", str(workers)]
        results["workers"][workers] = _measure_command([*argv, "--model", str(model)])[0]
        print(f"workers {workers}: 8 scans of 75 slices in {results['workers'][workers]:.1f} s", flush=True)
    return results


def startup(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time what a user waits for: segmenting a picture with the bundled model, the help, and the import."""
    from PIL import Image

    values = chest_phantom(shape=(48, 512, 512)).scan.values[22]
    grey = np.clip((values.astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / "slice.png")
    results = {}
    for argv in (["segment", str(folder / "slice.png"), "-o", str(folder / "out")], ["--help"]):
        results[argv[0]] = statistics.median(_measure_command(argv)[0] for _ in range(arguments.rounds))
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import groundglass"], check=True)
    results["import"] = time.perf_counter() - start
    for name, seconds in results.items():
        print(f"{name}: {seconds:.2f} s")
    return results


def batching(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time the default network on the lung field by batch size, number of streams, and open or fixed shapes."""
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
    times: dict[tuple[int, bool, str], list[float]] = {}
    slices = np.random.default_rng(0).random((48, 1, 192, 256), dtype=np.float32)
    for turn in range(arguments.rounds + 1):
        for (batch, fixed, hint), compiled in rows.items():
            queue = openvino.AsyncInferQueue(compiled)
            start = time.perf_counter()
            for first in range(0, len(slices), batch):
                queue.start_async({0: slices[first : first + batch]})
            queue.wait_all()
            if turn:
                times.setdefault((batch, fixed, hint), []).append(time.perf_counter() - start)
    print("| batch | shapes | streams | ms per slice |\n|---|---|---|---|")
    results = {}
    for (batch, fixed, hint), measured in times.items():
        streams = rows[batch, fixed, hint].get_property("NUM_STREAMS")
        seconds = statistics.median(measured) / len(slices)
        results[f"{batch} {'fixed' if fixed else 'open'} {streams}"] = seconds
        print(f"| {batch} | {'fixed' if fixed else 'open'} | {streams} | {1000 * seconds:.1f} |", flush=True)
    return results


def gpu(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    """Time every network on a GPU, and state its share of the measured rate of bfloat16 matrix products."""
    device, dtype = torch.device(arguments.device), torch.bfloat16
    rate = _matmul_rate(dtype, device, side=8192 if device.type == "cuda" else 512)
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else device}: {rate / 1e12:.2f} TFLOP/s in bf16")
    print(
        "| network | batch | compiled | ms per slice | TFLOP/s | share of the matrix rate |\n|---|---|---|---|---|---|"
    )
    results: dict[str, Any] = {}
    for name, module in _modules(tuple(arguments.widths)).items():
        one = np.zeros((1, 1, arguments.size, arguments.size), dtype=np.float32)
        flop = _flop(module, one)
        module.to(device, memory_format=torch.channels_last)
        for compiled in (False, True):
            network = torch.compile(module) if compiled else module
            for batch in (1, 8):
                images = torch.rand(batch, *one.shape[1:], device=device).to(memory_format=torch.channels_last)
                seconds = _median_seconds(network, images, dtype, arguments.rounds) / batch
                results[f"{name} {batch} {'compiled' if compiled else 'eager'}"] = seconds
                reached = flop / seconds
                row = (
                    f"| {name} | {batch} | {'yes' if compiled else 'no'} | {1000 * seconds:.2f} | {reached / 1e12:.2f}"
                )
                print(f"{row} | {100 * reached / rate:.0f} % |", flush=True)
    return results


def _median_seconds(
    network: Callable[[torch.Tensor], object], images: torch.Tensor, dtype: torch.dtype, rounds: int
) -> float:
    """Time single calls, each until it has finished, after three to warm up; return the median in seconds."""
    times = []
    for turn in range(rounds + 3):
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(images.device.type, dtype):
            network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _modules(widths: tuple[int, ...]) -> dict[str, LesionModule]:
    """Build the paper's network, nnU-Net's 2-D network for 512 x 512, and others of MONAI at the paper's widths."""
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


def _matmul_rate(dtype: torch.dtype, device: torch.device | str = "cpu", side: int = 2048, rounds: int = 10) -> float:
    """Measure a square matrix product in operations per second."""
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    float((a @ b)[0, 0])  # reading a number waits until the device has finished
    start = time.perf_counter()
    for _ in range(rounds):
        c = a @ b
    float(c[0, 0])
    return 2 * side**3 * rounds / (time.perf_counter() - start)


def _write_model(widths: tuple[int, ...], folder: Path) -> Path:
    """Write an untrained model with its card, as `groundglass export` does."""
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
    """Write a chest phantom of that many slices of 512 x 512 pixels."""
    path = folder / f"{slices}.nii.gz"
    nifti.write_scan(chest_phantom(shape=(slices, 512, 512), extent_mm=(300, 350, 350)).scan, path)
    return path


def _measure_command(arguments: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MiB.

    The command reads its own peak, because `getrusage` would include this process.
    """
    code = (
        "from groundglass.cli import main\n"
        "try: main()\n"
        "finally: print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, int(done.stdout.split("VmHWM:")[1].split()[0]) / 1024


def _cpu() -> str:
    names: Any = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return str(names[0].split(":")[1].strip()) if names else "unknown CPU"


if __name__ == "__main__":
    main()
