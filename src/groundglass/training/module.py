"""The network under training: a batch in, a loss out. Knows nothing of CT files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from groundglass.losses import LossConfig, segmentation_loss
from groundglass.network.unet import LesionUNet, NetworkConfig


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found; the defaults are the paper's.

    Attributes:
        optimiser: `adam` with the learning rate halved on a plateau (the paper), or `adamw` on a one-cycle schedule.
        learning_rate: At the start (adam) or at the peak (adamw).
        weight_decay: Of adamw.
        epochs: At most.
        halve_after: Epochs without improvement before the learning rate is halved (adam).
        stop_after: Epochs without improvement before the training stops; 0: never.
        ema_decay: Of an exponential moving average of the weights, per step; 0: none.
        precision: Lightning's: `32-true` or `bf16-mixed`.
        compile: Compile the network for the training (wants a C++ compiler): a minute once, then a third faster.
        seed: Of weights, order and augmentation.
    """

    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    epochs: int = 500
    halve_after: int = 10
    stop_after: int = 50
    ema_decay: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.epochs < 1 or not 0 <= self.ema_decay < 1:
            raise ValueError("learning_rate is above 0, epochs 1 or more, and ema_decay in [0, 1)")


class LesionModule(lightning.LightningModule):
    """Trains a `LesionUNet`. Batches are (image (N, 1, H, W) in [0, 1], target (N, C, H, W))."""

    def __init__(self, network: NetworkConfig, loss: LossConfig, training: TrainingConfig) -> None:
        super().__init__()
        self.loss_config, self.training_config = loss, training
        self.network = LesionUNet(network)
        # In a tuple, so that the compiled twin is no second submodule with the same weights.
        self._trained = (torch.compile(self.network) if training.compile else self.network,)
        self.counts = torch.zeros(3)  # true positive, false positive, false negative of a validation

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, C, H, W) logits."""
        logits: Tensor = self.network(image)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        image, target = batch
        loss = segmentation_loss(self._trained[0](image), target, self.loss_config)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(image))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count afresh."""
        self.counts = torch.zeros(3, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Loss of one batch, and its share of the pooled counts at a threshold of 0.5."""
        image, target = batch
        logits = self(image)
        loss = segmentation_loss(logits, target, self.loss_config)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(image))
        found, truth = logits > 0, target > 0.5
        self.counts += torch.stack([(found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()])

    def on_validation_epoch_end(self) -> None:
        """Pooled Dice and sensitivity of the validation slices."""
        true_positive, false_positive, false_negative = self.counts
        dice = 2 * true_positive / (2 * true_positive + false_positive + false_negative).clamp(min=1)
        sensitivity = true_positive / (true_positive + false_negative).clamp(min=1)
        self.log("validation_dice", dice, prog_bar=True)
        self.log("validation_sensitivity", sensitivity)

    def configure_optimizers(self) -> Any:
        """Adam with a plateau schedule (the paper), or AdamW on one cycle."""
        config = self.training_config
        if config.optimiser == "adam":
            adam = torch.optim.Adam(self.parameters(), lr=config.learning_rate)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.5, patience=config.halve_after)
            return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": "validation_loss"}}
        adamw = torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, config.learning_rate, total_steps=steps, pct_start=0.15)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
