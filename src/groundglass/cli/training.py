"""Commands that need the `train` extra: train, leakage, study, export, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, live_table, print_lines, require
from groundglass.errors import GroundglassError

commands = typer.Typer()
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")]


@commands.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Configuration: one of configs/ or your own.")],
    data: options.Prepared,
    split: options.SplitFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the run. [default: runs/NAME/SPLIT]")
    ] = None,
    resume: Resume = False,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes (GPUs, or CPU processes) that share every batch.")
    ] = 1,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN|MODEL",
            help="Finished run, exported NAME.onnx, or groundglass-ct (the bundled model) whose weights the training "
            "starts from. [default: random weights]",
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            metavar="RUN|MODEL",
            help="Run or model whose predictions are distilled into this one; repeat the option for several. "
            "[default: no teacher]",
        ),
    ] = None,
) -> None:
    """Train the network on a prepared folder. Needs the `train` extra."""
    require("torch", "lightning")
    from groundglass.data.splits import read_split
    from groundglass.training.config import read_config
    from groundglass.training.run import describe_result
    from groundglass.training.run import train as run

    configuration, parts = read_config(config), read_split(split)
    folder = output or Path("runs") / configuration.name / parts.name
    result = run(configuration, data, parts, folder, resume, devices, start, teacher or ())
    print_lines(describe_result(folder, result))


@commands.command()
def leakage(
    config: Annotated[Path, typer.Option("--config", metavar="CONFIG.toml", help="Configuration; a small one does.")],
    data: options.Prepared,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the two runs.")] = Path("runs/leakage"),
    resume: Resume = False,
) -> None:
    """Estimate leakage: train one network with slices split at random, and again with patients kept apart."""
    require("torch", "lightning", "sklearn")
    from groundglass.training.config import read_config
    from groundglass.training.study.leakage import estimate_leakage, leakage_table

    estimate = estimate_leakage(read_config(config), data, output, resume, typer.echo)
    console().print(leakage_table(estimate))


@commands.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="Study: one of configs/study-*.toml or your own.")],
    data: options.Prepared,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the study, which goes on with the runs that are there.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ROW", help="Row to train; repeat the option for several. [default: all rows]"),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Trainings at a time, which share the CPU cores.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trainings and estimate their time.")] = False,
) -> None:
    """Train rows x protocols x seeds and write Table 1 beside the paper's. Needs the `train` extra."""
    require("torch", "lightning", "sklearn", "matplotlib")
    from groundglass.training.study.estimate import estimate, estimate_table
    from groundglass.training.study.plan import plan, read_study, select_rows
    from groundglass.training.study.report import write_study
    from groundglass.training.study.run import progress_table, run_jobs

    described = read_study(file)
    jobs = plan(described, data, output)
    selected = select_rows(jobs, only or ())
    if dry_run:
        console().print(estimate_table(selected, estimate(selected, data)))
        return
    failed: dict[Path, str] = {}
    with live_table(lambda: progress_table(selected, failed)):
        run_jobs(selected, data, failed, workers, lambda job, outcome: print_lines([f"{job.name}: {outcome}"]))
    console().print(progress_table(selected, failed))
    print_lines(write_study(described, jobs, data, output))
    if failed:
        raise GroundglassError(f"{len(failed)} of {len(selected)} trainings failed; call study again to go on")


@commands.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: options.OutputFolder = Path("models"),
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "groundglass-ct",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0.01,
            max=0.99,
            help="Probability from which a pixel counts as lesion. [default: chosen on the run's validation part]",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PREPARED",
            help="Prepared folder on whose slices the export is checked. [default: made-up images]",
        ),
    ] = None,
    fold: Annotated[
        list[Path] | None,
        typer.Option(
            "--fold",
            metavar="RUN",
            help="Run on whose held-out scans the threshold is chosen; repeat the option for several. [default: none]",
        ),
    ] = None,
) -> None:
    """Write the network of a run as one ONNX file with its card. Needs the `train` extra."""
    require("torch", "lightning", "onnx", "onnxscript")
    from groundglass.training.export import describe_export
    from groundglass.training.export import export as write
    from groundglass.training.threshold import threshold_of_folds

    if fold and (threshold is not None or data is None):
        raise typer.BadParameter("needs --data PREPARED, and excludes --threshold", param_hint="--fold")
    chosen = threshold_of_folds(fold, data) if fold and data else None
    if chosen:
        print_lines(chosen.lines)
        threshold = chosen.threshold
    path, differences = write(run, name, output, threshold, data, chosen.exposure if chosen else None)
    print_lines(describe_export(path, differences))


@commands.command()
def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="NAME.onnx as written by `groundglass export`.")],
    data: options.Prepared,
    split: options.SplitFile,
) -> None:
    """Write the int8 version of a model beside it; it is kept only if it scores like the float32 model."""
    require("nncf", "onnx", extra="int8")
    from groundglass.data.splits import read_split
    from groundglass.training.quantize import describe_quantized
    from groundglass.training.quantize import quantize as run

    print_lines(describe_quantized(*run(model, data, read_split(split))))
