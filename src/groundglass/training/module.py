"""The network under training: a batch in, a loss out. Knows nothing of CT files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, distributed
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from groundglass.errors import TrainingError
from groundglass.network.baselines import BaselineConfig, build_network
from groundglass.network.losses import LossConfig, segmentation_loss
from groundglass.network.unet import NetworkConfig


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found; the defaults are the paper's.

    Attributes:
        optimiser: `adam` with the learning rate halved on a plateau (the paper), or `adamw` on a one-cycle schedule.
        learning_rate: At the start (adam) or at the peak (adamw).
        weight_decay: Of adamw.
        epochs: At most.
        lr_patience: Epochs without improvement before the learning rate is halved (adam): of the validation loss, or
            of the training's where there is no validation.
        early_stopping_patience: Epochs without improvement of the validation loss before the training stops; 0: never.
        ema_decay: Of an exponential moving average of the weights, per step; 0: none.
        precision: Lightning's: `32-true` or `bf16-mixed`.
        compile: Compile the network for the training (wants a C++ compiler): a minute once, then a third faster.
        seed: Of weights, order and augmentation.
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
            raise ValueError("learning_rate is above 0, epochs 1 or more, ema_decay in [0, 1), and seed 0 or more")


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes of a training.

    Every process computes the same loss L from the sum S of the parts s it adds up. Its gradient by its own weights
    would be dL/dS ds/dw; multiplied by the number of processes here and averaged over them by DDP, it is the sum of
    dL/dS ds/dw over the processes: the gradient that one process would find for the whole batch.
    """

    @staticmethod
    def forward(_: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * distributed.get_world_size()


class LesionModule(lightning.LightningModule):
    """Trains a network. Batches are (image (N, 1, H, W) in [0, 1], target (N, C, H, W)); map 0 is the lesion.

    Where several processes train, each is given a share of every batch; the loss, its gradient and the scores are those
    of the whole batch.
    """

    def __init__(self, network: NetworkConfig | BaselineConfig, loss: LossConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.loss_config, self.training_config = loss, training
        self.network = build_network(network)
        # In a tuple, so that the compiled twin is no second submodule with the same weights.
        self._trained = (torch.compile(self.network) if training.compile else self.network,)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, C, H, W) logits."""
        logits: Tensor = self.network(image)
        return logits

    def _sum(self, part: Tensor) -> Tensor:
        """The sum of every process' part."""
        if self.trainer.world_size == 1:
            return part
        total: Tensor = _SumOverProcesses.apply(part)  # type: ignore[no-untyped-call]
        return total

    def on_fit_start(self) -> None:
        """Lay the weights out as tensor cores want them; on CPUs that costs time instead."""
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """Refuse to go on with a schedule that was made for a training of another length."""
        schedule, steps = self.lr_schedulers(), int(self.trainer.estimated_stepping_batches)
        if isinstance(schedule, OneCycleLR) and schedule.total_steps != steps:
            raise TrainingError(
                f"the learning rate's cycle was begun for {schedule.total_steps} steps, {steps} are asked for: "
                "resume with the same training.epochs, or begin anew"
            )

    def on_train_epoch_start(self) -> None:
        """Have the batches of this epoch made."""
        batches = self.trainer.train_dataloader
        assert batches is not None
        batches.set_epoch(self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        image, target = batch
        loss = segmentation_loss(self._trained[0](image), target, self.loss_config, self._sum)
        # Every batch of a training holds equally many slices: their mean is that of the batches.
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count afresh."""
        self._counts = torch.zeros(4, dtype=torch.long, device=self.device)  # slices, TP, FP, FN
        self._loss = torch.zeros((), device=self.device)  # of each batch, times its slices

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Loss of one batch, and the pooled counts of its lesion map at a threshold of 0.5."""
        image, target = batch
        logits = self(image) if len(image) else target  # a share may be empty: then so are its logits
        loss = segmentation_loss(logits, target, self.loss_config, self._sum)
        found, truth = logits[:, 0] > 0, target[:, 0] > 0.5
        pixels = (found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()
        self._counts += torch.stack((torch.tensor(len(image), device=self.device), *pixels))
        self._loss += len(image) * loss

    def on_validation_epoch_end(self) -> None:
        """Mean loss of the validation slices, pooled Dice and sensitivity of their lesion."""
        slices, true_positive, false_positive, false_negative = self._sum(self._counts)
        dice = 2 * true_positive / (2 * true_positive + false_positive + false_negative).clamp(min=1)
        sensitivity = true_positive / (true_positive + false_negative).clamp(min=1)
        scores = {"loss": self._sum(self._loss) / slices, "dice": dice, "sensitivity": sensitivity}
        self.log_dict({f"validation_{name}": score for name, score in scores.items()}, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam with a plateau schedule (the paper), or AdamW on one cycle."""
        config = self.training_config
        if config.optimiser == "adam":
            adam = torch.optim.Adam(self.parameters(), lr=config.learning_rate)
            plateau = ReduceLROnPlateau(adam, factor=0.5, patience=config.lr_patience)
            watched = "validation_loss" if self.trainer.enable_validation else "loss"
            return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": watched}}
        adamw = torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = OneCycleLR(adamw, config.learning_rate, total_steps=steps, pct_start=0.15)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
