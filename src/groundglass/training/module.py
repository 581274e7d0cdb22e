"""The network under training: a batch in, a loss out. Nothing here depends on CT files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, distributed
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from groundglass.errors import TrainingError
from groundglass.network.baselines import BaselineConfig, build_network
from groundglass.network.losses import LossConfig, segmentation_loss
from groundglass.network.unet import NetworkConfig


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, schedule and length of a training; the defaults are the paper's.

    Attributes:
        optimiser: `adam` with the learning rate halved on a plateau (the paper), or `adamw` on a one-cycle schedule.
        learning_rate: Learning rate at the start (adam) or at the peak (adamw).
        weight_decay: Weight decay of adamw.
        epochs: Largest number of epochs.
        lr_patience: Epochs without improvement before adam's learning rate is halved; judged by the validation loss,
            or by the training loss if there is no validation part.
        early_stopping_patience: Epochs without improvement of the validation loss before the training stops; 0 never
            stops early.
        ema_decay: Decay, per step, of an exponential moving average of the weights; 0 keeps no average.
        precision: Lightning's `32-true` or `bf16-mixed`.
        compile: Compile the network, which needs a C++ compiler, takes about a minute, and saves a third of each step.
        seed: Seed of initial weights, order and augmentation.
    """

    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    epochs: int = 500
    lr_patience: int = 10
    early_stopping_patience: int = 50
    ema_decay: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.epochs < 1 or not 0 <= self.ema_decay < 1 or self.seed < 0:
            raise ValueError("learning_rate must be above 0, epochs 1 or more, ema_decay in [0, 1), and seed 0 or more")


class AllReduceSum(torch.autograd.Function):
    """Sum a tensor over the processes of a training, with the gradient of the whole batch.

    Every process computes the same loss L from the sum S of all processes' parts s. The gradient by its own part alone
    is dL/dS ds/dw. `backward` multiplies it by the number of processes and DDP averages over the processes, which gives
    the sum of dL/dS ds/dw over the processes: the gradient that a single process computes for the whole batch.
    """

    @staticmethod
    def forward(_: Any, sums: Tensor) -> Tensor:
        """Return the sum over the processes."""
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """Return the gradient times the number of processes."""
        return gradient * distributed.get_world_size()


class LesionModule(lightning.LightningModule):
    """A network with its loss and optimiser.

    Batches are (image (N, slices, H, W) in [0, 1], target (N, C, H, W)), and map 0 is the lesion. If several processes
    train, each gets a part of every batch; the loss, its gradient and the scores are those of the whole batch.
    """

    def __init__(self, network: NetworkConfig | BaselineConfig, loss: LossConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.loss_config, self.training_config = loss, training
        self.network = build_network(network)
        # In a tuple, because as a plain attribute the compiled network would be a second submodule.
        self._training_network = (torch.compile(self.network) if training.compile else self.network,)

    def forward(self, image: Tensor) -> Tensor:
        """(N, slices, H, W) -> (N, C, H, W) logits."""
        logits: Tensor = self.network(image)
        return logits

    def _all_reduce(self, part: Tensor) -> Tensor:
        """Return the sum of the parts of all processes."""
        if self.trainer.world_size == 1:
            return part
        total: Tensor = AllReduceSum.apply(part)  # type: ignore[no-untyped-call]
        return total

    def on_fit_start(self) -> None:
        """Use the memory layout that tensor cores prefer; on CPUs it costs time instead."""
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Check that a resumed one-cycle schedule was made for a training of this length.

        Raises:
            TrainingError: It was made for another number of steps.
        """
        schedule, steps = self.lr_schedulers(), int(self.trainer.estimated_stepping_batches)
        if isinstance(schedule, OneCycleLR) and schedule.total_steps != steps:
            raise TrainingError(
                f"the one-cycle learning rate was started for {schedule.total_steps} steps, but this training has "
                f"{steps}: resume with the same training.epochs, or start a new run"
            )

    def on_train_epoch_start(self) -> None:
        """Choose the batches of this epoch."""
        batches = self.trainer.train_dataloader
        assert batches is not None
        batches.set_epoch(self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        image, target = batch
        loss = segmentation_loss(self._training_network[0](image), target, self.loss_config, self._all_reduce)
        # All batches of a training hold the same number of slices, so their plain mean is the mean over slices.
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def on_train_epoch_end(self) -> None:
        """Judge the epoch by the plateau schedule; Lightning would after the checkpoint, which a resumed run reads."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(self.trainer.callback_metrics[self._plateau_monitor])

    def lr_scheduler_step(self, scheduler: LRScheduler | ReduceLROnPlateau, metric: Any | None) -> None:
        """Step a schedule for Lightning, but not that of `on_train_epoch_end`."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self._counts = torch.zeros(4, dtype=torch.long, device=self.device)  # slices, TP, FP, FN
        self._loss = torch.zeros((), device=self.device)  # sum over slices

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Add the loss of one batch, and the pixel counts of its lesion map at a threshold of 0.5."""
        image, target = batch
        logits = self(image) if len(image) else target  # a process's part of a batch may be empty
        loss = segmentation_loss(logits, target, self.loss_config, self._all_reduce)
        predicted, truth = logits[:, 0] > 0, target[:, 0] > 0.5
        pixels = (predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()
        self._counts += torch.stack((torch.tensor(len(image), device=self.device), *pixels))
        self._loss += len(image) * loss

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss of the validation slices, and the pooled Dice and sensitivity of their lesion."""
        slices, true_positive, false_positive, false_negative = self._all_reduce(self._counts)
        dice = 2 * true_positive / (2 * true_positive + false_positive + false_negative).clamp(min=1)
        sensitivity = true_positive / (true_positive + false_negative).clamp(min=1)
        scores = {"loss": self._all_reduce(self._loss) / slices, "dice": dice, "sensitivity": sensitivity}
        self.log_dict({f"validation_{name}": score for name, score in scores.items()}, prog_bar=True, sync_dist=True)

    @property
    def _plateau_monitor(self) -> str:
        """What adam's schedule judges an epoch by."""
        return "validation_loss" if self.trainer.enable_validation else "loss"

    def configure_optimizers(self) -> Any:
        """Return Adam with a plateau schedule (the paper), or AdamW with a one-cycle schedule."""
        config = self.training_config
        if config.optimiser == "adam":
            adam = torch.optim.Adam(self.parameters(), lr=config.learning_rate)
            plateau = ReduceLROnPlateau(adam, factor=0.5, patience=config.lr_patience)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": self._plateau_monitor}}
        adamw = torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = OneCycleLR(adamw, config.learning_rate, total_steps=steps, pct_start=0.15)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
