"""A training run -> one ONNX file and its card, checked against torch; or a segmenter at once."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.data.prepared import read_prepared
from groundglass.errors import ModelError
from groundglass.files import sha256_of
from groundglass.inference.engine import EngineCard, OnnxRuntimeEngine, OpenVINOEngine
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, TrainedOn, write_card
from groundglass.inference.segmenter import Segmenter
from groundglass.training.module import LesionModule
from groundglass.training.provenance import open_run

# Largest difference from torch in probability. ONNX Runtime shows that the file computes what torch does, but rounds
# more coarsely (1e-4 where torch's float32 is within 1e-5 of float64), OpenVINO's instance normalisation even more.
TOLERANCES = ((OnnxRuntimeEngine, 5e-4), (OpenVINOEngine, 2e-3))


def export(
    run: Path,
    name: str,
    folder: Path,
    threshold: float | None = None,
    prepared: Path | None = None,
    chosen_on: TrainedOn | None = None,
) -> tuple[Path, dict[str, float]]:
    """Write NAME.onnx and NAME.json from a finished run.

    Args:
        run: The run folder.
        name: Of the model.
        folder: Where both files go.
        threshold: Probability from which a pixel is lesion; None: what the run chose on its validation.
        prepared: A prepared folder: the export is checked on its real slices; None: on made-up ones.
        chosen_on: What the threshold was chosen on, if not on the run's own validation.

    Returns:
        The ONNX file, and each engine's largest difference from torch in probability.

    Raises:
        ModelError: The run is not finished, or the exported model computes something else than torch does.
    """
    module, card = open_run(run, name, threshold)
    if chosen_on and card.trained_on:
        card = card.model_copy(update={"trained_on": card.trained_on | chosen_on})
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{name}.onnx", folder / f".{name}.part.onnx"
    try:
        write_onnx(module, card.input_shape, unfinished)
        images = probe_images(card) if prepared is None else real_images(prepared, card)
        differences = check_against_torch(module, unfinished, images)
        card = card.model_copy(update={"sha256": sha256_of(unfinished), "export_check": differences})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    write_card(path, card)
    return path, differences


class TorchEngine:
    """A run's network as it was trained, for scoring a run that was not exported."""

    def __init__(self, module: LesionModule) -> None:
        self._module = module
        self.card = EngineCard(f"torch {torch.__version__}", Precision.F32.value, None, "the run as it was trained")

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._module(torch.from_numpy(images)).numpy(), dtype=np.float32)


def open_run_segmenter(run: Path) -> Segmenter:
    """A finished run, ready to segment.

    Raises:
        ModelError: The run is not finished.
    """
    module, card = open_run(run, run.resolve().name)
    return Segmenter(card, TorchEngine(module))


def describe_export(path: Path, differences: dict[str, float]) -> list[str]:
    """What `export` prints: the file, and each engine's largest difference from torch."""
    lines = [f"  {engine} {difference:.1e}" for engine, difference in differences.items()]
    return [f"{path}; largest difference from torch in probability:", *lines]


def probe_images(card: ModelCard) -> NDArray[np.float32]:
    """(3, *input shape) in [0, 1]: smooth, noisy and dark; what the export is checked on where no data is."""
    shape = card.input_shape
    ramp = np.linspace(0, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    return np.stack([ramp, noise, 0.2 * noise])


def real_images(prepared: Path, card: ModelCard, count: int = 48) -> NDArray[np.float32]:
    """(n, *input shape) in [0, 1]: slices spread over a prepared folder."""
    _, slices = read_prepared(prepared)
    return slices.images(card.window, card.neighbours_mm, slice(None, None, max(1, len(slices) // count)))


def write_onnx(module: LesionModule, shape: tuple[int, int, int], path: Path) -> None:
    """Export the network for inputs of (slices, height, width), with any batch, height and width."""
    dynamic = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            module.network,
            (torch.rand(2, *shape),),
            str(path),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            external_data=False,
            verbose=False,
        )


@torch.inference_mode()
def check_against_torch(module: LesionModule, model: Path, images: NDArray[np.float32]) -> dict[str, float]:
    """Compare the engines' probabilities with torch's.

    Returns:
        {engine: its largest difference}.

    Raises:
        ModelError: One is above its tolerance.
    """
    expected = torch.sigmoid(module(torch.from_numpy(images))).numpy()
    differences = {}
    for engine, tolerance in TOLERANCES:
        found = 1 / (1 + np.exp(-engine(model, EngineConfig(precision=Precision.F32)).run(images)))
        difference = float(np.abs(found - expected).max())
        if not difference <= tolerance:
            raise ModelError(
                f"{engine.__name__} differs from torch by {difference:.2g}: expected at most {tolerance:g}"
            )
        differences[engine.__name__] = difference
    return differences
