"""Commands for trainings and models: train, train-lungs, leakage, study, export, quantize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, live_table, print_line, print_lines, require, resumable
from groundglass.errors import GroundglassError

if TYPE_CHECKING:
    from groundglass.training.config import RunConfig

commands = typer.Typer()
Resume = Annotated[bool, options.flag("--resume", "Continue from the last checkpoint in the run folder.")]


@commands.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="Training configuration: a file of configs/, or your own.")
    ],
    data: options.Dataset,
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            metavar="SPLIT.json",
            help="File made by `groundglass split`.",
            show_default="needed, but for --folds",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            metavar="N",
            help="Number of folds: prepare DATA, train a network for each fold and one on all patients, and export the "
            "latter with the threshold that suits what the folds held out. Call it again to continue.",
            show_default="one training, on --split",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the run, or with --folds for all of them.",
            show_default="runs/NAME/SPLIT or runs/NAME, by the names in the configuration and in the split",
        ),
    ] = None,
    resume: Resume = False,
    devices: Annotated[
        int,
        typer.Option(
            "--devices",
            min=1,
            metavar="N",
            help="Number of GPUs, or of processes on CPUs, that share every batch.",
        ),
    ] = 1,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN|MODEL",
            help="Finished run, exported NAME.onnx or groundglass-ct (the bundled model) whose weights initialise the "
            "training.",
            show_default="random weights",
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            metavar="RUN|MODEL",
            help="Run or model whose predictions are distilled into the new one; repeat the option for several.",
            show_default="no teacher",
        ),
    ] = None,
) -> None:
    """Train the network on a prepared folder, or with --folds on a dataset. Needs the `train` extra."""
    if (split is None) == (folds is None):
        raise typer.BadParameter("name either a split or the number of folds", param_hint="--split / --folds")
    require("torch", "lightning")
    from groundglass.data.splits import read_split
    from groundglass.training.config import read_config

    configuration = read_config(config)
    if split is None:
        _train_folds(configuration, data, output or Path("runs") / configuration.name, folds or 0, start)
        return
    from groundglass.training.run import describe_result
    from groundglass.training.run import train as run

    parts = read_split(split)
    folder = output or Path("runs") / configuration.name / parts.name
    result = run(configuration, data, parts, folder, resume, devices, start, teacher or ())
    print_lines(describe_result(folder, result))


def _train_folds(configuration: RunConfig, data: Path, folder: Path, folds: int, start: Path | None) -> None:
    require("onnx", "onnxscript", "sklearn")
    from groundglass.training.folds import train_folds

    with resumable():
        train_folds(configuration, data, folder, folds, start, print_line)


@commands.command()
def train_lungs(
    datasets: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Dataset folders: scans with lung masks, pictures with lesions."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the run.")],
    no_chest: Annotated[
        Path | None,
        typer.Option(
            "--no-chest",
            metavar="FOLDER",
            help="Slices of 16-bit PNG (HU + 2048) that show no lung, such as abdomen and head.",
            show_default="none",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL.onnx", help="Lung network to start from.", show_default="random weights"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train the network that finds the lungs, on all cases with lung masks but the public test part.

    Needs the `train` extra.
    """
    require("torch", "lightning")
    from groundglass.training.lungs.slices import read_lung_slices
    from groundglass.training.lungs.train import train_lungs as run

    print_lines([run(read_lung_slices(datasets, no_chest), output, resume, start)])


@commands.command()
def leakage(
    config: Annotated[
        Path, typer.Option("--config", metavar="CONFIG.toml", help="Training configuration; a small network is enough.")
    ],
    data: options.Prepared,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the two runs.")] = Path(
        "runs/leakage"
    ),
    resume: Resume = False,
) -> None:
    """Estimate leakage: train a network with slices split at random, and another with patients kept apart.

    Needs the `train` extra.
    """
    require("torch", "lightning", "sklearn")
    from groundglass.training.config import read_config
    from groundglass.training.study.leakage import estimate_leakage, leakage_table

    estimate = estimate_leakage(read_config(config), data, output, resume, print_line)
    console().print(leakage_table(estimate))


@commands.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="Study: configs/study-*.toml, or your own.")],
    data: options.Prepared,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder for the study; runs that it already holds are continued."
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="ROW", help="Row to train; repeat the option for several.", show_default="all rows"
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, metavar="N", help="Number of trainings at a time, which share the CPU cores."),
    ] = 1,
    dry_run: Annotated[
        bool, options.flag("--dry-run", "List the trainings and estimate their time without training.")
    ] = False,
) -> None:
    """Train every row, protocol and seed of a study and write its results beside Table 1 of the paper.

    Needs the `train` extra.
    """
    require("torch", "lightning", "sklearn", "matplotlib")
    from groundglass.training.study.estimate import estimate_seconds, estimate_table
    from groundglass.training.study.plan import plan, read_study, select_rows
    from groundglass.training.study.report import write_study
    from groundglass.training.study.run import progress_table, run_jobs

    described = read_study(file)
    jobs = plan(described, data, output)
    selected = select_rows(jobs, only or ())
    if dry_run:
        console().print(estimate_table(selected, estimate_seconds(selected, data)))
        return
    failed: dict[Path, str] = {}
    with resumable(), live_table(lambda: progress_table(selected, failed)):
        run_jobs(selected, data, failed, workers, lambda job, outcome: print_lines([f"{job.name}: {outcome}"]))
    console().print(progress_table(selected, failed))
    print_lines(write_study(described, jobs, data, output))
    if failed:
        raise GroundglassError(f"{len(failed)} of {len(selected)} trainings failed; call study again to go on")


@commands.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: options.OutputFolder = Path("models"),
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the model.", show_default="that of the configuration"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0.01,
            max=0.99,
            metavar="PROBABILITY",
            help="Probability from which a pixel is lesion.",
            show_default="chosen on the run's validation part",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PREPARED",
            help="Folder made by `groundglass prepare` on whose slices the export is checked.",
            show_default="synthetic images",
        ),
    ] = None,
    fold: Annotated[
        list[Path] | None,
        typer.Option(
            "--fold",
            metavar="RUN",
            help="Run on whose held-out scans the threshold is chosen, and the certainty of the burden measured; "
            "repeat the option for several.",
            show_default="no other runs",
        ),
    ] = None,
    mirrored: Annotated[
        bool, options.flag("--mirrored", "Average each prediction with that of the slice's mirror image.")
    ] = False,
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--mirror",
            metavar="RUN|MODEL",
            help="Run, NAME.onnx or groundglass-ct whose network predicts the mirror images, for --mirrored.",
            show_default="the same network",
        ),
    ] = None,
) -> None:
    """Export the network of a run as an ONNX file with its card. Needs the `train` extra."""
    require("torch", "lightning", "onnx", "onnxscript")
    from groundglass.training.export import describe_export
    from groundglass.training.export import export as write
    from groundglass.training.held_out import calibrate_on_folds

    if fold and data is None:
        raise typer.BadParameter("it needs --data PREPARED", param_hint="--fold")
    if mirror and not mirrored:
        raise typer.BadParameter("it needs --mirrored", param_hint="--mirror")
    calibration = calibrate_on_folds(fold, data, mirrored, threshold) if fold and data else None
    if calibration:
        print_lines(calibration.lines)
    path, differences = write(run, name, output, threshold, data, calibration, mirrored, mirror)
    print_lines(describe_export(path, differences))


@commands.command()
def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="NAME.onnx, as written by `groundglass export`.")],
    data: options.Prepared,
    split: options.SplitFile,
) -> None:
    """Write the int8 version of a model beside it, and keep it only if it scores like the float32 model.

    Needs the `int8` extra.
    """
    require("nncf", "onnx", extra="int8")
    from groundglass.data.splits import read_split
    from groundglass.training.quantize import describe_quantized
    from groundglass.training.quantize import quantize as run

    print_lines(describe_quantized(*run(model, data, read_split(split))))
