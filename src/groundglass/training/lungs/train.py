"""Training the lung network into a run folder, to an exported model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError
from groundglass.files import sha256_of
from groundglass.inference.model_card import BUNDLED_LUNGS, TrainedOn, read_card
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.fit import fit, initial_module
from groundglass.training.lungs.batches import LungBatches, LungSampling
from groundglass.training.lungs.export import export_lungs
from groundglass.training.lungs.slices import LungSlices
from groundglass.training.lungs.wrong_pixels import count_wrong_pixels
from groundglass.training.module import TrainingConfig
from groundglass.training.run_folder import check_new, going_on, write_text
from groundglass.training.weights import exported_weights, load_network

DESCRIPTION = "lung-training.json"
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
CONTINUED = replace(TRAINING, learning_rate=1e-3, epochs=10)


def train_lungs(
    slices: LungSlices,
    run: Path,
    resume: bool = False,
    start: Path | None = None,
    sampling: LungSampling | None = None,
    training: TrainingConfig | None = None,
) -> Path:
    """Train the lung network and export its last, averaged weights.

    Args:
        slices: The slices to learn from.
        run: The run folder; created if it does not exist.
        resume: Continue from the last checkpoint in the run folder.
        start: An exported lung network to start from, whose errors are drawn more often; None: random weights.
        sampling: How an epoch is drawn.
        training: Optimiser, schedule, length, seed; None: `TRAINING`, or `CONTINUED` from a network.

    Returns:
        The ONNX file, in the run folder; its card lies beside it.

    Raises:
        ConfigError: The run folder holds another training, or one that is not to be resumed; nothing was touched.
        TrainingError: The training could not go on, there is nothing to resume, or `start` is another network.
        ModelError: An engine's result differs from torch by more than its tolerance, or `start` has no card.
    """
    earlier = read_card(start).trained_on if start else TrainedOn()
    sampling, training = sampling or LungSampling(), training or (CONTINUED if start else TRAINING)
    described = {"training": asdict(training), "sampling": asdict(sampling), "slices_sha256": slices.sha256}
    described |= {"start_sha256": sha256_of(start)} if start else {}
    if resume:
        _check_resumable(run, described)
    else:
        check_new(run, (f"{BUNDLED_LUNGS}.onnx",))
    with going_on(run):
        write_text(run / DESCRIPTION, json.dumps(described, indent=2))
        module = initial_module(NETWORK, LOSS, training, exported_weights(start, NETWORK) if start else None)
        wrong_pixels = count_wrong_pixels(start, slices) if start else None
        checkpoint = fit(module, LungBatches(slices, sampling, wrong_pixels), None, run, resume)
    return export_lungs(checkpoint, NETWORK, slices, run, earlier)


def _check_resumable(run: Path, described: dict[str, Any]) -> None:
    """Check that a run folder holds this training.

    Raises:
        ConfigError: It was started with other settings or slices, or by an older version.
        TrainingError: There is nothing to resume, or the checkpoint is damaged.
    """
    load_network(run / "last.ckpt", NETWORK)
    try:
        stored = json.loads((run / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run} cannot be resumed: its {DESCRIPTION} is missing or damaged: put it back") from error
    if stored != json.loads(json.dumps(described)):
        raise ConfigError(f"{run} was started with other slices or settings: name those, or another folder")
