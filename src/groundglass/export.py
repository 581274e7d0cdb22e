"""A training run -> one ONNX file and its card, checked against torch."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundglass.config import RunConfig
from groundglass.data.catalogue import find_cases
from groundglass.data.slices import cut_case
from groundglass.errors import ModelError
from groundglass.inference.card import ModelCard, digest
from groundglass.inference.engine import OnnxRuntimeEngine, OpenVINOEngine
from groundglass.scan.intensity import Window
from groundglass.training.fit import load_network
from groundglass.training.module import LesionModule

# Largest difference from torch in probability. ONNX Runtime shows that the file computes what torch does; OpenVINO's
# float32 instance normalisation rounds more coarsely.
TOLERANCES = ((OnnxRuntimeEngine, 1e-4), (OpenVINOEngine, 2e-3))

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
    run: Path, name: str, folder: Path, threshold: float | None = None, data: Path | None = None
) -> tuple[Path, dict[str, float]]:
    """Write NAME.onnx and NAME.json from a finished run.

    Args:
        run: The run folder.
        name: Of the model.
        folder: Where both files go.
        threshold: Probability from which a pixel is lesion; None: what the run chose on its validation.
        data: A dataset folder: the export is checked on real slices of it; None: on made-up ones.

    Returns:
        The ONNX file, and each engine's largest difference from torch in probability.

    Raises:
        ModelError: The run is not finished, or the exported model computes something else than torch does.
    """
    config, result, split = _read_run(run)
    threshold = threshold if threshold is not None else result["threshold"]
    if threshold is None:
        raise ModelError(f"{run} had no validation to choose a threshold on: give one with --threshold")
    module = load_network(run / result["checkpoint"], config.network)
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{name}.onnx", folder / f".{name}.part.onnx"
    try:
        write_onnx(module, config.field.size, unfinished)
        images = probe_images(config.field.size) if data is None else real_images(data, config)
        differences = check_against_torch(module, unfinished, images)
        trained_on = sorted({case.split("/")[0] for case in split["train"]["cases"]})
        card = ModelCard(
            name=name,
            sha256=digest(unfinished),
            network=asdict(config.network),
            window_hu=config.field.window_hu,
            size=config.field.size,
            threshold=threshold,
            training_data=tuple(TERMS[source] for source in trained_on),
            never_trained_on=never_trained_on(split),
            scores={"validation": result["validation"]},
            export_check=differences,
            intended_use=INTENDED_USE,
            limits=LIMITS,
        )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    path.with_suffix(".json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path, differences


def _read_run(run: Path) -> tuple[RunConfig, dict[str, Any], dict[str, Any]]:
    try:
        config = RunConfig.model_validate_json((run / "config.json").read_bytes())
        return config, json.loads((run / "result.json").read_bytes()), json.loads((run / "split.json").read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} is not there: {run} is no finished run; go on with train --resume"
        ) from error


def never_trained_on(split: dict[str, Any]) -> tuple[str, ...]:
    """The test cases of which nothing was trained on: a split by slice has most volumes on both sides."""
    return tuple(sorted(set(split["test"]["cases"]) - set(split["train"]["cases"])))


def probe_images(size: tuple[int, int]) -> NDArray[np.float32]:
    """(3, 1, height, width) in [0, 1]: smooth, noisy and dark; what the export is checked on where no data is."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size)
    noise = rng.random(size, dtype=np.float32)
    return np.stack([ramp, noise, 0.2 * noise])[:, None]


def real_images(data: Path, config: RunConfig, count: int = 16) -> NDArray[np.float32]:
    """(n, 1, height, width) in [0, 1]: slices spread over the first picture or volume of each source."""
    cases = {case.source: case for case in reversed(find_cases(data))}
    slices = [cut_case(case, config.field.size) for case in cases.values()]
    hu = np.concatenate([part.hu[:: max(1, len(part) // count)][:count] for part in slices])
    return Window(*config.field.window_hu).scale(hu.astype(np.float32))[:, None]


def write_onnx(module: LesionModule, size: tuple[int, int], path: Path) -> None:
    """Export the network with any batch, height and width."""
    dynamic = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            module.network,
            (torch.rand(2, 1, *size),),
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
        found = 1 / (1 + np.exp(-engine(model).run(images)))
        difference = float(np.abs(found - expected).max())
        if not difference <= tolerance:
            raise ModelError(
                f"{engine.__name__} differs from torch by {difference:.2g}: expected at most {tolerance:g}"
            )
        differences[engine.__name__] = difference
    return differences
