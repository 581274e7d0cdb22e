"""What happens beside the steps of a training: its files, its clock, and when it ends early."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from groundglass.errors import TrainingError
from groundglass.files import write_atomic
from groundglass.tables import csv_text


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all.

    Lightning's own goes through the folder for temporary files, and is copied over the last good one where that is
    another disk: a kill or a full disk in between would leave neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write it; Lightning calls this on the first process only."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomic(Path(path), content.getvalue())


class Checkpoint(ModelCheckpoint):
    """A checkpoint under one name, `last` or `best`, that still knows the best score when its folder was moved."""

    def __init__(self, run: Path, name: str, **when: Any) -> None:
        super().__init__(run, filename=name, enable_version_counter=False, **when)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the paths that the state names as those of the folder it is read from."""
        old, new = state_dict["dirpath"], str(self.dirpath)

        def here(value: Any) -> Any:
            if isinstance(value, dict):
                return {here(path): score for path, score in value.items()}
            return value.replace(old, new, 1) if isinstance(value, str) else value

        super().load_state_dict({name: here(value) for name, value in state_dict.items()})


class StopOnNaN(Callback):
    """Ends a training whose loss is no longer a number, before it is written into a checkpoint."""

    def on_train_batch_end(self, trainer: lightning.Trainer, _: object, outputs: object, *__: object) -> None:
        """The loss is that of the whole batch, so that every process ends here together."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {trainer.current_epoch}: lower training.learning_rate; "
                "checkpoints of the epochs before are kept"
            )


class Clock(Callback):
    """Logs `seconds`, an epoch with its validation, and `data_share`, the share of its steps spent waiting for data."""

    def on_train_epoch_start(self, *_: object) -> None:
        """Start both clocks."""
        self.begun = self.asked = time.perf_counter()
        self.waited = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        """The batch is here."""
        self.waited += time.perf_counter() - self.asked

    def on_train_batch_end(self, *_: object) -> None:
        """The next one is asked for."""
        self.asked = time.perf_counter()

    def on_train_epoch_end(self, _: lightning.Trainer, module: lightning.LightningModule) -> None:
        """`asked` is now the end of the last step."""
        times = {"seconds": time.perf_counter() - self.begun, "data_share": self.waited / (self.asked - self.begun)}
        module.log_dict(times, sync_dist=True)


class StepEnds(Callback):
    """Notes when each step ended, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Of each step."""
        self.ends.append(time.perf_counter())


class MetricsFile(Callback):
    """One line an epoch in `metrics.csv`, also where an epoch is repeated by a training that goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Write the lines before this epoch and its own; it comes before the checkpoint of the epoch."""
        metrics = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), **metrics}
        row["learning_rate"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}"
        if trainer.is_global_zero:
            rows = [
                *(earlier for earlier in read_metrics(self.path) if int(earlier["epoch"]) < trainer.current_epoch),
                row,
            ]
            write_atomic(self.path, csv_text(rows).encode())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The lines of a `metrics.csv`, one an epoch; none where the training has not got so far."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
