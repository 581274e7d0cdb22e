"""One training, start to end: slices in, a run folder out."""

from __future__ import annotations

import csv
import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from groundglass.errors import TrainingError
from groundglass.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.module import LesionModule, TrainingConfig

Batches = DataLoader[tuple[Tensor, Tensor]]


class _StopOnNaN(Callback):
    """Ends a training whose loss is no longer a number, before it is written into a checkpoint."""

    def on_train_batch_end(self, trainer: lightning.Trainer, _: object, outputs: object, *__: object) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {trainer.current_epoch}: lower training.learning_rate; "
                "the last good checkpoint is kept"
            )


class _MetricsFile(Callback):
    """One line an epoch in `metrics.csv`; a resumed training goes on below (Lightning's own logger starts afresh)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        metrics = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), **metrics}
        row["learning_rate"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}"
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def _callbacks(run: Path, training: TrainingConfig, validates: bool) -> list[Callback]:
    callbacks: list[Callback] = [
        _StopOnNaN(),
        _MetricsFile(run / "metrics.csv"),
        ModelCheckpoint(run, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    if sys.stderr.isatty():
        callbacks.append(TQDMProgressBar())
    if training.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    if validates:
        callbacks.append(
            ModelCheckpoint(run, filename="best", monitor="validation_dice", mode="max", enable_version_counter=False)
        )
        if training.stop_after:
            callbacks.append(EarlyStopping("validation_loss", patience=training.stop_after))
    return callbacks


def fit(
    network: NetworkConfig,
    loss: LossConfig,
    training: TrainingConfig,
    batches: Batches,
    validation: Batches | None,
    run: Path,
    resume: bool = False,
) -> Path:
    """Train a network into a run folder: `last.ckpt`, `best.ckpt`, `metrics.csv`, TensorBoard events.

    Args:
        network: The network's switches.
        loss: The loss.
        training: Optimiser, schedule, length, seed.
        batches: What to train on.
        validation: What chooses the best epoch; None: the last epoch is the result.
        run: The run's folder; exists.
        resume: Go on from `last.ckpt`.

    Returns:
        The checkpoint to use: the best on the validation, else the last.

    Raises:
        TrainingError: The loss is no longer a number, it was interrupted, or there is nothing to resume.
    """
    last = run / "last.ckpt"
    if resume and not last.is_file():
        raise TrainingError(f"{last} is not there: nothing to resume; start without --resume")
    with _quiet_lightning():
        lightning.seed_everything(training.seed, verbose=False)
        module = LesionModule(network, loss, training)
        trainer = _trainer(training, validation is not None, run)
        try:
            trainer.fit(module, batches, validation, ckpt_path=str(last) if resume else None, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C
            epoch = trainer.current_epoch
            raise TrainingError(f"interrupted in epoch {epoch}: --resume goes on from the end of the last") from None
    best = run / "best.ckpt"
    return best if validation is not None and best.is_file() else last


def _trainer(training: TrainingConfig, validates: bool, run: Path) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision=training.precision,
        max_epochs=training.epochs,
        callbacks=_callbacks(run, training, validates),
        logger=TensorBoardLogger(run, name="", version=""),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's advertisements and its warnings about what is meant to be so here."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for meant in ("Checkpoint directory .* not empty", ".*does not have many workers", ".*LeafSpec"):
                warnings.filterwarnings("ignore", meant)
            yield
    finally:
        log.setLevel(level)


def load_network(checkpoint: Path, network: NetworkConfig) -> LesionModule:
    """The network of a checkpoint, in evaluation mode; only tensors are unpickled.

    Raises:
        TrainingError: The checkpoint is missing, or of another network.
    """
    if not checkpoint.is_file():
        raise TrainingError(f"{checkpoint} is not there: train first")
    module = LesionModule(network, LossConfig(), TrainingConfig())
    try:
        module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint} does not fit the configuration beside it: {str(error).splitlines()[0]}"
        ) from error
    return module.eval()


def describe_machine() -> str:
    """Versions and machine, as JSON, for the run folder."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "lightning": lightning.__version__}
    return json.dumps({**versions, "machine": platform.platform(), "threads": torch.get_num_threads()}, indent=2)
