"""From a dataset to a model in one call: prepare, a training for each fold and one on all, threshold, export.

The names of folders follow nnU-Net:

FOLDER/
    prepared/             the prepared slices, unless the data are a prepared folder already
    fold_0/ fold_1/ …     a run for each fold, which holds out some of the patients
    fold_all/             a run on all patients, which becomes the model
    model/NAME.onnx       the model with its card; NAME is that of the configuration
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.data.prepared import read_prepared
from groundglass.data.protocols import make_training_folds
from groundglass.errors import ConfigError
from groundglass.inference.model_card import BUNDLED, BUNDLED_LUNGS
from groundglass.scan.kinds import FieldOfView
from groundglass.training.config import RunConfig
from groundglass.training.export import describe_export, export
from groundglass.training.held_out import calibrate_on_folds
from groundglass.training.run import resume_or_train

PREPARED_SIZE = (192, 256)  # where the configuration states none


def train_folds(
    config: RunConfig,
    source: Path,
    folder: Path,
    folds: int,
    start: Path | None = None,
    on_message: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train the folds of a dataset, and export the network that was trained on all of it.

    Called again, it continues where it was interrupted.

    Args:
        config: The configuration; its name becomes that of the model.
        source: A dataset folder, a CSV of cases, or a prepared folder.
        folder: Folder for everything that is made.
        folds: Number of folds, over patients.
        start: A finished run or an exported model whose weights initialise every training; None: random weights.
        on_message: Called with a line for each step.

    Returns:
        The ONNX file of the model.

    Raises:
        ConfigError: The configuration has the name of a bundled model, or does not fit the prepared folder.
        DatasetError: The dataset is refused, or has fewer patients than folds.
        GroundglassError: As `train` and `export` raise it.
    """
    if config.name in (BUNDLED, BUNDLED_LUNGS):
        raise ConfigError(f"{config.name} is the name of a bundled model: give the configuration another name")
    prepared = _prepared_folder(config, source, folder, on_message)
    _, slices = read_prepared(prepared)
    splits = make_training_folds(slices, folds, config.training.seed)
    runs = []
    for split in splits:
        run = folder / split.name
        on_message(f"{split.name}: {split.rule}")
        result = resume_or_train(config, prepared, split, run, start)
        runs.append(run)
        dice = (result.get("validation") or {}).get("dice")
        on_message(f"{split.name}: done" + ("" if dice is None else f", validation Dice {dice:.3f}"))
    calibration = calibrate_on_folds(runs[:-1], prepared)
    for line in calibration.lines:
        on_message(line)
    path, differences = export(runs[-1], config.name, folder / "model", None, prepared, calibration)
    for line in describe_export(path, differences):
        on_message(line)
    return path


def _prepared_folder(config: RunConfig, source: Path, folder: Path, on_message: Callable[[str], None]) -> Path:
    """Return the source if it is a prepared folder, else prepare it as the configuration needs it."""
    if (source / "manifest.json").is_file():
        return source
    prepared = folder / "prepared"
    settings = PreparationSettings(
        config.field.size or PREPARED_SIZE, config.field.view or FieldOfView.LUNGS, not config.sampling.lesion_free
    )
    on_message(f"{prepared}: {source} is checked and cut")
    result = prepare([source], prepared, settings)
    for warning in (*result.notes, *result.warnings):
        on_message(f"warning: {warning}")
    return prepared
