"""Training the lung network into a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from groundglass.errors import ConfigError
from groundglass.metrics import Confusion
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.fit import fit, initial_module
from groundglass.training.lungs.batches import INPUT_SIDE, LungBatches, LungSampling, scale_by_extremes
from groundglass.training.lungs.slices import LungSlices
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import load_network

NETWORK = NetworkConfig(widths=(8, 16, 32, 64, 128), classes=2)
LOSS = LossConfig(fn_weight=0.5, fp_weight=0.5, gamma=1.0, cross_entropy=1.0)
TRAINING = TrainingConfig(
    optimiser="adamw",
    learning_rate=4e-3,
    weight_decay=1e-2,
    epochs=30,
    early_stopping_patience=0,
    ema_decay=0.99,
    compile=True,
)


def train_lungs(
    slices: LungSlices,
    run: Path,
    resume: bool = False,
    sampling: LungSampling | None = None,
    training: TrainingConfig = TRAINING,
) -> Path:
    """Train the lung network; its last, averaged weights are the result.

    Args:
        slices: The slices to learn from.
        run: The run folder; created if it does not exist.
        resume: Continue from the last checkpoint in the run folder.
        sampling: How an epoch is drawn.
        training: Optimiser, schedule, length, seed.

    Returns:
        The checkpoint.

    Raises:
        ConfigError: The run folder holds a training already, and `resume` is false.
        TrainingError: The training could not go on, or there is nothing to resume.
    """
    if not resume and (run / "last.ckpt").exists():
        raise ConfigError(f"{run} holds a training already: resume it with --resume, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    module = initial_module(NETWORK, LOSS, training)
    return fit(module, LungBatches(slices, sampling or LungSampling()), None, run, resume)


def score_lungs(checkpoint: Path, slices: LungSlices) -> dict[str, Confusion]:
    """Count the lung pixels that a trained network finds, case by case, on its own grid.

    Args:
        checkpoint: As `train_lungs` returns it.
        slices: Slices that it did not learn from.
    """
    module = load_network(checkpoint, NETWORK).eval()
    return {
        name: Confusion.count(*_lungs(module, slices, slices.group == name))
        for name in dict.fromkeys(slices.group.tolist())
    }


@torch.inference_mode()
def _lungs(
    module: LesionModule, slices: LungSlices, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.bool_]], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """(n, INPUT_SIDE, INPUT_SIDE) what the network finds, and what is true."""
    hu = torch.from_numpy(slices.hu[chosen]).float()[:, None]
    truth = torch.from_numpy(slices.label[chosen] > 0).float()[:, None]
    small = [torch.nn.functional.interpolate(plane, (INPUT_SIDE,) * 2, mode="area") for plane in (hu, truth)]
    image = scale_by_extremes(small[0].clamp(-1350, 350))
    found = torch.cat([module(part).sigmoid().amax(1) > 0.5 for part in image.split(8)])
    return found.numpy(), (small[1][:, 0] > 0.5).numpy()
