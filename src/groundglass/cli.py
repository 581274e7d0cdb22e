"""The command line: words in, calls out, errors to exit codes. No logic of its own.

Exit codes: 0 done; 1 the program failed or was interrupted; 2 bad usage; 3 the input was refused; 4 some scans of a
batch, or series of a PACS, failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundglass.errors import BatchError, GroundglassError
from groundglass.inference.engine_config import ON_THIS_MACHINE, EngineConfig, EngineName, Precision

if TYPE_CHECKING:
    from rich.console import Console

    from groundglass.evaluation.evaluate import Target
    from groundglass.inference.segmenter import Segmenter
    from groundglass.scan.intensity import Kind

INTERRUPTED = 130  # what Typer returns for Ctrl-C

app = typer.Typer(
    help="Find COVID-19 lesions in chest CT. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _warn(warnings: Sequence[str]) -> None:
    console = _console()
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _live(table: Callable[[], Any]) -> Iterator[None]:
    """A table that is drawn anew every two seconds on a terminal, nothing in a pipe."""
    from rich.live import Live

    console = _console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=table, console=console, refresh_per_second=0.5, transient=True):
        yield


EngineChoice = Annotated[
    EngineName | None, typer.Option("--engine", help="What runs the model. [default: the fastest that does]")
]
PrecisionChoice = Annotated[
    Precision | None,
    typer.Option("--precision", help="In what it computes. [default: int8 where the model has it]"),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="How many. [default: all cores]")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if need be.")]
WithIdentity = Annotated[
    bool, typer.Option("--with-identity", help="Name the source and the patient in findings, report and picture.")
]
SeriesUid = Annotated[str | None, typer.Option("--series", metavar="UID", help="Which of several, by its UID's end.")]
Intensity = Annotated[
    str | None,
    typer.Option(help="What the numbers are, if not recognised: hu, shifted-hu, 8-bit-lung-window, unit-lung-window."),
]
Model = Annotated[Path | None, typer.Option("--model", help="An ONNX file with its card beside it. [default: bundled]")]
PreparedFolder = Annotated[Path, typer.Option("--data", metavar="PREPARED", help="A folder made by prepare.")]
SplitFile = Annotated[Path, typer.Option("--split", metavar="SPLIT.json", help="A file made by split.")]
RunOrModel = Annotated[
    Path | None, typer.Argument(metavar="[RUN|MODEL]", help="A run folder, or an ONNX file. [default: bundled]")
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"groundglass {installed('groundglass')}")
        raise typer.Exit


@app.command()
def segment(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="DICOM (file, folder, ZIP), NIfTI, MHA, NRRD, a PNG/JPEG slice or a folder of them."
        ),
    ],
    output: Output,
    model: Model = None,
    series: SeriesUid = None,
    force_modality: Annotated[
        bool, typer.Option("--force-modality", help="Take a DICOM series that is no CT by its header for one.")
    ] = False,
    intensity: Intensity = None,
    with_identity: WithIdentity = False,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    threads: Threads = None,
) -> None:
    """Find the lesions in a scan: mask, findings (ml, % of lung) and a picture."""
    from groundglass.analysis import read_and_load, save
    from groundglass.analysis import segment as run

    kind = _kind(intensity)
    with _bar("slices") as progress:
        scan, segmenter = read_and_load(source, series, force_modality, model, EngineConfig(engine, precision, threads))
        result = run(scan, segmenter, kind, progress, with_identity)
    files = save(result, output)
    console = _console()
    console.print(result.findings.summary, markup=False)
    _warn(result.findings.warnings)
    for file in files:
        console.print(str(file), markup=False)


@app.command()
def info(
    source: Annotated[Path | None, typer.Argument(metavar="[INPUT]", help="Whatever segment takes.")] = None,
    series: SeriesUid = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    with_identity: WithIdentity = False,
    engine: Annotated[bool, typer.Option("--engine", help="Say what would run the model here, and why.")] = False,
) -> None:
    """Say what is seen in an input: series, grid, intensities, and what segment would refuse it for."""
    if engine:
        from groundglass.inference.segmenter import Segmenter

        typer.echo(str(Segmenter.load().engine.card))
        return
    if source is None:
        raise typer.BadParameter("name an input, or ask for --engine", param_hint="INPUT")
    from groundglass.info import describe

    seen = describe(source, series, with_identity)
    typer.echo(seen.model_dump_json(indent=2) if as_json else "\n".join(seen.lines))


@app.command()
def follow(
    sources: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="Scans of one patient.")],
    output: Output,
    date: Annotated[
        list[datetime] | None,
        typer.Option("--date", help="When each scan was taken, in their order; repeatable. [default: as DICOM states]"),
    ] = None,
    model: Model = None,
    with_identity: WithIdentity = False,
) -> None:
    """Follow one patient's lesions over several scans: change in ml and % of lung, as table and figure."""
    from groundglass.follow import follow as run
    from groundglass.inference.segmenter import Segmenter

    with _bar("scans") as progress:
        result = run(sources, output, Segmenter.load(model), date or (), progress=progress, with_identity=with_identity)
    for change in result.changes:
        typer.echo(f"scan {change.earlier} to {change.later}: {change.in_words}")
    _warn(result.warnings)
    typer.echo(str(output / "follow.html"))


@app.command()
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder of scans, a quoted glob, or a CSV with a column scan and, if wanted, case."
        ),
    ],
    output: Output,
    model: Model = None,
    intensity: Intensity = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the cores are shared among them. [default: 1]")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="i/n", help="Of n parts the ith, from 1: for job arrays on a shared folder.")
    ] = "1/1",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Use the workers of this Dask cluster, which must see SOURCE, OUT and the model under the same paths.",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For a scan; then it is given up.")] = 600,
    with_identity: WithIdentity = False,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
) -> None:
    """Segment many scans: a folder for each, a row in summary.csv. Called again it goes on, and tries what failed."""
    if workers and scheduler:
        raise typer.BadParameter("goes without --scheduler, whose workers are used", param_hint="--workers")
    if scheduler:
        _needs("distributed", extra="batch")
    from groundglass.batch.records import Wish
    from groundglass.batch.run import Tally, in_words, plan, progress_table, run

    wish = Wish(model, EngineConfig(engine, precision), _kind(intensity), with_identity)
    planned = plan(source, output, wish, _part(shard))
    tally, console = Tally(planned), _console()
    shown = console.is_terminal and _console(stderr=True).is_terminal  # in the table
    said = (lambda _: None) if shown else (lambda record: console.print(in_words(record), markup=False))
    try:
        with _live(lambda: progress_table(tally)):
            if scheduler:
                from groundglass.batch.cluster import run_on_cluster

                run_on_cluster(scheduler, planned, tally, time_limit, said)
            else:
                run(planned, tally, workers or 1, time_limit, said)
    except KeyboardInterrupt:
        raise GroundglassError(f"interrupted: {tally.line}; the same command goes on from there") from None
    if shown:
        console.print(progress_table(tally))
    else:
        console.print(tally.line, markup=False)
    console.print(str(output / "summary.csv"), markup=False)
    if tally.failed:
        raise BatchError(
            f"{len(tally.failed)} of {tally.total} scans failed: see why in summary.csv; the same command tries again"
        )


@app.command()
def watch(
    url: Annotated[str, typer.Argument(metavar="URL", help="Orthanc's, such as http://127.0.0.1:8042.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is remembered; made if need be.")],
    dicomweb: Annotated[
        bool, typer.Option("--dicomweb", help="URL is any DICOMweb server's root: search it instead.")
    ] = False,
    model: Model = None,
    since: Annotated[
        datetime | None, typer.Option("--since", formats=["%Y-%m-%d"], help="Only studies of this day or later.")
    ] = None,
    poll: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks for what is new.")] = 10,
    time_limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="For a series; then the try has failed.")
    ] = 600,
    once: Annotated[bool, typer.Option("--once", help="Do what is there, and end.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Try once more what was refused or given up.")] = False,
    credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="user and password, or token. [default: GROUNDGLASS_PACS_USER, _PASSWORD, _TOKEN, if set]",
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE.pem", help="Authorities to trust. [default: certifi's]")
    ] = None,
) -> None:
    """Work beside a PACS: segment each CT series that arrives, and store DICOM SEG and report in its study."""
    _needs("dicomweb_client", extra="serve")
    from groundglass.pacs.loop import Pace
    from groundglass.pacs.watch import Wish
    from groundglass.pacs.watch import watch as run

    wish = Wish(url, output, dicomweb, since.date() if since else None, model, credentials, ca, again)
    try:
        tally = run(wish, Pace(poll_s=poll, time_limit_s=time_limit), once, typer.echo)
    except KeyboardInterrupt:
        if once:
            raise GroundglassError("interrupted; the same command goes on from there") from None
        typer.echo("stopped; the same command goes on from there")
        return
    typer.echo(tally.line)
    if tally.failed:
        raise BatchError(f"{tally.failed} series failed: {output} remembers why, and the same command tries again")


def _kind(intensity: str | None) -> Kind | None:
    from groundglass.scan.intensity import Kind

    if intensity is not None and intensity not in set(Kind):
        raise typer.BadParameter(f"{intensity!r}: expected one of {', '.join(Kind)}", param_hint="--intensity")
    return Kind(intensity) if intensity else None


def _part(text: str) -> tuple[int, int]:
    """(i, n) of `i/n`."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise typer.BadParameter(f"{text!r}: expected i/n, such as 1/8 to 8/8", param_hint="--shard")
    return int(number), int(of)


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where scans and results are kept.")
    ] = Path("groundglass-scans"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; beyond this machine it takes a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8642,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token that clients must show.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help="A host name that clients call it by; repeatable.")] = None,
    model: Model = None,
    keep: Annotated[float, typer.Option(min=0.01, metavar="HOURS", help="Then results are removed.")] = 168,
    queue: Annotated[int, typer.Option(min=1, help="Scans that may wait.")] = 32,
    time_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For a scan; then it is given up.")] = 600,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MIB", help="Of one scan.")] = 2048,
    max_slices: Annotated[int, typer.Option(min=1, help="Of one scan.")] = 3000,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
    threads: Threads = None,
) -> None:
    """A page in the browser to drop scans on, and an HTTP service, on this machine."""
    _needs("fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
    from groundglass.service.config import ServiceConfig, read_token
    from groundglass.service.serve import serve as run

    config = ServiceConfig(
        folder=folder,
        host=host,
        port=port,
        token=read_token(token_file) if token_file else None,
        names=tuple(name or ()),
        model=model,
        engine=EngineConfig(engine, precision, threads),
        time_limit_s=time_limit,
        keep_hours=keep,
        queue=queue,
        upload_bytes=max_upload << 20,
        slices=max_slices,
    )
    run(config, lambda address: typer.echo(f"groundglass is at {address} (Ctrl-C ends it)"))


@app.command()
def demo(output: Output = Path("demo")) -> None:
    """Make a chest phantom with lesions of known volume, segment it, and compare."""
    from groundglass.demo import run_demo

    with _bar("slices") as progress:
        outcome = run_demo(output, progress)
    for line in outcome:
        typer.echo(line)


@app.command()
def prepare(
    places: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Dataset folders, or CSVs of image,mask,patient.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The prepared folder; made if need be.")],
    size: Annotated[tuple[int, int], typer.Option(min=16, help="Height and width of the slices.")] = (192, 256),
    view: Annotated[
        str, typer.Option(help="What of a slice is seen: lungs, or slice (the whole, as in the paper).")
    ] = "lungs",
    lesion_slices_only: Annotated[bool, typer.Option("--lesion-slices-only", help="Leave the others out.")] = False,
    leave_out_bad: Annotated[
        bool, typer.Option("--leave-out-bad", help="Go on without the cases that are refused.")
    ] = False,
) -> None:
    """Check a dataset's cases, cut their slices, and group their patients."""
    from groundglass.data.overview import case_table, joined_groups, source_table
    from groundglass.data.prepare import Settings
    from groundglass.data.prepare import prepare as run
    from groundglass.scan.lungs import FieldOfView

    if view not in set(FieldOfView):
        raise typer.BadParameter(f"{view!r}: expected one of {', '.join(FieldOfView)}", param_hint="--view")
    console, status = _console(), _console(stderr=True)
    say = status.print if status.is_terminal else lambda _: None
    with _bar("cases") as progress:
        settings = Settings(size, FieldOfView(view), lesion_slices_only)
        result = run(places, output, settings, leave_out_bad, progress, say)
    console.print(case_table(result.manifest))
    console.print(source_table(result.manifest))
    for line in joined_groups(result.manifest):
        console.print(line, markup=False)
    for name, reason in result.refused.items():
        console.print(f"left out: {name}: {reason}", markup=False)
    console.print(
        f"{output}: {f'{result.cut} cases cut' if result.cut else 'nothing to do, all is there'}", markup=False
    )


@app.command()
def show(
    prepared: Annotated[Path, typer.Argument(metavar="PREPARED", help="A prepared folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("examples.png"),
    count: Annotated[int, typer.Option(min=1, max=64, help="Slices, at most.")] = 12,
) -> None:
    """Draw examples of a prepared folder, a colour for each class (Figure 5 of the paper)."""
    from groundglass.data.overview import write_examples

    write_examples(prepared, output, count)
    typer.echo(str(output))


@app.command()
def split(
    prepared: Annotated[Path, typer.Argument(metavar="PREPARED", help="A prepared folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the split files.")] = Path("splits"),
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test", help="Pattern of the fixed test cases; repeatable. [default: volumes 4, 5, 8 of MedSeg]"
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Grouped folds over the patients. [default: 5, or one for each patient]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Write the protocols A (by slice, leaky), B (patients apart), C (sources apart), D (external) as files."""
    _needs("sklearn")
    from groundglass.data.overview import split_table
    from groundglass.data.protocols import write_splits

    _console().print(split_table(write_splits(prepared, output, test or (), folds, seed)))


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="One of configs/, or your own.")],
    data: PreparedFolder,
    split: SplitFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/NAME/SPLIT]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    devices: Annotated[int, typer.Option(min=1, help="Processes (GPUs) that share every batch.")] = 1,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Fine-tune: begin with a finished run, an exported NAME.onnx, or groundglass-ct, the bundled model.",
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher",
            metavar="RUN",
            help="Distil: be taught by this run or model too; repeatable.",
        ),
    ] = None,
) -> None:
    """Train the network on a prepared folder. Needs the `train` extra."""
    _needs("torch", "lightning")
    from groundglass.config import read_config
    from groundglass.data.splits import read_split
    from groundglass.experiment import train as run

    configuration, parts = read_config(config), read_split(split)
    folder = output or Path("runs") / configuration.name / parts.name
    result = run(configuration, data, parts, folder, resume, devices, start, teacher or ())
    if not result:  # a further process of a training
        return
    typer.echo(f"{folder}: {result['checkpoint']} is the result, lesion from a probability of {result['threshold']} on")
    for name, value in (result["validation"] or {}).items():
        typer.echo(f"  validation {name} {value:.3f}" if value is not None else f"  validation {name} undefined")


@app.command()
def leak(
    config: Annotated[Path, typer.Option("--config", help="A small configuration does.")],
    data: PreparedFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the two runs.")] = Path("runs/leak"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is there.")] = False,
) -> None:
    """Train the same network with slices split at random and with patients apart: what the leak makes of your data."""
    _needs("torch", "lightning", "sklearn")
    from groundglass.config import read_config
    from groundglass.leak import leak_table, measure_leak

    _console().print(leak_table(measure_leak(read_config(config), data, output, resume, typer.echo)))


@app.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="configs/study-*.toml, or your own.")],
    data: PreparedFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="The study's folder; it goes on with what is there.")],
    only: Annotated[list[str] | None, typer.Option("--only", metavar="ROW", help="This row alone; repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time; the cores are shared among them.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and for how long.")] = False,
) -> None:
    """Train rows x protocols x seeds and write Table 1 beside the paper's. Needs the `train` extra."""
    _needs("torch", "lightning", "sklearn", "matplotlib")
    from groundglass.study.estimate import estimate, estimate_table
    from groundglass.study.plan import of_rows, plan, read_study
    from groundglass.study.report import write_study
    from groundglass.study.run import progress_table, run_jobs

    asked = read_study(file)
    jobs = plan(asked, data, output)
    wanted, console = of_rows(jobs, only or ()), _console()
    if dry_run:
        console.print(estimate_table(wanted, estimate(wanted, data)))
        return
    failed: dict[Path, str] = {}
    with _live(lambda: progress_table(wanted, failed)):
        run_jobs(wanted, data, failed, workers, lambda job, how: console.print(f"{job.name}: {how}", markup=False))
    console.print(progress_table(wanted, failed))
    for path in write_study(asked, jobs, data, output):
        typer.echo(str(path))
    if failed:
        raise GroundglassError(f"{len(failed)} of {len(wanted)} trainings failed; call study again to go on with them")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    output: Output = Path("models"),
    name: Annotated[str, typer.Option(help="Name of the model.")] = "groundglass-ct",
    threshold: Annotated[float | None, typer.Option(min=0.01, max=0.99, help="[default: the run's own choice]")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Check the export on real slices of this prepared folder.")
    ] = None,
    fold: Annotated[
        list[Path] | None,
        typer.Option("--fold", metavar="RUN", help="Choose the threshold on what these runs held out; repeatable."),
    ] = None,
) -> None:
    """Write a run's network as one ONNX file with its card. Needs the `train` extra."""
    _needs("torch", "lightning", "onnx", "onnxscript")
    from groundglass.export import export as write
    from groundglass.export import threshold_of_folds

    if fold and (threshold is not None or data is None):
        raise typer.BadParameter("takes --data PREPARED, and no --threshold", param_hint="--fold")
    chosen_on = None
    if fold and data:
        threshold, held_out, chosen_on = threshold_of_folds(fold, data)
        typer.echo(f"threshold {threshold:g}, by the mean Dice of {len(held_out)} held-out scans:")
        for case, dice in held_out.items():
            typer.echo(f"  {case} {100 * dice:.1f}")
    path, differences = write(run, name, output, threshold, data, chosen_on)
    typer.echo(f"{path}; largest difference from torch in probability:")
    for engine, difference in differences.items():
        typer.echo(f"  {engine} {difference:.1e}")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="NAME.onnx, as export writes it.")],
    data: PreparedFolder,
    split: SplitFile,
) -> None:
    """Write a model's int8 twin beside it: several times as fast, kept only if it scores alike."""
    _needs("nncf", "onnx", extra="int8")
    from groundglass.data.splits import read_split
    from groundglass.quantize import quantize as run

    path, card = run(model, data, read_split(split))
    assert card.quantized is not None
    typer.echo(str(path))
    typer.echo(f"Dice on the validation part {card.quantized.dice:.4f}, float32 {card.quantized.dice_f32:.4f}")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option("--data", help="A prepared folder, a dataset folder, or a CSV.")],
    model: RunOrModel = None,
    split: Annotated[Path | None, typer.Option("--split", metavar="SPLIT.json", help="Score a part of it.")] = None,
    part: Annotated[str, typer.Option(help="Which: train, validation or test.")] = "test",
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Pattern of case names, such as 'volumes/4'; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report, tables and figures.")
    ] = None,
    card: Annotated[bool, typer.Option("--write-card", help="Write the scores into the model's card.")] = False,
    engine: EngineChoice = None,
    precision: PrecisionChoice = None,
) -> None:
    """Score a model on cases with a reference mask, through the same code as segment."""
    from groundglass.data.splits import read_split
    from groundglass.evaluation.evaluate import evaluate as run
    from groundglass.evaluation.tables import score_table, write_scores
    from groundglass.evaluation.targets import find_targets
    from groundglass.inference.segmenter import selected

    config = EngineConfig(engine, precision)
    if card and model is not None and model.is_dir():
        raise typer.BadParameter("a run has no card yet: export it first", param_hint="--write-card")
    if output is not None:
        _needs("matplotlib")
    targets = find_targets(data, case or (), read_split(split) if split else None, part)
    segmenter, warnings = _segmenter(model, targets, config)
    with _bar("cases") as progress:
        evaluation = run(targets, segmenter, progress, warnings)
    _warn(warnings)
    _console().print(score_table(evaluation))
    if output is not None:
        from groundglass.evaluation.report import write_report

        for file in write_report(evaluation, output):
            typer.echo(str(file))
    if card:
        chosen = f" --split {split.name} --part {part}" if split is not None else ""
        named = "".join(f" --case {pattern}" for pattern in case or ())
        how = f" --precision {precision}" if precision else ""
        write_scores(selected(model, config)[0], evaluation, f"groundglass evaluate --data DATA{named}{chosen}{how}")


@app.command()
def robustness(
    data: Annotated[Path, typer.Option("--data", help="A prepared folder, a dataset folder, or a CSV.")],
    case: Annotated[list[str], typer.Option("--case", help="Pattern of names of whole volumes; repeatable.")],
    model: RunOrModel = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the tables.")] = None,
    card: Annotated[bool, typer.Option("--write-card", help="Write the repeatability into the model's card.")] = False,
) -> None:
    """Score a model on whole volumes as they are, and changed as by scanners that it has not seen."""
    from groundglass.evaluation.robustness import (
        measure_robustness,
        robustness_table,
        write_repeatability,
        write_robustness,
    )
    from groundglass.evaluation.targets import find_targets
    from groundglass.inference.segmenter import selected

    if card and model is not None and model.is_dir():
        raise typer.BadParameter("a run has no card: export it first", param_hint="--write-card")
    targets = find_targets(data, case)
    segmenter, warnings = _segmenter(model, targets)
    with _bar("changed volumes") as progress:
        result = measure_robustness(targets, segmenter, progress, warnings)
    _warn(warnings)
    _console().print(robustness_table(result))
    if output is not None:
        named = f"{f' {model.name}' if model else ''} --data DATA" + "".join(f" --case {pattern}" for pattern in case)
        for file in write_robustness(result, output, f"groundglass robustness{named}"):
            typer.echo(str(file))
    if card:
        write_repeatability(selected(model)[0], result)


def _segmenter(
    model: Path | None, targets: Sequence[Target], config: EngineConfig = ON_THIS_MACHINE
) -> tuple[Segmenter, tuple[str, ...]]:
    """A run's or a model file's segmenter, and warnings where it was trained on what is scored."""
    from groundglass.evaluation.targets import seen_in_training
    from groundglass.inference.segmenter import Segmenter

    if model is None or not model.is_dir():
        segmenter = Segmenter.load(model, config)
    else:
        _needs("torch", "lightning")
        from groundglass.export import run_segmenter

        segmenter = run_segmenter(model)
    return segmenter, seen_in_training(targets, segmenter.card.trained_on)


def _needs(*modules: str, extra: str = "train") -> None:
    from importlib.util import find_spec

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise GroundglassError(f"{', '.join(missing)} is not installed: pip install 'groundglass[{extra}]'")


def main() -> None:
    """Entry point: runs a command; every failure is one line on stderr and a non-zero exit."""
    try:
        result: Any = app(standalone_mode=False)
    except GroundglassError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own: bad usage
            error.show()
            sys.exit(int(error.exit_code))
        if os.environ.get("GROUNDGLASS_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (a fault of groundglass; GROUNDGLASS_DEBUG=1 shows where)", 1)
    else:
        if result == INTERRUPTED:
            _fail("interrupted; nothing half-written is left", 1)
        sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"groundglass: {line}\n")
    sys.exit(code)
