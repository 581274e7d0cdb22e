"""Export of a finished run to an ONNX file with its card, checked against torch; or a segmenter in torch."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from scipy.special import expit

from groundglass.data.prepared import read_prepared
from groundglass.errors import ConfigError, ModelError
from groundglass.files import sha256_of, staged_folder
from groundglass.inference.engine import EngineCard, OnnxRuntimeEngine, OpenVINOEngine
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.model_card import ModelCard, mirror_model_path, write_card
from groundglass.inference.segmenter import Segmenter
from groundglass.training.finished_run import open_run
from groundglass.training.held_out import FoldCalibration, calibrated_card
from groundglass.training.module import LesionModule
from groundglass.training.parents import ParentModel, open_parent

# Largest allowed difference from torch in probability. ONNX Runtime rounds more coarsely than torch (1e-4 from float64,
# torch's float32 1e-5), and OpenVINO's instance normalisation more coarsely still: 1e-6 in the mean, 2.03e-3 at most in
# 7.5 million probabilities of the network bundled last. A wrong export differs by far more.
TOLERANCES = ((OnnxRuntimeEngine, 5e-4), (OpenVINOEngine, 4e-3))


def export(
    run: Path,
    name: str | None,
    folder: Path,
    threshold: float | None = None,
    prepared: Path | None = None,
    calibration: FoldCalibration | None = None,
    mirrored: bool = False,
    mirror: Path | None = None,
) -> tuple[Path, dict[str, float]]:
    """Write NAME.onnx and NAME.json from a finished run, and NAME-mirror.onnx from another one: all or none.

    Args:
        run: The run folder.
        name: Name of the model; None for that of the run's configuration.
        folder: Folder for both files.
        threshold: Probability from which a pixel counts as lesion; None takes the one of `calibration`, or else the one
            that the run chose.
        prepared: A prepared folder, on whose slices the export is checked; None checks it on synthetic images.
        calibration: What folds of the recipe tell; None if there are none.
        mirrored: Average each prediction with that of the slice's mirror image.
        mirror: A finished run or an exported model whose network predicts the mirror images, which are averaged then.

    Returns:
        The ONNX file, and {engine: its largest difference from torch in probability}.

    Raises:
        ModelError: A run is not finished, or an engine's result differs from torch by more than its tolerance.
        ConfigError: `mirror` sees another input than the run's network, or gives other maps.
        OutputError: The files cannot be written.
    """
    module, card = open_run(run, name, calibration.threshold if calibration and threshold is None else threshold)
    card = card.model_copy(update={"mirrored": mirrored or mirror is not None})
    parent = None if mirror is None else open_parent(mirror)
    if parent:
        _check_same_input(parent, card)
        card = card.model_copy(update=_data_of_both(card, parent))
    if calibration:
        exposed = card.trained_on and card.trained_on | calibration.exposure
        card = calibrated_card(card, card.mirrored).model_copy(
            update={"trained_on": exposed, "burden_interval": calibration.interval}
        )
    with staged_folder(folder) as staging:
        path = staging / f"{card.name}.onnx"
        write_onnx(module, card.input_shape, path)
        images = probe_images(card) if prepared is None else real_images(prepared, card)
        differences = check_against_torch(module, path, images)
        changes: dict[str, Any] = {"sha256": sha256_of(path), "export_check": differences}
        if parent:
            mirror_path = mirror_model_path(path)
            write_onnx(parent.module, card.input_shape, mirror_path)
            of_mirror = check_against_torch(parent.module, mirror_path, images)
            changes["export_check"] = {engine: max(differences[engine], of_mirror[engine]) for engine in differences}
            changes["mirror_sha256"] = sha256_of(mirror_path)
        write_card(path, card.model_copy(update=changes))
    return folder / path.name, changes["export_check"]


def _check_same_input(parent: ParentModel, card: ModelCard) -> None:
    """Check that a network can predict the mirror images of a model.

    Raises:
        ConfigError: It sees another input than the model's own network, or gives other maps.
    """
    for field in ("window_hu", "field_of_view", "size", "neighbours_mm", "classes"):
        own, other = getattr(card, field), getattr(parent.card, field)
        if own != other:
            raise ConfigError(f"{parent.path} has {field} {other}, but the run {own}: take one of the same input")


def _data_of_both(card: ModelCard, parent: ParentModel) -> dict[str, Any]:
    """Return the fields of a card that say which data its network and another one were trained on."""
    return {
        "training_data": tuple(dict.fromkeys((*card.training_data, *parent.card.training_data))),
        "trained_on": card.trained_on and card.trained_on | parent.trained_on,
        "never_trained_on": tuple(case for case in card.never_trained_on if case in parent.card.never_trained_on),
    }


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
