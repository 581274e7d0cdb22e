"""One training, start to end: batches in, a run folder out."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, distributed

from groundglass.errors import ConfigError, OutputError, TrainingError
from groundglass.network.baselines import BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.callbacks import Checkpoint, Clock, MetricsFile, StepEnds, StopOnNaN, WholeCheckpoints
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import State

GO_ON = "--resume goes on from the last good checkpoint"


class BatchSource(Protocol):
    """What a training takes: an epoch of (image (N, 1, H, W), target (N, C, H, W)), each time it is gone through."""

    def set_epoch(self, epoch: int) -> None:
        """Give that epoch's the next time."""

    def place(self, device: torch.device) -> None:
        """Make batches on a device from now on."""

    def share(self, rank: int, world: int) -> None:
        """Give, from now on, only the part of every batch that is for process `rank` of `world`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


def fit(
    network: NetworkConfig | BaselineConfig,
    loss: LossConfig,
    training: TrainingConfig,
    batches: BatchSource,
    validation: BatchSource | None,
    run: Path,
    resume: bool = False,
    devices: int = 1,
    start: State | None = None,
) -> Path:
    """Train a network into a run folder: `last.ckpt`, `best.ckpt`, `metrics.csv`, TensorBoard events.

    With `devices` above 1 the command that is running is started again for each further process, and comes to this
    call too: only `is_first_process` should write elsewhere. Under `torchrun` its processes are taken as they are.
    The weights and scores are those of one process but for rounding, as with another number of threads.

    Args:
        network: The network.
        loss: The loss.
        training: Optimiser, schedule, length, seed.
        batches: What to train on; shared among the processes here.
        validation: What chooses the best epoch; None: the last epoch is the result.
        run: The run's folder; exists.
        resume: Go on from `last.ckpt`.
        devices: Processes on this machine, a GPU each where there are any; `torchrun` has its own number.
        start: Weights to begin with, as `widened` gives them; None: random ones.

    Returns:
        The checkpoint to use: the best on the validation, else the last.

    Raises:
        TrainingError: The loss is no longer a number, it was interrupted, a file could not be written, or there is
            nothing to resume.
        ConfigError: There are not so many devices, or a batch cannot be shared by so many.
    """
    last = run / "last.ckpt"
    if resume and not last.is_file():
        raise TrainingError(f"{last} is not there: nothing to resume; start without --resume")
    with _quiet_lightning():
        lightning.seed_everything(training.seed, verbose=False)
        module = LesionModule(network, loss, training)
        if start is not None:
            module.load_state_dict(start)
        try:
            trainer = _trainer(training, validation is not None, run, devices)
        except MisconfigurationException as error:
            raise ConfigError(f"this machine has not the {devices} devices asked for: {error}") from error
        for shared in (batches, validation):
            if shared is not None:
                shared.share(trainer.global_rank, trainer.world_size)
                shared.place(trainer.strategy.root_device)
        with _clear_ends(trainer, run):
            trainer.fit(module, batches, validation, ckpt_path=str(last) if resume else None, weights_only=True)
    best = run / "best.ckpt"
    return best if validation is not None and best.is_file() else last


def seconds_per_step(
    network: NetworkConfig | BaselineConfig,
    loss: LossConfig,
    training: TrainingConfig,
    batches: BatchSource,
    steps: int,
) -> float:
    """How long a step takes on this machine, as `fit` takes it but uncompiled; a first one warms up and does not count.

    Args:
        network: The network.
        loss: The loss.
        training: Optimiser and precision.
        batches: What is trained on.
        steps: How many are timed.
    """
    times = StepEnds()
    with _quiet_lightning():
        trainer = lightning.Trainer(
            max_steps=steps + 1,
            precision=training.precision,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches.place(trainer.strategy.root_device)
        trainer.fit(LesionModule(network, loss, replace(training, compile=False)), batches)
    return (times.ends[-1] - times.ends[0]) / steps


@contextmanager
def _clear_ends(trainer: lightning.Trainer, run: Path) -> Iterator[None]:
    """Whatever ends a training early and is no fault of the program, as one line that says how to go on."""
    try:
        yield
    except SystemExit:  # what Lightning makes of Ctrl-C
        epoch = trainer.current_epoch
        mend = "--resume goes on from the end of the last" if (run / "last.ckpt").is_file() else "start it again"
        raise TrainingError(f"interrupted in epoch {epoch}: {mend}") from None
    except OutputError as error:
        raise TrainingError(f"{error}; {GO_ON}") from error
    except OSError as error:
        raise TrainingError(f"{run} cannot be written to: {error.strerror or error}; {GO_ON}") from error
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(f"another process of this training ended: its message says why; {GO_ON}") from error


def is_first_process() -> bool:
    """Whether this is the process of a training that writes its files."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _processes(devices: int) -> tuple[int, int]:
    """(processes a machine, machines); `torchrun` says both in the environment."""
    if not distributed.is_torchelastic_launched():
        return devices, 1
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def _trainer(training: TrainingConfig, validates: bool, run: Path, devices: int) -> lightning.Trainer:
    devices, machines = _processes(devices)
    return lightning.Trainer(
        accelerator="auto",
        devices=devices,
        num_nodes=machines,
        strategy="ddp" if devices * machines > 1 else "auto",
        use_distributed_sampler=False,
        plugins=[WholeCheckpoints()],
        precision=training.precision,
        max_epochs=training.epochs,
        callbacks=_callbacks(run, training, validates),
        logger=TensorBoardLogger(run, name="", version=""),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )


def _callbacks(run: Path, training: TrainingConfig, validates: bool) -> list[Callback]:
    callbacks: list[Callback] = [StopOnNaN()]
    if sys.stderr.isatty():
        callbacks.append(TQDMProgressBar())
    if training.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    # The clock after what belongs to a step, the file after the clock; Lightning puts checkpoints behind all others.
    callbacks += [Clock(), MetricsFile(run / "metrics.csv"), Checkpoint(run, "last", save_on_train_epoch_end=True)]
    if validates:
        callbacks.append(Checkpoint(run, "best", monitor="validation_dice", mode="max"))
        if training.early_stopping_patience:
            callbacks.append(EarlyStopping("validation_loss", patience=training.early_stopping_patience))
    return callbacks


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's advertisements and its warnings about what is meant to be so here."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for meant in ("Checkpoint directory .* not empty", ".*LeafSpec", ".*have no `val_dataloader`"):
                warnings.filterwarnings("ignore", meant)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def describe_machine() -> dict[str, Any]:
    """Versions, machine and the state of the code, for the run folder."""
    versions = {name: version(name) for name in ("groundglass", "torch", "lightning", "numpy")}
    machine = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"python": platform.python_version(), **versions, **machine, "git": _git_state()}


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from, and whether it was changed since; None: it is no checkout."""
    code = Path(__file__).parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", code, *words], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # fails where groundglass is installed inside another checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None
