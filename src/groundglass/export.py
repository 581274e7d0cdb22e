"""A training run -> one ONNX file and its card, checked against torch; or a segmenter at once."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.config import RunConfig
from groundglass.data.batches import plain_batches
from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split, sides_of
from groundglass.errors import DatasetError, ModelError
from groundglass.experiment import SCORING_BATCH, THRESHOLDS, score
from groundglass.inference.card import ModelCard, write_card
from groundglass.inference.engine import EngineCard, OnnxRuntimeEngine, OpenVINOEngine
from groundglass.inference.engine_config import EngineConfig, Precision
from groundglass.inference.segmenter import Segmenter
from groundglass.lineage import trained_on
from groundglass.training.module import LesionModule
from groundglass.training.weights import load_network
from groundglass.whole_file import digest

# Largest difference from torch in probability. ONNX Runtime shows that the file computes what torch does, but rounds
# more coarsely (1e-4 where torch's float32 is within 1e-5 of float64), OpenVINO's instance normalisation even more.
TOLERANCES = ((OnnxRuntimeEngine, 5e-4), (OpenVINOEngine, 2e-3))

INTENDED_USE = (
    "Research on COVID-19 lung disease in chest CT of adults: lesion masks and burden for study cohorts. "
    "Not a medical device; not for diagnosis or treatment of a patient."
)
LIMITS = (
    "Trained on few patients of few scanners, most of them with lesions; other pneumonias, tumours, fibrosis, "
    "effusion and motion look alike and may be marked.",
    "Two radiologists agree to a Dice of about 0.70 on such lesions; expect no more.",
    "8-bit pictures carry no HU: their intensities are estimated from two tissues.",
)
TERMS = {
    "slices": "MedSeg COVID-19 CT dataset 1, as single slices (Italian Society of Medical and Interventional "
    "Radiology; segmented by MedSeg; one copy used is for non-commercial purposes only)",
    "stack": "MedSeg COVID-19 CT dataset 1 (Italian Society of Medical and Interventional Radiology; "
    "segmented by MedSeg)",
    "volumes": "MedSeg COVID-19 CT dataset 2 (Radiopaedia cases; segmented by MedSeg; one copy used is for "
    "non-commercial purposes only)",
    "coronacases": "coronacases.org via Ma et al., Zenodo 3757476 (CC BY), approximate HU",
}


def export(
    run: Path, name: str, folder: Path, threshold: float | None = None, prepared: Path | None = None
) -> tuple[Path, dict[str, float]]:
    """Write NAME.onnx and NAME.json from a finished run.

    Args:
        run: The run folder.
        name: Of the model.
        folder: Where both files go.
        threshold: Probability from which a pixel is lesion; None: what the run chose on its validation.
        prepared: A prepared folder: the export is checked on its real slices; None: on made-up ones.

    Returns:
        The ONNX file, and each engine's largest difference from torch in probability.

    Raises:
        ModelError: The run is not finished, or the exported model computes something else than torch does.
    """
    module, card = open_run(run, name, threshold)
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{name}.onnx", folder / f".{name}.part.onnx"
    try:
        write_onnx(module, card.input_shape, unfinished)
        images = probe_images(card) if prepared is None else real_images(prepared, card)
        differences = check_against_torch(module, unfinished, images)
        card = card.model_copy(update={"sha256": digest(unfinished), "export_check": differences})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    write_card(path, card)
    return path, differences


def threshold_of_folds(folds: Sequence[Path], prepared: Path) -> tuple[float, dict[str, float]]:
    """The threshold for a model that held nothing out, from trainings of its recipe that did.

    Each scan that a fold kept for its test counts alike: pooled pixels would choose for the most diseased alone.

    Args:
        folds: Finished runs.
        prepared: The folder that they were trained on.

    Returns:
        The threshold with the highest mean Dice over the held-out scans, and {scan: Dice there}.

    Raises:
        ModelError: A run is not finished.
        DatasetError: A run held no scan out, or the folder is not the runs' own.
    """
    _, slices = read_prepared(prepared)
    dice: dict[str, list[float]] = {}
    for fold in folds:
        module, card = open_run(fold, fold.name)
        split = Split.model_validate_json((fold / "split.json").read_bytes())
        held_out = slices.where(sides_of(split, slices).test)
        for case in dict.fromkeys(held_out.case.tolist()):
            scan = held_out.where(held_out.case == case)
            batches = plain_batches(scan, card.window_hu, SCORING_BATCH, neighbours_mm=card.neighbours_mm)
            curve = score(module, batches, THRESHOLDS)
            dice[case] = [counts.dice or 0.0 for counts in curve]
    if not dice:
        raise DatasetError("the folds hold no scan out: train them on a split with a test part")
    best = int(np.mean(list(dice.values()), axis=0).argmax())
    return float(THRESHOLDS[best]), {case: curve[best] for case, curve in dice.items()}


class TorchEngine:
    """A run's network as it was trained, for scoring a run that was not exported."""

    def __init__(self, module: LesionModule) -> None:
        self._module = module
        self.card = EngineCard(f"torch {torch.__version__}", Precision.F32.value, None, "the run as it was trained")

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, slices, height, width) in [0, 1] -> (n, classes, height, width) logits."""
        return np.asarray(self._module(torch.from_numpy(images)).numpy(), dtype=np.float32)


def run_segmenter(run: Path) -> Segmenter:
    """A finished run, ready to segment.

    Raises:
        ModelError: The run is not finished.
    """
    module, card = open_run(run, run.resolve().name)
    return Segmenter(card, TorchEngine(module))


def open_run(run: Path, name: str, threshold: float | None = None) -> tuple[LesionModule, ModelCard]:
    """A finished run's network and its card, whose sha256 is the checkpoint's.

    Raises:
        ModelError: The run is not finished, or damaged.
    """
    try:
        config = RunConfig.model_validate_json((run / "config.json").read_bytes())
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        split = Split.model_validate_json((run / "split.json").read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} is not there: {run} is no finished run; go on with train --resume"
        ) from error
    except ValueError as error:  # of pydantic and json
        raise ModelError(f"{run} is damaged or of an older version: train it anew") from error
    threshold = threshold if threshold is not None else float(result["threshold"])
    size, view = config.field.size, config.field.view
    assert size is not None, "a run's configuration states what was prepared"
    assert view is not None, "a run's configuration states what was prepared"
    checkpoint = run / result["checkpoint"]
    card = ModelCard(
        name=name,
        sha256=digest(checkpoint),
        network=asdict(config.built),
        window_hu=config.field.window_hu,
        field_of_view=view,
        size=size,
        neighbours_mm=config.field.neighbours_mm,
        classes=config.maps,
        threshold=threshold,
        training_data=tuple(TERMS.get(s, f"{s}: a collection of the trainer's own") for s in _sources(split)),
        trained_on=trained_on(run, split),
        never_trained_on=never_trained_on(split),
        scores={"validation": result["validation"]},
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )
    return load_network(checkpoint, config.built), card


def _sources(split: Split) -> list[str]:
    return sorted({member.split("/")[0] for member in split.train})


def never_trained_on(split: Split) -> tuple[str, ...]:
    """The test cases of which nothing was trained on: a split by slice has most volumes on both sides."""
    test, train = ({member.split(":")[0] for member in members} for members in (split.test, split.train))
    return tuple(sorted(test - train))


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
