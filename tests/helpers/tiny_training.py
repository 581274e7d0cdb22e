"""A training that takes a second: bright squares on lung, a network of two levels.

Run as a script, it is a training that needs a process of its own:
python tiny_training.py two-processes|killed FOLDER
"""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from groundglass.data.labels import UNSTATED
from groundglass.data.slices import Slices
from groundglass.network.losses import LossConfig, identity, segmentation_loss
from groundglass.network.unet import LesionUNet, NetworkConfig
from groundglass.training import module
from groundglass.training.augment import AugmentConfig
from groundglass.training.batches import NO_AUGMENTATION, SamplingConfig, plain_batches, training_batches
from groundglass.training.fit import fit, initial_module
from groundglass.training.module import LesionModule, TrainingConfig

CLASSES = ("ground-glass", "consolidation")
NETWORK = NetworkConfig(widths=(4, 8))
WINDOW = (-1000.0, 200.0)
DEFAULT_AUGMENTATION = AugmentConfig()
STRONG_AUGMENTATION = AugmentConfig(window_hu=100, gamma=0.3, noise=0.1, blur_px=1.0)
SHORT = TrainingConfig(learning_rate=1e-3, epochs=3, early_stopping_patience=0)
TIMES = ("seconds", "data_share")  # columns of metrics.csv that differ from run to run


def bright_squares(count: int = 16) -> Slices:
    """Return slices of 16 x 16: noisy lung with a square of lesion, of one class, the other, or an unstated one."""
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
    augmentation: AugmentConfig = DEFAULT_AUGMENTATION,
    batch_size: int = 4,
    validates: bool = True,
) -> Path:
    """Train on bright squares, and validate on the same slices."""
    slices = bright_squares()
    folder.mkdir(exist_ok=True)
    network = NetworkConfig(NETWORK.widths, classes=1 + len(classes))
    batches = training_batches(slices, WINDOW, SamplingConfig(batch_size), augmentation, training.seed, classes)
    validation = plain_batches(slices, WINDOW, 5, classes) if validates else None  # 5, 5, 5 and 1
    with one_thread():
        module = initial_module(network, LossConfig(cross_entropy=0.5), training)
        return fit(module, batches, validation, folder, resume, devices)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: for a network this small, several threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_shared(folder: Path, devices: int) -> None:
    """Run the same two trainings whatever the number of processes, with 3 batches of 5 slices in an epoch.

    The seed keeps every feature away from the kink of its leaky ReLU, where rounding would decide.
    """
    plain = replace(SHORT, seed=1)
    for name, augmentation, training in (
        ("plain", NO_AUGMENTATION, plain),
        ("augmented", STRONG_AUGMENTATION, replace(plain, ema_decay=0.5)),
    ):
        run(folder / name, training, devices=devices, classes=CLASSES, augmentation=augmentation, batch_size=5)


def gradient(shared: bool) -> torch.Tensor:
    """Return the gradient of the loss of one batch of 5, computed in one process or shared by all processes."""
    torch.manual_seed(0)
    network: torch.nn.Module = LesionUNet(NetworkConfig(NETWORK.widths, classes=1 + len(CLASSES)))
    batches = plain_batches(bright_squares(), WINDOW, 5, CLASSES)
    all_reduce = identity
    if shared:
        batches.shard(distributed.get_rank(), distributed.get_world_size())
        network, all_reduce = torch.nn.parallel.DistributedDataParallel(network), module.AllReduceSum.apply
    image, target = next(iter(batches))
    segmentation_loss(network(image), target, LossConfig(cross_entropy=0.5), all_reduce).backward()
    return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


def metrics(folder: Path) -> list[dict[str, str]]:
    """Read the lines of a run's `metrics.csv`."""
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def without_times(folder: Path) -> list[dict[str, str]]:
    """Read the metrics that must be the same in two runs."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in metrics(folder)]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint, without unpickling anything else."""
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def same_weights(one: Path, other: Path) -> bool:
    """Return whether two checkpoints hold equal weights."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def nan_loss(*_: object) -> torch.Tensor:
    """Return NaN in place of a loss."""
    return torch.tensor(float("nan"), requires_grad=True)


def kill_in_an_epoch() -> None:
    """Make this process kill itself in the second step of the second epoch."""
    step = LesionModule.training_step

    def step_or_die(module: LesionModule, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        if (module.current_epoch, number) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, number)

    setattr(LesionModule, "training_step", step_or_die)  # noqa: B010


def kill_while_writing() -> None:
    """Make this process kill itself when the second epoch's `last.ckpt` is written, but not yet renamed into place."""
    replace, targets = Path.replace, []

    def replace_or_die(self: Path, target: Path) -> Path:
        targets.append(Path(target).name)
        if targets.count("last.ckpt") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    setattr(Path, "replace", replace_or_die)  # noqa: B010


KILLS = {"in-an-epoch": kill_in_an_epoch, "while-writing": kill_while_writing}


def dies_of_a_kill(kill: Callable[[], None], folder: Path) -> bool:
    """Train in a process of its own, after a preparation that lets it kill itself, and return whether it did."""
    pid = os.fork()  # loading torch again would take ten times as long
    if not pid:
        kill()
        run(folder)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    if scenario == "two-processes":
        run_shared(folder, devices=2)
        torch.save(gradient(shared=True), folder / f"gradient-{distributed.get_rank()}.pt")
        setattr(module, "segmentation_loss", nan_loss)  # noqa: B010
        run(folder / "nan", devices=2)
    else:
        sys.exit(0 if all(dies_of_a_kill(kill, folder / name) for name, kill in KILLS.items()) else 1)
