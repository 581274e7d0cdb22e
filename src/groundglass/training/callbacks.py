"""Callbacks of a training: checkpoints, metrics file, timers, and the stop at a NaN loss."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from groundglass.errors import TrainingError
from groundglass.files import write_atomic
from groundglass.tables.writing import csv_text


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all.

    Lightning's own class writes to the folder for temporary files; if that is on another disk, it copies the file over
    the last good checkpoint, and a kill or a full disk during the copy would leave neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write the checkpoint; Lightning calls this in the first process only."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomic(Path(path), content.getvalue())


class Checkpoint(ModelCheckpoint):
    """A checkpoint under one name, `last` or `best`, that remembers the best score after its folder was moved."""

    def __init__(self, run: Path, name: str, **when: Any) -> None:
        super().__init__(run, filename=name, enable_version_counter=False, **when)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with every path changed to the folder that it is read from."""
        old, new = state_dict["dirpath"], str(self.dirpath)

        def relocate(value: Any) -> Any:
            if isinstance(value, dict):
                return {relocate(path): score for path, score in value.items()}
            return value.replace(old, new, 1) if isinstance(value, str) else value

        super().load_state_dict({name: relocate(value) for name, value in state_dict.items()})


class StopOnNaN(Callback):
    """Stops a training when its loss is NaN or infinite, before the weights are written into a checkpoint."""

    def on_train_batch_end(self, trainer: lightning.Trainer, _: object, outputs: object, *__: object) -> None:
        """Check the loss; it is that of the whole batch, so all processes stop at the same step.

        Raises:
            TrainingError: The loss is not finite.
        """
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {trainer.current_epoch}: lower training.learning_rate; "
                "checkpoints of the epochs before are kept"
            )


class EpochTimer(Callback):
    """Logs `seconds` of an epoch with its validation, and `data_share`, the fraction of its steps spent on data."""

    def on_train_epoch_start(self, *_: object) -> None:
        """Start the timers."""
        self.epoch_start = self.last_step_end = time.perf_counter()
        self.data_seconds = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """Add the time since the last step, which was spent waiting for this batch."""
        self.data_seconds += time.perf_counter() - self.last_step_end

    def on_train_batch_end(self, *_: object) -> None:
        """Note the end of this step."""
        self.last_step_end = time.perf_counter()

    def on_train_epoch_end(self, _: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Log both values."""
        seconds = time.perf_counter() - self.epoch_start
        data_share = self.data_seconds / (self.last_step_end - self.epoch_start)
        module.log_dict({"seconds": seconds, "data_share": data_share}, sync_dist=True)


class StepTimer(Callback):
    """Records the time at which each step ended, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Record the time."""
        self.ends.append(time.perf_counter())


class MetricsFile(Callback):
    """Writes one line per epoch to `metrics.csv`; a resumed training replaces the line of a repeated epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Write this epoch's line after those of earlier epochs; runs before the epoch's checkpoint is written."""
        metrics = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), **metrics}
        row["learning_rate"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}"
        if trainer.is_global_zero:
            earlier = [line for line in read_metrics(self.path) if int(line["epoch"]) < trainer.current_epoch]
            write_atomic(self.path, csv_text([*earlier, row]).encode())


class EpochLines(Callback):
    """Writes a line for each epoch to stderr, for logs and for terminals that show no progress bar."""

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Write the line of this epoch."""
        if trainer.is_global_zero:
            sys.stderr.write(f"{describe_epoch(trainer.current_epoch, trainer.max_epochs, trainer.callback_metrics)}\n")
            sys.stderr.flush()


def describe_epoch(epoch: int, epochs: int | None, metrics: Mapping[str, Any]) -> str:
    """Describe an epoch on one line.

    Args:
        epoch: The epoch, from 0.
        epochs: Number of epochs; None: not limited.
        metrics: {name: value} of what the training logged.
    """
    known = {name: float(value) for name, value in metrics.items()}
    parts = [
        f"{text} {known[name]:.3f}"
        for name, text in (
            ("loss", "loss"),
            ("validation_loss", "validation loss"),
            ("validation_dice", "validation Dice"),
        )
        if name in known
    ]
    parts += [f"{known['seconds']:.0f} s"] if "seconds" in known else []
    return f"epoch {epoch + 1} of {epochs}: {', '.join(parts)}"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read a `metrics.csv`, one line per epoch; return no lines if the file does not exist yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
