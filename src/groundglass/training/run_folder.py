"""The files of a training in its run folder: whether it may be started there, or resumed, and what describes it.

One rule: nothing in the folder is touched until it is clear that the training can go on, and no file of an earlier
training is ever replaced by another training's.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundglass.data.splits import Split
from groundglass.errors import ConfigError, TrainingError
from groundglass.files import lock_folder, output_errors, write_atomic
from groundglass.training.callbacks import read_metrics
from groundglass.training.config import RunConfig, read_stored_config
from groundglass.training.fit import describe_machine, is_first_process
from groundglass.training.provenance import PROVENANCE_FILE, Provenance, read_provenance
from groundglass.training.weights import load_network, network_of, read_checkpoint

RESULT_FILES = ("result.json", "test.csv")  # exist only once a training is finished
DESCRIBING_FILES = ("config.json", "split.json", "machine.json")


def check_new(run: Path, results: Sequence[str] = RESULT_FILES) -> None:
    """Check that a folder holds no training, so that one can be started in it.

    What a training leaves that ended before its first epoch was complete does not count.

    Args:
        run: The folder.
        results: Names of the files that a finished training leaves.

    Raises:
        ConfigError: It holds a training, or what is left of one, or it is no folder.
        TrainingError: Its `metrics.csv` is damaged.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file: name a folder for the run")
    if (run / "last.ckpt").exists():
        raise ConfigError(f"{run} already holds a training: continue it with --resume, or name another folder")
    held = [name for name in ("best.ckpt", *results) if (run / name).exists()]
    held += ["metrics.csv"] if len(_epochs(run)) > 1 else []
    if held:
        raise ConfigError(
            f"{run} holds what is left of a training ({', '.join(held)}), but no last.ckpt to continue from: "
            "put that back, or name another folder"
        )
    if (run / "config.json").exists():
        try:
            read_stored_config(run)
        except (OSError, ValueError, ConfigError) as error:
            raise ConfigError(f"{run / 'config.json'} is no training's of this version: name another folder") from error


def check_resumable(run: Path, config: RunConfig, split: Split, slices_sha256: str) -> None:
    """Check that the training of a folder, finished or not, can go on to the number of epochs that is configured.

    Args:
        run: The run folder.
        config: The configuration, complete; only its epochs may differ from those of the folder.
        split: The split, which must be the folder's.
        slices_sha256: The slices to train on, as `provenance.json` records them.

    Raises:
        ConfigError: The folder holds another training, one of an older version, or one of another length.
        TrainingError: There is no training, or a file of it is missing or damaged.
        ModelError: `provenance.json` is damaged.
    """
    last, best = run / "last.ckpt", run / "best.ckpt"
    if not last.is_file():
        raise TrainingError(f"{last} does not exist, so there is nothing to resume: put it back, or start a new run")
    stored = check_same_run(run, config, split)
    recorded = read_provenance(run)
    if recorded is None:
        raise TrainingError(f"{run} cannot be resumed: its {PROVENANCE_FILE} is missing: put it back")
    if recorded.slices_sha256 not in (None, slices_sha256):
        raise ConfigError(f"{run} was started with other slices: name the prepared folder that it was started with")
    checkpoint = read_checkpoint(last)
    network_of(checkpoint, config.training_network, last)
    if _names_best(checkpoint):
        load_network(best, config.training_network)
    _epochs(run)
    if "epoch" not in checkpoint:
        raise TrainingError(f"{last} holds weights alone, not the checkpoint of an epoch: put that back")
    _check_length(run, stored, config, int(checkpoint["epoch"]) + 1)


def check_same_run(run: Path, config: RunConfig, split: Split) -> RunConfig:
    """Check that a run folder was started with this configuration, apart from its epochs, and this split.

    Returns:
        The configuration stored in the folder.

    Raises:
        ConfigError: The folder holds another training, or is damaged or of an older version.
    """
    try:
        stored = read_stored_config(run)
        stored_split = Split.model_validate_json((run / "split.json").read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{run} cannot be resumed: {error.filename} is missing: put it back") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run} cannot be resumed: it is damaged or of another version") from error
    if _without_epochs(stored) != _without_epochs(config):
        raise ConfigError(f"{run} was started with another configuration: only training.epochs may change")
    if stored_split != split:
        raise ConfigError(f"{run} was started with another split: name the one that it was started with")
    return stored


def stored_result(run: Path) -> dict[str, Any] | None:
    """Return the content of `result.json`; None if it, or the checkpoint that it names, is missing or damaged."""
    try:
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        return result if (run / result["checkpoint"]).is_file() and "threshold" in result else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def describe_run(run: Path, config: RunConfig, split: Split, provenance: Provenance | None) -> None:
    """Write the files that describe a training; its result, if it had one, is none any more.

    Args:
        run: The run folder.
        config: The configuration, complete.
        split: The split.
        provenance: What the run builds on; None for a resumed run, which keeps its first provenance.
    """
    for name in RESULT_FILES:
        (run / name).unlink(missing_ok=True)
    write_text(run / "config.json", config.model_dump_json(indent=2))
    write_text(run / "split.json", split.model_dump_json(indent=1))
    write_text(run / "machine.json", json.dumps(describe_machine(), indent=2))
    if provenance:
        write_text(run / PROVENANCE_FILE, provenance.model_dump_json(indent=2))


@contextmanager
def going_on(run: Path) -> Iterator[None]:
    """Hold a run folder for this training alone, and put it back as it was if no further epoch is completed.

    Raises:
        ConfigError: Another process trains in the folder.
        OutputError: The folder cannot be made.
    """
    if not is_first_process():
        yield
        return
    with output_errors(run):
        run.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_folder(run)
        if lock is None:
            raise ConfigError(f"another process trains in {run}: wait until it ends, or name another folder")
    except (OSError, NotImplementedError):  # a file system without locks
        lock = None
    before = {name: (run / name).read_bytes() for name in (*RESULT_FILES, *DESCRIBING_FILES) if (run / name).is_file()}
    checkpoint = _time_of(run / "last.ckpt")
    try:
        yield
    except BaseException:
        if checkpoint is not None and _time_of(run / "last.ckpt") == checkpoint:
            for name, content in before.items():
                write_atomic(run / name, content)
        raise
    finally:
        if lock:
            lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a text file of a run, completely or not at all."""
    write_atomic(path, (text + "\n").encode())


def _check_length(run: Path, stored: RunConfig, config: RunConfig, trained: int) -> None:
    """Check that a run can go on to the number of epochs that is configured.

    Raises:
        ConfigError: Its one-cycle learning rate was planned for another length, or it has more epochs already.
    """
    epochs, planned = config.training.epochs, stored.training.epochs
    if epochs != planned and config.training.optimiser == "adamw":
        raise ConfigError(
            f"{run} was started with training.epochs = {planned}, for which adamw's one-cycle learning rate is "
            f"planned, not for {epochs}: resume it with {planned}, or go on in a new folder with --from {run}"
        )
    if epochs < trained:
        raise ConfigError(f"{run} has {trained} epochs already, more than training.epochs = {epochs}: raise it")


def _epochs(run: Path) -> list[int]:
    """Return the epochs that `metrics.csv` lists; none if there is no such file.

    Raises:
        TrainingError: It is damaged.
    """
    try:
        return [int(line["epoch"]) for line in read_metrics(run / "metrics.csv")]
    except (OSError, LookupError, TypeError, ValueError, csv.Error) as error:
        raise TrainingError(f"{run / 'metrics.csv'} is damaged: put it back, or move it away") from error


def _names_best(checkpoint: dict[str, Any]) -> bool:
    """Return whether the checkpoint of the last epoch was written after one of the best epoch."""
    states = checkpoint.get("callbacks", {}).values()
    return any(str(state.get("best_model_path", "")).endswith("best.ckpt") for state in states)


def _time_of(path: Path) -> int | None:
    """Return when a file was written, in nanoseconds; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _without_epochs(config: RunConfig) -> dict[str, Any]:
    content = config.model_dump(mode="json")
    del content["training"]["epochs"]
    return content
