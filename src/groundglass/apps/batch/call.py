"""A batch as a function, for programs; the command line shows its progress by the parts that this is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from groundglass.apps.batch.records import BatchOptions, ItemRecord, read_record
from groundglass.apps.batch.run import TIME_LIMIT_S, BatchProgress, plan_batch, run_batch
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig
from groundglass.scan.kinds import IntensityKind


def batch(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    intensity: IntensityKind | str | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    with_identity: bool = False,
    *,
    pseudonyms: bool = False,
    workers: int = 1,
    time_limit_s: float = TIME_LIMIT_S,
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG,
) -> tuple[ItemRecord, ...]:
    """Segment many scans, each in a folder of its own, and write a row for each into `summary.csv`.

    The same call again continues a batch that was interrupted, and tries scans again that failed.

    Args:
        source: A folder of scans, a glob pattern, a CSV with a column `scan` and optionally a column `case`, or a list
            of paths.
        folder: Folder for the results; created if it does not exist.
        model: An ONNX file with its card beside it; None: the bundled model.
        intensity: Meaning of the scans' numbers; None: recognise it for each scan.
        progress: Called with the number of scans that ended, done or not, and the number of all.
        with_identity: Name patients in findings, preview and report.
        pseudonyms: Name the scans by hashes; `key.csv` alone says which source each one is.
        workers: Number of processes, which share the CPU cores.
        time_limit_s: Seconds after which the processing of a scan is stopped.
        engine: Engine and precision; the threads are divided among the workers.

    Returns:
        How each scan ended, in the order of the scans. A scan that failed raises no error: its `status` says so, and
        its `reason` why.

    Raises:
        InputError: No scan is found, or the CSV is malformed.
        ModelError: The model is missing or damaged.
        ConfigError: The intensity is none of `IntensityKind`; or the folder was begun with pseudonyms and this call is
            without, or the other way round.
        OutputError: The folder cannot be written.
    """
    kind = None if intensity is None else IntensityKind.named(intensity)
    options = BatchOptions(None if model is None else Path(model), engine, kind, with_identity, pseudonyms)
    scans = os.fspath(source) if isinstance(source, str | os.PathLike) else [Path(each) for each in source]
    plan = plan_batch(scans, Path(folder), options)
    state = BatchProgress(plan)
    progress(state.skipped, state.total)
    run_batch(plan, state, workers, time_limit_s, lambda _: progress(state.skipped + len(state.finished), state.total))
    records = (read_record(plan.settings.folder, item.name) for item in plan.items)
    return tuple(record for record in records if record is not None)
