"""The speed of training steps: without their data, with their data, and in relation to the machine's matrix rate.

    python bench/training.py configs/paper-4-attention-focal-tversky.toml --data PREPARED [--steps 20]
    python bench/training.py configs/bundled.toml --data PREPARED --variants    # float32, bf16, channels last, compiled

Prints the measured matrix rate in the training's precision, the operations of a step (forward and backward, two for a
multiply-add), milliseconds per step without and with making its batch, the percentage of the matrix rate that the step
reaches, and seconds per epoch. With --variants, every combination of precision, memory layout and compilation takes the
same steps from the same weights, in turn; the table shows how far their losses differ. Ratios within one call can be
compared, times of different machines cannot.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from groundglass.data.prepared import read_prepared
from groundglass.network.baselines import build_network
from groundglass.network.losses import segmentation_loss
from groundglass.training.batches import Batch, Batches
from groundglass.training.config import RunConfig, read_config
from groundglass.training.run import build_training_batches, select_training_slices, with_prepared_settings

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--variants", action="store_true")
    arguments = parser.parse_args()
    manifest, slices = read_prepared(arguments.data)
    config = with_prepared_settings(read_config(arguments.config), manifest)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = build_training_batches(slices.where(select_training_slices(slices, config)), config)
    batches.to_device(device)
    if arguments.variants:
        _variants(config, batches, device, arguments.steps)
        return
    step, flop = _step(config, batches, device)
    rate = _gemm_rate(config, device)
    step_seconds = _seconds(step, arguments.steps, device)
    source = _endless(batches)
    full_seconds = _seconds(lambda: step(next(source)), arguments.steps, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"machine            {name}, torch {torch.__version__}, {config.training.precision}")
    print(f"matrix rate        {rate / 1e12:.3f} TFLOP/s, measured")
    print(f"a step             {flop / 1e9:.1f} GFLOP, {config.sampling.batch_size} slices of {config.field.size}")
    print(f"without data       {1e3 * step_seconds:.1f} ms, {100 * flop / step_seconds / rate:.0f} % of the rate")
    print(f"with data          {1e3 * full_seconds:.1f} ms, {100 * flop / full_seconds / rate:.0f} % of the rate")
    epoch_seconds = len(batches) * full_seconds
    print(f"an epoch           {epoch_seconds:.1f} s of {len(batches)} steps, without validation")


def _step(config: RunConfig, batches: Batches, device: torch.device) -> tuple[Callable[..., None], int]:
    """Return a function that does a step on a batch (by default the first one), and the operations of a step."""
    network = build_network(config.training_network).to(device)
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


def _variants(config: RunConfig, batches: Batches, device: torch.device, steps: int) -> None:
    options = list(itertools.product((False, True), repeat=3))
    variants = [_Variant(config, device, half, channels_last, compiled) for half, channels_last, compiled in options]
    source = _endless(batches)
    for _ in range(steps):
        batch = next(source)
        for variant in variants:
            variant.step(batch)
    first_losses, first_seconds = torch.tensor(variants[0].losses), statistics.median(variants[0].seconds[WARM_UP:])
    print("| precision | channels last | compiled | ms per step | relative to first | mean difference in loss |")
    print("|---|---|---|---|---|---|")
    for variant, (half, channels_last, compiled) in zip(variants, options, strict=True):
        seconds = statistics.median(variant.seconds[WARM_UP:])
        difference = (torch.tensor(variant.losses) - first_losses).abs().mean()
        cells = ["bf16" if half else "f32", *("yes" if option else "no" for option in (channels_last, compiled))]
        print(f"| {' | '.join(cells)} | {1e3 * seconds:.0f} | {seconds / first_seconds:.2f} | {difference:.4f} |")
    print(f"loss of the first: {first_losses[0]:.3f} to {first_losses[-1]:.3f} in {steps} steps")


class _Variant:
    """A training with one combination of options, from the same weights as the others."""

    def __init__(
        self, config: RunConfig, device: torch.device, half: bool, channels_last: bool, compiled: bool
    ) -> None:
        torch.manual_seed(0)
        network = build_network(config.training_network).to(device)
        if channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(network.parameters(), config.training.learning_rate)
        self._network = torch.compile(network) if compiled else network
        self._half, self._channels_last, self._loss = half, channels_last, config.loss
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, batch: Batch) -> None:
        image, target = batch
        start = time.perf_counter()
        if self._channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        self._optimiser.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self._half):
            logits = self._network(image)
        loss = segmentation_loss(logits, target, self._loss)
        loss.backward()
        self._optimiser.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - start)


def _gemm_rate(config: RunConfig, device: torch.device, side: int = 4096) -> float:
    """Measure the operations per second of a square matrix product in the training's precision."""
    side = side if device.type == "cuda" else side // 4
    dtype = torch.float32 if config.training.precision == "32-true" else torch.bfloat16
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, 20, device)


def _seconds(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Measure the mean time of several calls, after some to warm up."""
    for _ in range(WARM_UP):
        function()
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        function()
    _synchronize(device)
    return (time.perf_counter() - start) / calls


def _synchronize(device: torch.device) -> None:
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
