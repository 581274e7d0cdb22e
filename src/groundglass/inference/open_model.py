"""The one place that opens a model: the bundled one, an ONNX file, or the folder of a training run."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from groundglass.errors import ModelError
from groundglass.inference.engine import choose_model_file, import_engine, open_engine
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig, Precision
from groundglass.inference.lungs.network import open_lung_network
from groundglass.inference.model_card import BUNDLED, ModelCard, bundled_model, mirror_model_path, read_card
from groundglass.inference.segmenter import Segmenter
from groundglass.parallel import map_in_threads


def open_model(path: str | os.PathLike[str] | None = None, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> Segmenter:
    """Open a model, ready to segment.

    Args:
        path: An ONNX file with its card beside it, or a finished run folder, whose network runs in torch in float32
            and needs the `train` extra; None or "groundglass-ct": the bundled model.
        config: Engine, precision and threads that the user asks for; ignored for a run folder.

    Raises:
        ModelError: Model or card is missing or damaged, the run is not finished, or torch is not installed.
        EngineError: No engine on this machine can run the model.
        TypeError: The path is none.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise TypeError(f"the model is of type {type(path).__name__}, expected a path, or what open_model returned")
    path = None if path is None else Path(path)
    if path is not None and path.is_dir():
        try:
            from groundglass.training.export import open_run_segmenter  # the one import of torch below `training`
        except ModuleNotFoundError as error:
            raise ModelError(
                f"{path} is a run folder, which needs {error.name}, which is not installed: "
                "pip install 'groundglass[train]', or give an ONNX file"
            ) from error
        return open_run_segmenter(path)
    file, card, config = resolve_model(path, config)
    files = [file, mirror_model_path(file)] if card.mirrored and card.mirror_sha256 else [file]
    return Segmenter(card, *map_in_threads(lambda part: open_engine(part, config, card.input_shape), files, len(files)))


def open_with_lungs(
    path: str | os.PathLike[str] | None = None, config: EngineConfig = DEFAULT_ENGINE_CONFIG
) -> Segmenter:
    """Open a model, and the lung network that it will need, so that what is wrong with either is said before any scan.

    Args:
        path: See `open_model`.
        config: See `open_model`.

    Raises:
        ModelError: See `open_model`; or the lung network is missing or damaged.
        EngineError: See `open_model`.
    """
    segmenter = open_model(path, config)
    open_lung_network(segmenter.engine.card.threads)
    return segmenter


def open_in_background(path: Path | None = None, config: EngineConfig = DEFAULT_ENGINE_CONFIG) -> Future[Segmenter]:
    """Open a model and the lung network in threads, while the caller imports modules and reads a scan.

    Args:
        path: See `open_model`.
        config: See `open_model`.

    Returns:
        The model; its `result()` waits for it, and raises what `open_model` raises.
    """
    import_engine(config)  # here: beside other imports it would take turns with them, and compiling would begin late
    pool = ThreadPoolExecutor(2)
    opening = pool.submit(open_model, path, config)
    pool.submit(open_lung_network, config.threads)  # kept for when it is needed, which raises what fails here
    pool.shutdown(wait=False)
    return opening


def resolve_model(
    path: Path | None = None, config: EngineConfig = DEFAULT_ENGINE_CONFIG
) -> tuple[Path, ModelCard, EngineConfig]:
    """Find the ONNX file that will run (the model or its int8 version), its card, and the engine's configuration.

    For a fast run the card states that no mirror images are averaged, whatever the file's card states.

    Args:
        path: An ONNX file; None: the bundled model.
        config: Engine, precision and threads that the user asks for.

    Raises:
        ModelError: Model or card is missing or damaged, or the int8 version was made from another model.
        EngineError: The user asks for int8, and the model has no int8 version.
    """
    path = bundled_model() if path is None or (str(path) == BUNDLED and not path.exists()) else path
    if path.suffix == ".json":
        raise ModelError(f"{path} is a card, expected the ONNX file beside it: {path.stem}.onnx")
    if path.is_dir():
        raise ModelError(f"{path} is a run folder, expected an ONNX file: write one with groundglass export")
    file = choose_model_file(path, config)
    card = read_card(file)
    if card.quantized and file != path and card.quantized.of != read_card(path).sha256:
        raise ModelError(f"{file} was made from another model: remove it, or make it again with groundglass quantize")
    config = replace(config, precision=Precision.INT8) if card.quantized else config
    return file, card.model_copy(update={"mirrored": False}) if config.fast else card, config
