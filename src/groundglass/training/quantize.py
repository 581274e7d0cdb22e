"""The int8 version of a model: convolutions in 8-bit integers, with ranges calibrated on training slices.

It is kept only if it scores like the float32 model on validation slices.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.data.slices import Slices
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import DatasetError, ModelError
from groundglass.files import sha256_of, staged_folder
from groundglass.inference.engine import OpenVINOEngine, int8_model_path, no_telemetry
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, Quantized, read_card, write_card
from groundglass.metrics import Confusion
from groundglass.training.provenance import training_exposure

CALIBRATION_SLICES = 300
LARGEST_DICE_LOSS = 0.003  # of pooled Dice on the validation part


def quantize(model: Path, prepared: Path, split: Split) -> tuple[Path, ModelCard]:
    """Write NAME-int8.onnx and its card beside NAME.onnx: both or none.

    Args:
        model: NAME.onnx, float32.
        prepared: A folder of slices of the model's size and field of view.
        split: A split whose training part calibrates the ranges, and whose validation part scores both versions.

    Returns:
        The int8 file and its card.

    Raises:
        ModelError: The model is missing, damaged or already int8, or its int8 version loses too much Dice.
        DatasetError: The folder was prepared with another size or view, or the split has no validation slices.
        OutputError: The files cannot be written.
    """
    card = read_card(model)
    if card.quantized:
        raise ModelError(f"{model} is already int8: give the float32 model")
    manifest, slices = read_prepared(prepared)
    if (manifest.size, manifest.field_of_view) != (card.size, card.field_of_view):
        raise DatasetError(
            f"{prepared} holds slices of {manifest.size} ({manifest.field_of_view}), but the model takes {card.size} "
            f"({card.field_of_view}): prepare a folder with these settings"
        )
    parts = resolve_split(split, slices)
    train, validation = slices.where(parts.train), slices.where(parts.validation)
    if not len(validation):
        raise DatasetError(f"split {split.name} has no validation slices: choose a split that has some")
    spread = np.unique(np.linspace(0, len(train) - 1, CALIBRATION_SLICES).astype(int))
    calibration = train.network_inputs(card.window, card.neighbours_mm, spread)
    target = int8_model_path(model)
    with staged_folder(target.parent) as staging:
        unfinished = staging / target.name
        write_int8(model, calibration, unfinished)
        dice_f32, dice_int8 = (
            _dice(OpenVINOEngine(file, EngineConfig(precision=precision)), validation, card)
            for precision, file in ((Precision.F32, model), (Precision.INT8, unfinished))
        )
        if dice_f32 - dice_int8 > LARGEST_DICE_LOSS:
            raise ModelError(
                f"int8 loses {dice_f32 - dice_int8:.4f} of Dice on the validation part (float32: {dice_f32:.4f}), "
                f"expected at most {LARGEST_DICE_LOSS}: keep using float32"
            )
        exposure = training_exposure(
            (*split.train, *split.validation), parts.train | parts.validation, slices, manifest
        )
        changes: dict[str, Any] = {
            "name": f"{card.name}-int8",
            "sha256": sha256_of(unfinished),
            "trained_on": card.trained_on and card.trained_on | exposure,
            "scores": {},
            "quantized": Quantized(
                of=card.sha256, slices=len(calibration), dice=round(dice_int8, 4), dice_f32=round(dice_f32, 4)
            ),
            "export_check": {},
            "mirror_sha256": None,  # the int8 network predicts them itself
        }
        card = card.model_copy(update=changes)
        write_card(unfinished, card)
    return target, card


def describe_quantized(path: Path, card: ModelCard) -> list[str]:
    """Return the lines that `quantize` prints: the file, and the Dice of both versions."""
    assert card.quantized is not None
    dice, dice_f32 = card.quantized.dice, card.quantized.dice_f32
    return [str(path), f"Dice on the validation part {dice:.4f}, float32 {dice_f32:.4f}"]


def write_int8(model: Path, images: NDArray[np.float32], target: Path) -> None:
    """Write an ONNX file with the convolutions of another in int8, with ranges calibrated on images.

    Args:
        model: The float32 ONNX file.
        images: (n, slices, height, width) in [0, 1].
        target: The file to write.
    """
    with no_telemetry():
        import nncf
        import onnx

        logging.getLogger("nncf").setLevel(logging.ERROR)
        loaded = onnx.load(model)
        name = loaded.graph.input[0].name
        dataset: Any = nncf.Dataset([{name: image[None]} for image in images])
        onnx.save(nncf.quantize(loaded, dataset, subset_size=len(images)), target)


def _dice(engine: OpenVINOEngine, slices: Slices, card: ModelCard) -> float:
    """Return the pooled Dice on the network's own grid."""
    logit_threshold = np.log(card.threshold / (1 - card.threshold))
    counts = Confusion()
    for image, labels in zip(slices.network_inputs(card.window, card.neighbours_mm), slices.labels, strict=True):
        counts += Confusion.count(engine.run(image[None])[0, 0] >= logit_threshold, labels > 0)
    return counts.dice or 0.0
