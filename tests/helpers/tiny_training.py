"""A training of a second: bright squares on lung, a network of two levels.

As a script it is a training that needs a process of its own:
python tiny_training.py two-processes|killed-in-an-epoch|killed-while-writing FOLDER
"""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from groundglass.data.slices import UNSTATED, Slices
from groundglass.network.losses import LossConfig, segmentation_loss, whole_batch
from groundglass.network.unet import LesionUNet, NetworkConfig
from groundglass.training import module
from groundglass.training.augment import AugmentConfig
from groundglass.training.batches import SamplingConfig, plain_batches, training_batches
from groundglass.training.fit import fit
from groundglass.training.module import LesionModule, TrainingConfig

CLASSES = ("ground-glass", "consolidation")
NETWORK = NetworkConfig(widths=(4, 8))
WINDOW = (-1000.0, 200.0)
USUAL = AugmentConfig()
STILL = AugmentConfig(flip=0, rotate_degrees=0, scale=0, shift=0)
LIVELY = AugmentConfig(window_hu=100, gamma=0.3, noise=0.1, blur_px=1.0)
SHORT = TrainingConfig(learning_rate=1e-3, epochs=3, early_stopping_patience=0)
TIMES = ("seconds", "data_share")


def bright_squares(count: int = 16) -> Slices:
    """Slices of 16 x 16: lung with noise, a square of lesion somewhere in it, of this class, that, or none stated."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 30, (count, 16, 16))
    labels = np.zeros(hu.shape, np.uint8)
    for i, (row, column) in enumerate(rng.integers(0, 10, (count, 2))):
        labels[i, row : row + 6, column : column + 6] = (1, 2, UNSTATED)[i % 3]
    names = np.array([f"slices/{i}" for i in range(count)])
    return Slices(
        (hu + 600.0 * (labels > 0)).astype(np.int16),
        labels,
        names,
        np.zeros(count, np.int64),
        names,
        np.full(count, np.nan),
    )


def run(
    folder: Path,
    training: TrainingConfig = SHORT,
    resume: bool = False,
    devices: int = 1,
    classes: tuple[str, ...] = (),
    change: AugmentConfig = USUAL,
    batch_size: int = 4,
    validates: bool = True,
) -> Path:
    """Train on bright squares, and validate on the same."""
    slices = bright_squares()
    folder.mkdir(exist_ok=True)
    network = NetworkConfig(NETWORK.widths, classes=1 + len(classes))
    batches = training_batches(slices, WINDOW, SamplingConfig(batch_size), change, training.seed, classes)
    validation = plain_batches(slices, WINDOW, 5, classes) if validates else None  # 5, 5, 5 and 1
    with one_thread():
        return fit(network, LossConfig(cross_entropy=0.5), training, batches, validation, folder, resume, devices)


@contextmanager
def one_thread() -> Iterator[None]:
    """For a network this small more would only wait for each other where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_shared(folder: Path, devices: int) -> None:
    """The same two trainings whatever the number of processes; 3 batches of 5 an epoch.

    The seed keeps every feature away from the bend of its leaky ReLU, where rounding decides.
    """
    plain = replace(SHORT, seed=1)
    for name, change, training in (("still", STILL, plain), ("lively", LIVELY, replace(plain, ema_decay=0.5))):
        run(folder / name, training, devices=devices, classes=CLASSES, change=change, batch_size=5)


def gradient(shared: bool) -> torch.Tensor:
    """Of the loss of one batch of 5, by all weights, in one process or shared by those that there are."""
    torch.manual_seed(0)
    network: torch.nn.Module = LesionUNet(NetworkConfig(NETWORK.widths, classes=1 + len(CLASSES)))
    batches = plain_batches(bright_squares(), WINDOW, 5, CLASSES)
    sum_over = whole_batch
    if shared:
        batches.share(distributed.get_rank(), distributed.get_world_size())
        network, sum_over = torch.nn.parallel.DistributedDataParallel(network), module._SumOverProcesses.apply
    image, target = next(iter(batches))
    segmentation_loss(network(image), target, LossConfig(cross_entropy=0.5), sum_over).backward()
    return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


def metrics(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's `metrics.csv`."""
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def without_times(folder: Path) -> list[dict[str, str]]:
    """What has to be the same in two runs."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in metrics(folder)]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Those of a checkpoint, without unpickling anything else."""
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold equal weights."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def no_number(*_: object) -> torch.Tensor:
    """A loss."""
    return torch.tensor(float("nan"), requires_grad=True)


def kill_in_an_epoch() -> None:
    """Have this process killed in the second step of the second epoch."""
    step = LesionModule.training_step

    def deadly(module: LesionModule, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        if (module.current_epoch, number) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, number)

    setattr(LesionModule, "training_step", deadly)  # noqa: B010


def kill_while_writing() -> None:
    """Have this process killed when the second epoch's `last.ckpt` is written, but not yet in its place."""
    replace, seen = Path.replace, []

    def deadly(self: Path, target: Path) -> Path:
        seen.append(Path(target).name)
        if seen.count("last.ckpt") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    setattr(Path, "replace", deadly)  # noqa: B010


if __name__ == "__main__":
    scene, folder = sys.argv[1], Path(sys.argv[2])
    if scene == "two-processes":
        run_shared(folder, devices=2)
        torch.save(gradient(shared=True), folder / f"gradient-{distributed.get_rank()}.pt")
        setattr(module, "segmentation_loss", no_number)  # noqa: B010
        run(folder / "nan", devices=2)
    else:
        {"killed-in-an-epoch": kill_in_an_epoch, "killed-while-writing": kill_while_writing}[scene]()
        run(folder)
