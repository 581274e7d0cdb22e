"""Export of a finished run to an ONNX file with its card, checked against torch; or a segmenter in torch."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from scipy.special import expit

from groundglass.data.prepared import read_prepared
from groundglass.errors import ModelError
from groundglass.files import sha256_of, staged_folder
from groundglass.inference.engine import EngineCard, OnnxRuntimeEngine, OpenVINOEngine
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, write_card
from groundglass.inference.segmenter import Segmenter
from groundglass.training.finished_run import open_run
from groundglass.training.held_out import FoldCalibration, calibrated_card
from groundglass.training.module import LesionModule

# Largest allowed difference from torch in probability. ONNX Runtime rounds more coarsely than torch (1e-4 from float64,
# torch's float32 1e-5), and OpenVINO's instance normalisation more coarsely still.
TOLERANCES = ((OnnxRuntimeEngine, 5e-4), (OpenVINOEngine, 2e-3))


def export(
    run: Path,
    name: str | None,
    folder: Path,
    threshold: float | None = None,
    prepared: Path | None = None,
    calibration: FoldCalibration | None = None,
    mirrored: bool = False,
) -> tuple[Path, dict[str, float]]:
    """Write NAME.onnx and NAME.json from a finished run: both or none.

    Args:
        run: The run folder.
        name: Name of the model; None for that of the run's configuration.
        folder: Folder for both files.
        threshold: Probability from which a pixel counts as lesion; None takes the one of `calibration`, or else the one
            that the run chose.
        prepared: A prepared folder, on whose slices the export is checked; None checks it on synthetic images.
        calibration: What folds of the recipe tell; None if there are none.
        mirrored: Average each prediction with that of the slice's mirror image.

    Returns:
        The ONNX file, and {engine: its largest difference from torch in probability}.

    Raises:
        ModelError: The run is not finished, or an engine's result differs from torch by more than its tolerance.
        OutputError: The files cannot be written.
    """
    module, card = open_run(run, name, calibration.threshold if calibration and threshold is None else threshold)
    card = card.model_copy(update={"mirrored": mirrored})
    if calibration:
        exposed = card.trained_on and card.trained_on | calibration.exposure
        card = calibrated_card(card, mirrored).model_copy(
            update={"trained_on": exposed, "burden_interval": calibration.interval}
        )
    with staged_folder(folder) as staging:
        path = staging / f"{card.name}.onnx"
        write_onnx(module, card.input_shape, path)
        images = probe_images(card) if prepared is None else real_images(prepared, card)
        differences = check_against_torch(module, path, images)
        write_card(path, card.model_copy(update={"sha256": sha256_of(path), "export_check": differences}))
    return folder / path.name, differences


class TorchEngine:
    """Runs the network of a run in torch, to score a run without exporting it."""

    def __init__(self, module: LesionModule) -> None:
        self._module = module
        self.card = EngineCard(f"torch {torch.__version__}", Precision.F32.value, None, "the run as it was trained")

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, slices, H, W) in [0, 1] -> (N, classes, H, W) logits."""
        return np.asarray(self._module(torch.from_numpy(images)).numpy(), dtype=np.float32)


def open_run_segmenter(run: Path) -> Segmenter:
    """Open a finished run, ready to segment.

    Raises:
        ModelError: The run is not finished.
    """
    module, card = open_run(run, run.resolve().name)
    return Segmenter(card, TorchEngine(module))


def describe_export(path: Path, differences: dict[str, float]) -> list[str]:
    """Return the lines that `export` prints: the file, and each engine's largest difference from torch."""
    lines = [f"  {engine} {difference:.1e}" for engine, difference in differences.items()]
    return [f"{path}; largest difference from torch in probability:", *lines]


def probe_images(card: ModelCard) -> NDArray[np.float32]:
    """Return (3, *input shape) synthetic images in [0, 1]: smooth, noisy and dark."""
    shape = card.input_shape
    ramp = np.linspace(0, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    return np.stack([ramp, noise, 0.2 * noise])


def real_images(prepared: Path, card: ModelCard, count: int = 48) -> NDArray[np.float32]:
    """Return (n, *input shape) images in [0, 1]: about `count` slices spread over a prepared folder."""
    _, slices = read_prepared(prepared)
    return slices.network_inputs(card.window, card.neighbours_mm, slice(None, None, max(1, len(slices) // count)))


def write_onnx(module: LesionModule, shape: tuple[int, int, int], path: Path) -> None:
    """Write the network as ONNX, traced on (slices, height, width); batch size, height and width stay variable."""
    dynamic = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses deprecated functions itself
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
    traced = onnx.load(path)
    for part in (traced, traced.graph, *traced.graph.node, *traced.graph.value_info):
        del part.metadata_props[:]  # stack traces of this machine
    onnx.save(traced, path)


@torch.inference_mode()
def check_against_torch(
    module: LesionModule, model: Path, images: NDArray[np.float32], slack: float = 1.0
) -> dict[str, float]:
    """Compare the probabilities of each engine with those of torch.

    Args:
        module: The network.
        model: The ONNX file.
        images: (n, slices, height, width) inputs in [0, 1].
        slack: Factor on the tolerances.

    Returns:
        {engine: its largest difference from torch}.

    Raises:
        ModelError: A difference is above its tolerance.
    """
    expected = torch.sigmoid(module(torch.from_numpy(images))).numpy()
    differences = {}
    for engine, tolerance in TOLERANCES:
        probability = expit(engine(model, EngineConfig(precision=Precision.F32)).run(images))
        difference = float(np.abs(probability - expected).max())
        if not difference <= slack * tolerance:
            raise ModelError(
                f"{engine.__name__} differs from torch by {difference:.2g}: expected at most {slack * tolerance:g}"
            )
        differences[engine.__name__] = difference
    return differences
