"""The cost of each row's network: its size, its operations, and its time beside the other rows'."""

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
    """The cost of a network for one slice of the size that it is trained on.

    Attributes:
        parameters: Number of weights.
        gflop: 10^9 floating-point operations, two for a multiply-add; only convolutions are counted.
        seconds: Median time in float32 torch on the CPU.
    """

    parameters: int
    gflop: float
    seconds: float


@torch.inference_mode()
def measure_costs(configs: Sequence[RunConfig]) -> tuple[Cost, ...]:
    """Measure the cost of each network, all in turn, so that their times can be compared on any machine."""
    networks = [build_network(config.network_config).eval() for config in configs]
    images = [torch.rand(1, config.network_config.slices, *(config.field.size or (512, 512))) for config in configs]
    gflop = []
    for network, image in zip(networks, images, strict=True):
        with FlopCounterMode(display=False) as counter:
            network(image)
        gflop.append(counter.get_total_flops() / 1e9)
    times: list[list[float]] = [[] for _ in configs]
    for _ in range(REPEATS):
        for network, image, seconds in zip(networks, images, times, strict=True):
            start = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - start)
    parameters = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    return tuple(
        Cost(count, flop, median(seconds)) for count, flop, seconds in zip(parameters, gflop, times, strict=True)
    )
