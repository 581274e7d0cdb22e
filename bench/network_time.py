"""The network's own time for bench/engine.py: by type of layer, and for as many slices as a scan has."""

from __future__ import annotations

import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from groundglass.inference.engine import no_telemetry
from groundglass.inference.model_card import bundled_model, read_card
from groundglass.inference.open_model import open_model
from groundglass.inference.segmenter import AT_ONCE, BATCH
from groundglass.parallel import map_in_threads
from groundglass.training.quantize import write_int8

GROUPS = {  # OpenVINO's type and kernel of a layer: what it is of the network
    "Convolution": "convolutions of 3 x 3",
    "Convolution 1x1": "convolutions of 1 x 1: skips, gates, outputs",
    "MVN": "instance normalisation, with scale and leaky ReLU",
    "Subgraph": "gates and sums, element by element",
    "ReduceMean": "means for the channel gates",
    "Interpolate": "resampling",
    "Concat": "joining of maps",
    "Reorder": "change of layout or number format",
}


class Cost(NamedTuple):
    """Seconds on the clock, and of all cores together."""

    seconds: float
    cpu_seconds: float


def time_alone(slices: int, model: Path | None = None) -> Cost:
    """Run as many slices through the network alone as a scan has, as the program does: two batches beside each other.

    With mirror images where the model ships so.
    """
    segmenter = open_model(model)
    images = np.random.default_rng(0).random((BATCH, *segmenter.card.input_shape), dtype=np.float32)
    segmenter.logits(images)  # the first run prepares
    start = time.perf_counter(), time.process_time()
    batches = (images[: slices - first] for first in range(0, slices, BATCH))
    for _ in map_in_threads(segmenter.logits, batches, AT_ONCE):
        pass
    return Cost(time.perf_counter() - start[0], time.process_time() - start[1])


def profile_layers(rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return {precision: {part of the network: milliseconds a slice}} of the bundled model on one thread.

    Its int8 version, which does not ship, is made in a folder and calibrated on noise, which does not change the time.
    """
    with no_telemetry():
        import openvino
    core: Any = openvino.Core()
    path = bundled_model()
    shape = read_card(path).input_shape
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    results: dict[str, dict[str, float]] = {}
    files = {"f32": path, "bf16": path}
    if find_spec("nncf") is None:
        print("nncf is not installed: int8 is not measured")
    else:
        files["int8"] = folder / "int8.onnx"
        write_int8(path, image, files["int8"])
    for name, file in files.items():
        network = core.read_model(file)
        network.reshape([1, *shape])
        precision = "f32" if name == "f32" else "bf16"
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1}
        request = core.compile_model(network, "CPU", settings).create_infer_request()
        fastest: dict[tuple[str, str], float] = {}
        cpu_ms = []
        for _ in range(rounds + 1):
            start = time.process_time()
            request.infer({0: image})
            cpu_ms.append(1000 * (time.process_time() - start))
            for layer in request.profiling_info:
                kind = layer.node_type + (" 1x1" if "_1x1_" in layer.exec_type else "")
                key, spent = (layer.node_name, kind), 1000 * layer.real_time.total_seconds()
                fastest[key] = min(spent, fastest.get(key, spent))
        parts: dict[str, float] = defaultdict(float)
        for (_, kind), spent in fastest.items():
            parts[GROUPS.get(kind, "other")] += spent
        # Each layer's best time on the clock, scaled to the seconds of the core: other programs may have run too.
        scale = min(cpu_ms[1:]) / sum(parts.values())
        results[name] = {part: scale * parts[part] for part in sorted(parts, key=parts.__getitem__, reverse=True)}
    return results


def product_rate(precision: str, side: int = 1024, rounds: int = 10) -> float:
    """Measure a product of matrices in f32, bf16 or int8 on one core, in operations per second of that core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    a, b = (torch.randint(-8, 8, (side, side)).to(dtype) for _ in range(2))
    multiply = torch._int_mm if precision == "int8" else torch.mm
    multiply(a, b)
    start = time.process_time()
    for _ in range(rounds):
        multiply(a, b)
    spent = time.process_time() - start
    torch.set_num_threads(threads)
    return 2 * side**3 * rounds / spent
