"""What a training step costs, and what it is lost to: the same steps bare, with their data, and as a GEMM of that size.

    python bench/training.py configs/paper-4-attention-focal-tversky.toml --data PREPARED [--steps 20]
    python bench/training.py configs/bundled.toml --data PREPARED --variants    # float32, bf16, channels last, compiled

Prints one line each: the machine's measured matrix rate in the training's precision, the step's operations (forward and
backward, two a multiply-add), milliseconds a step without and with the making of its batch, the share of the rate that
the step reaches, and seconds an epoch. With --variants: the same steps on the same batches from the same weights in
every way of computing them, in turn, and how far their losses part. Ratios of one call can be compared, those of two
machines cannot.
"""

from __future__ import annotations

import argparse
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
from groundglass.training.run import batches_of, select_training_slices, with_prepared_settings

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
    batches = batches_of(slices.where(select_training_slices(slices, config)), config)
    batches.place(device)
    if arguments.variants:
        _variants(config, batches, device, arguments.steps)
        return
    step, flop = _step(config, batches, device)
    rate = _gemm_rate(config, device)
    bare = _seconds(step, arguments.steps, device)
    feed = _endless(batches)
    fed = _seconds(lambda: step(next(feed)), arguments.steps, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"machine            {name}, torch {torch.__version__}, {config.training.precision}")
    print(f"matrix rate        {rate / 1e12:.3f} TFLOP/s, measured")
    print(f"a step             {flop / 1e9:.1f} GFLOP, {config.sampling.batch_size} slices of {config.field.size}")
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


def _variants(config: RunConfig, batches: Batches, device: torch.device, steps: int) -> None:
    ways = [(half, last, compiled) for half in (False, True) for last in (False, True) for compiled in (False, True)]
    trained = [_Variant(config, device, *way) for way in ways]
    feed = _endless(batches)
    for _ in range(steps):
        batch = next(feed)
        for each in trained:
            each.step(batch)
    exact = torch.tensor(trained[0].losses)
    print("| precision | channels last | compiled | ms a step | of the first | loss apart, mean |")
    print("|---|---|---|---|---|---|")
    for each, (half, last, compiled) in zip(trained, ways, strict=True):
        took = statistics.median(each.seconds[WARM_UP:])
        ratio, apart = took / statistics.median(trained[0].seconds[WARM_UP:]), torch.tensor(each.losses) - exact
        words = [("f32", "bf16")[half], *(("no", "yes")[way] for way in (last, compiled))]
        print(f"| {' | '.join(words)} | {1e3 * took:.0f} | {ratio:.2f} | {apart.abs().mean():.4f} |")
    print(f"loss of the first: {exact[0]:.3f} to {exact[-1]:.3f} in {steps} steps")


class _Variant:
    """A training in one way of computing it, from the same weights as the others."""

    def __init__(self, config: RunConfig, device: torch.device, half: bool, last: bool, compiled: bool) -> None:
        torch.manual_seed(0)
        network = build_network(config.built).to(device)
        if last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.AdamW(network.parameters(), config.training.learning_rate)
        self._network = torch.compile(network) if compiled else network
        self._half, self._last, self._loss = half, last, config.loss
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, batch: Batch) -> None:
        image, target = batch
        begun = time.perf_counter()
        if self._last:
            image = image.contiguous(memory_format=torch.channels_last)
        self._optimiser.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self._half):
            logits = self._network(image)
        loss = segmentation_loss(logits, target, self._loss)
        loss.backward()
        self._optimiser.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - begun)


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
