"""Training the lung network into a run folder, to an exported model."""

from __future__ import annotations

from pathlib import Path

from groundglass.errors import ConfigError
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.fit import fit, initial_module
from groundglass.training.lungs.batches import LungBatches, LungSampling
from groundglass.training.lungs.export import export_lungs
from groundglass.training.lungs.slices import LungSlices
from groundglass.training.module import TrainingConfig

NETWORK = NetworkConfig(widths=(8, 16, 32, 64, 128), classes=2)
LOSS = LossConfig(fn_weight=0.5, fp_weight=0.5, gamma=1.0, cross_entropy=1.0)
TRAINING = TrainingConfig(
    optimiser="adamw",
    learning_rate=4e-3,
    weight_decay=1e-2,
    epochs=40,
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
    """Train the lung network and export its last, averaged weights.

    Args:
        slices: The slices to learn from.
        run: The run folder; created if it does not exist.
        resume: Continue from the last checkpoint in the run folder.
        sampling: How an epoch is drawn.
        training: Optimiser, schedule, length, seed.

    Returns:
        The ONNX file, in the run folder; its card lies beside it.

    Raises:
        ConfigError: The run folder holds a training already, and `resume` is false.
        TrainingError: The training could not go on, or there is nothing to resume.
        ModelError: An engine's result differs from torch by more than its tolerance.
    """
    if not resume and (run / "last.ckpt").exists():
        raise ConfigError(f"{run} holds a training already: resume it with --resume, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    module = initial_module(NETWORK, LOSS, training)
    checkpoint = fit(module, LungBatches(slices, sampling or LungSampling()), None, run, resume)
    return export_lungs(checkpoint, NETWORK, slices, run)
