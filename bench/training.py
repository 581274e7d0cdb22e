"""What a training step costs, and what it is lost to: the same steps bare, with their data, and as a GEMM of that size.

    python bench/training.py configs/paper-4-attention-focal-tversky.toml --data PREPARED [--steps 20]

Prints one line each: the machine's measured matrix rate in the training's precision, the step's operations (forward and
backward, two a multiply-add), milliseconds a step without and with the making of its batch, the share of the rate that
the step reaches, and seconds an epoch. Ratios of one call can be compared, those of two machines cannot.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from groundglass.config import RunConfig, read_config
from groundglass.data.batches import Batch, Batches
from groundglass.data.prepared import read_prepared
from groundglass.experiment import batches_of, drawn_from, fitted
from groundglass.losses import segmentation_loss
from groundglass.network.peers import build_network

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    manifest, slices = read_prepared(arguments.data)
    config = fitted(read_config(arguments.config), manifest)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = batches_of(drawn_from(slices, config), config)
    batches.place(device)
    step, flop = _step(config, batches, device)
    rate = _gemm_rate(config, device)
    bare = _seconds(step, arguments.steps, device)
    feed = _endless(batches)
    fed = _seconds(lambda: step(next(feed)), arguments.steps, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"machine            {name}, torch {torch.__version__}, {config.training.precision}")
    print(f"matrix rate        {rate / 1e12:.3f} TFLOP/s, measured")
    print(f"a step             {flop / 1e9:.1f} GFLOP, {config.draw.batch_size} slices of {config.field.size}")
    print(f"without data       {1e3 * bare:.1f} ms, {100 * flop / bare / rate:.0f} % of the rate")
    print(f"with data          {1e3 * fed:.1f} ms, {100 * flop / fed / rate:.0f} % of the rate")
    print(f"an epoch           {len(batches) * fed:.1f} s of {len(batches)} steps, without validation")


def _step(config: RunConfig, batches: Batches, device: torch.device) -> tuple[Callable[..., None], int]:
    """One step on a batch (the first one where none is given), and its operations."""
    network = build_network(config.built).to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = next(iter(batches))
    optimiser = torch.optim.AdamW(network.parameters())
    half = config.training.precision != "32-true"
    trained = network

    def step(batch: Batch = first) -> None:
        image, target = batch
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = trained(image)
        segmentation_loss(logits, target, config.loss).backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counter:
        step()
    if config.training.compile:
        trained = torch.compile(network)  # type: ignore[assignment]
    return step, counter.get_total_flops()


def _gemm_rate(config: RunConfig, device: torch.device, side: int = 4096) -> float:
    """Operations a second of a square matrix product in the training's precision."""
    side = side if device.type == "cuda" else side // 4
    dtype = torch.float32 if config.training.precision == "32-true" else torch.bfloat16
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, 20, device)


def _seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """The mean of several calls, after some to warm up."""
    for _ in range(WARM_UP):
        work()
    _wait(device)
    begun = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - begun) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _endless(batches: Batches) -> Iterator[Batch]:
    epoch = 0
    while True:
        batches.set_epoch(epoch)
        yield from batches
        epoch += 1


if __name__ == "__main__":
    main()
