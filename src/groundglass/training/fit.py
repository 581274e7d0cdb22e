"""Fit a module to batches: checkpoints, metrics, several processes, and every way in which a training can end."""

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
from groundglass.training.callbacks import (
    AtomicCheckpoints,
    Checkpoint,
    EpochLines,
    EpochTimer,
    MetricsFile,
    StepTimer,
    StopOnNaN,
)
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import StateDict

RESUME_HINT = "continue from the last good checkpoint with --resume"


class BatchSource(Protocol):
    """Source of training data: each iteration yields one epoch of (image (N, S, H, W), target (N, C, H, W))."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""

    def to_device(self, device: torch.device) -> None:
        """Make batches on a device from now on."""

    def shard(self, rank: int, world_size: int) -> None:
        """Yield, from now on, only the part of every batch that belongs to process `rank` of `world_size`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


def initial_module(
    network: NetworkConfig | BaselineConfig,
    loss: LossConfig,
    training: TrainingConfig,
    weights: StateDict | None = None,
) -> LesionModule:
    """Seed all random number generators, and build the module that `fit` takes.

    Args:
        network: The network.
        loss: The loss.
        training: Optimiser, schedule, length, seed.
        weights: Initial weights, as `adapt_weights` returns them; None initialises at random.
    """
    lightning.seed_everything(training.seed, verbose=False)
    module = LesionModule(network, loss, training)
    if weights is not None:
        module.load_state_dict(weights)
    return module


def fit(
    module: LesionModule,
    batches: BatchSource,
    validation: BatchSource | None,
    run: Path,
    resume: bool = False,
    devices: int = 1,
) -> Path:
    """Train a module into a run folder: `last.ckpt`, `best.ckpt`, `metrics.csv`, TensorBoard events.

    With `devices` above 1, Lightning starts the running command again for each further process, which then reaches this
    call too; anything else should be written by `is_first_process` only. Processes started by `torchrun` are used as
    they are. Up to rounding, weights and scores are those of a single process.

    Args:
        module: The module to train, as `initial_module` returns it.
        batches: Batches to train on; they are divided among the processes here.
        validation: Batches that choose the best epoch; None makes the last epoch the result.
        run: The run folder, which must exist.
        resume: Continue from `last.ckpt`.
        devices: Processes on this machine, each with a GPU if there are any; ignored under `torchrun`.

    Returns:
        The checkpoint to use: the best on the validation part, or the last if there is none.

    Raises:
        TrainingError: The loss became NaN, the training was interrupted, a file could not be written, or there is
            nothing to resume.
        ConfigError: The machine has fewer devices, or a batch is too small to be divided among them.
    """
    last, best = run / "last.ckpt", run / "best.ckpt"
    if resume and not last.is_file():
        raise TrainingError(f"{last} does not exist, so there is nothing to resume: start without --resume")
    with _silent_lightning():
        try:
            trainer = _trainer(module.training_config, validation is not None, run, devices)
        except MisconfigurationException as error:
            raise ConfigError(f"this machine cannot provide {devices} devices: {error}") from error
        for source in (batches, validation):
            if source is not None:
                source.shard(trainer.global_rank, trainer.world_size)
                source.to_device(trainer.strategy.root_device)
        with _training_errors(trainer, run):
            trainer.fit(module, batches, validation, ckpt_path=str(last) if resume else None, weights_only=True)
    return best if validation is not None and best.is_file() else last


def seconds_per_step(
    network: NetworkConfig | BaselineConfig,
    loss: LossConfig,
    training: TrainingConfig,
    batches: BatchSource,
    steps: int,
) -> float:
    """Measure the time of an uncompiled training step on this machine, after a first step to warm up.

    Args:
        network: The network.
        loss: The loss.
        training: Optimiser and precision.
        batches: Batches to train on.
        steps: Number of steps to time.
    """
    timer = StepTimer()
    with _silent_lightning():
        trainer = lightning.Trainer(
            max_steps=steps + 1,
            precision=training.precision,
            callbacks=[timer],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches.to_device(trainer.strategy.root_device)
        trainer.fit(LesionModule(network, loss, replace(training, compile=False)), batches)
    return (timer.ends[-1] - timer.ends[0]) / steps


@contextmanager
def _training_errors(trainer: lightning.Trainer, run: Path) -> Iterator[None]:
    """Turn whatever ends a training early, and is no defect of the program, into a TrainingError with a hint."""
    try:
        yield
    except SystemExit:  # Lightning raises it after Ctrl-C
        epoch = trainer.current_epoch
        has_checkpoint = (run / "last.ckpt").is_file()
        hint = "continue from the end of the last epoch with --resume" if has_checkpoint else "start it again"
        raise TrainingError(f"interrupted in epoch {epoch}: {hint}") from None
    except OutputError as error:
        raise TrainingError(f"{error}; {RESUME_HINT}") from error
    except OSError as error:
        raise TrainingError(f"{run} cannot be written: {error.strerror or error}; {RESUME_HINT}") from error
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(f"another process of this training ended, see its message; {RESUME_HINT}") from error


def is_first_process() -> bool:
    """Return whether this process writes the files of the training (its rank is 0)."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _processes(devices: int) -> tuple[int, int]:
    """Return (processes per machine, machines); `torchrun` sets both in the environment."""
    if not distributed.is_torchelastic_launched():
        return devices, 1
    per_machine = int(os.environ["LOCAL_WORLD_SIZE"])
    return per_machine, int(os.environ["WORLD_SIZE"]) // per_machine


def _trainer(training: TrainingConfig, validates: bool, run: Path, devices: int) -> lightning.Trainer:
    devices, machines = _processes(devices)
    return lightning.Trainer(
        accelerator="auto",
        devices=devices,
        num_nodes=machines,
        strategy="ddp" if devices * machines > 1 else "auto",
        use_distributed_sampler=False,
        plugins=[AtomicCheckpoints()],
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
    # The timer must run after all that belongs to a step, the metrics file after the timer, and checkpoints last.
    callbacks += [EpochTimer(), MetricsFile(run / "metrics.csv"), Checkpoint(run, "last", save_on_train_epoch_end=True)]
    if not sys.stderr.isatty():
        callbacks.append(EpochLines())
    if validates:
        callbacks.append(Checkpoint(run, "best", monitor="validation_dice", mode="max"))
        if training.early_stopping_patience:
            callbacks.append(EarlyStopping("validation_loss", patience=training.early_stopping_patience))
    return callbacks


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Suppress Lightning's tips, and its warnings about what is done here on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in ("Checkpoint directory .* not empty", ".*LeafSpec", ".*have no `val_dataloader`"):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def describe_machine() -> dict[str, Any]:
    """Return the versions, the machine and the git state of the code, for the run folder."""
    versions = {name: version(name) for name in ("groundglass", "torch", "lightning", "numpy")}
    machine = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"python": platform.python_version(), **versions, **machine, "git": _git_state()}


def _git_state() -> dict[str, Any] | None:
    """Return the commit that this code runs from and whether it was changed since; None outside a checkout."""
    package = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # fails if groundglass is installed inside another checkout
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None
