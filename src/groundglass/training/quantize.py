"""A model's int8 twin: convolutions in 8-bit integers, their ranges taken from slices that it was trained on.

Kept only where it scores as the float32 model does on slices that neither was fitted to.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, sides_of
from groundglass.errors import DatasetError, ModelError
from groundglass.files import sha256_of
from groundglass.inference.engine import OpenVINOEngine, int8_model_path
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, Quantized, read_card, write_card
from groundglass.metrics import Confusion
from groundglass.training.provenance import training_exposure

CALIBRATION = 300  # slices
MOST_LOST = 0.003  # of pooled Dice


def quantize(model: Path, prepared: Path, split: Split) -> tuple[Path, ModelCard]:
    """Write NAME-int8.onnx and its card beside NAME.onnx.

    Args:
        model: NAME.onnx, float32.
        prepared: A folder of slices of the model's size and field of view.
        split: Whose training part it is calibrated on, and whose validation part judges it.

    Returns:
        The file and its card.

    Raises:
        ModelError: The model is missing or damaged, int8 already, or its twin scores otherwise than it does.
        DatasetError: The folder is not of the model's size, or the split leaves no slice to judge by.
    """
    card = read_card(model)
    if card.quantized:
        raise ModelError(f"{model} is int8 already: give the float32 model")
    manifest, slices = read_prepared(prepared)
    if (manifest.size, manifest.field_of_view) != (card.size, card.field_of_view):
        raise DatasetError(
            f"{prepared} holds slices of {manifest.size} ({manifest.field_of_view}), the model takes {card.size} "
            f"({card.field_of_view}): prepare it so"
        )
    sides = sides_of(split, slices)
    train, validation = slices.where(sides.train), slices.where(sides.validation)
    if not len(validation):
        raise DatasetError(f"split {split.name} has no validation slices: take one that has")
    spread = np.unique(np.linspace(0, len(train) - 1, CALIBRATION).astype(int))
    calibration = train.images(card.window, card.neighbours_mm, spread)
    target = int8_model_path(model)
    unfinished = target.with_name(f".{target.stem}.part.onnx")
    try:
        write_int8(model, calibration, unfinished)
        scored = {
            precision: _dice(OpenVINOEngine(file, EngineConfig(precision=precision)), validation, card)
            for precision, file in ((Precision.F32, model), (Precision.INT8, unfinished))
        }
        if scored[Precision.F32] - scored[Precision.INT8] > MOST_LOST:
            raise ModelError(
                f"int8 loses {scored[Precision.F32] - scored[Precision.INT8]:.4f} of Dice on the validation part "
                f"({scored[Precision.F32]:.4f} before), expected at most {MOST_LOST}: stay with float32"
            )
        made = Quantized(
            of=card.sha256,
            slices=len(calibration),
            dice=round(scored[Precision.INT8], 4),
            dice_f32=round(scored[Precision.F32], 4),
        )
        known = training_exposure((*split.train, *split.validation), sides.train | sides.validation, slices, manifest)
        changes: dict[str, Any] = {
            "name": f"{card.name}-int8",
            "sha256": sha256_of(unfinished),
            "trained_on": card.trained_on and card.trained_on | known,
            "scores": {},
            "quantized": made,
            "export_check": {},
        }
        card = card.model_copy(update=changes)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    write_card(target, card)
    return target, card


def describe_quantized(path: Path, card: ModelCard) -> list[str]:
    """What `quantize` prints: the file, and the Dice of both versions."""
    assert card.quantized is not None
    made = card.quantized
    return [str(path), f"Dice on the validation part {made.dice:.4f}, float32 {made.dice_f32:.4f}"]


def write_int8(model: Path, images: NDArray[np.float32], target: Path) -> None:
    """Write an ONNX file with the convolutions of another in int8, their ranges as these images need them.

    Args:
        model: Float32.
        images: (n, slices, height, width) in [0, 1].
        target: What to write.
    """
    os.environ.setdefault("CI", "true")  # its telemetry calls nobody then
    import nncf
    import onnx

    logging.getLogger("nncf").setLevel(logging.ERROR)
    loaded = onnx.load(model)
    name = loaded.graph.input[0].name
    dataset: Any = nncf.Dataset([{name: image[None]} for image in images])
    onnx.save(nncf.quantize(loaded, dataset, subset_size=len(images)), target)


def _dice(engine: OpenVINOEngine, slices: Slices, card: ModelCard) -> float:
    """Pooled Dice on the network's own grid."""
    logit = np.log(card.threshold / (1 - card.threshold))
    counts = Confusion()
    for image, labels in zip(slices.images(card.window, card.neighbours_mm), slices.labels, strict=True):
        counts += Confusion.count(engine.run(image[None])[0, 0] >= logit, labels > 0)
    return counts.dice or 0.0
