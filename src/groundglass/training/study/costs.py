"""What a row's network costs: its size, its operations, and its time beside the other rows'."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from groundglass.network.baselines import build_network
from groundglass.training.config import RunConfig

REPEATS = 7


@dataclass(frozen=True)
class Cost:
    """Of one network, for one slice of the size that it is trained on.

    Attributes:
        parameters: Weights.
        gflop: 10^9 floating-point operations, two a multiply-add; convolutions alone are counted.
        seconds: In torch as it is, float32, on the CPU; the median of several times, taken in turns with the others.
    """

    parameters: int
    gflop: float
    seconds: float


@torch.inference_mode()
def measure_costs(configs: Sequence[RunConfig]) -> tuple[Cost, ...]:
    """The cost of each configuration's network, all in one go: their ratios can be compared, other machines' cannot."""
    networks = [build_network(config.built).eval() for config in configs]
    slices = [torch.rand(1, config.built.slices, *(config.field.size or (512, 512))) for config in configs]
    gflop = []
    for network, image in zip(networks, slices, strict=True):
        with FlopCounterMode(display=False) as counter:
            network(image)
        gflop.append(counter.get_total_flops() / 1e9)
    times: list[list[float]] = [[] for _ in configs]
    for _ in range(REPEATS):
        for network, image, taken in zip(networks, slices, times, strict=True):
            begun = time.perf_counter()
            network(image)
            taken.append(time.perf_counter() - begun)
    sizes = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    return tuple(Cost(size, flop, median(taken)) for size, flop, taken in zip(sizes, gflop, times, strict=True))
