"""The command line: words in, calls out, errors to exit codes. No logic of its own.

Exit codes: 0 done; 1 the program failed or was interrupted; 2 bad usage; 3 the input was refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundglass.errors import GroundglassError

if TYPE_CHECKING:
    from rich.console import Console

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


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, nothing in a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; made if need be.")]
Model = Annotated[Path | None, typer.Option("--model", help="An ONNX file with its card beside it. [default: bundled]")]
DataFolder = Annotated[Path, typer.Option("--data", help="Dataset folder (see docs/data.md).")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"groundglass {installed('groundglass')}")
        raise typer.Exit


@app.command()
def segment(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="NIfTI, MHA, NRRD, a PNG/JPEG slice or a folder of them.")
    ],
    output: Output,
    model: Model = None,
    intensity: Annotated[
        str | None,
        typer.Option(
            help="What the numbers are, if not recognised: hu, shifted-hu, 8-bit-lung-window, unit-lung-window."
        ),
    ] = None,
) -> None:
    """Find the lesions in a scan: mask, findings (ml, % of lung) and a picture."""
    from groundglass.analysis import save
    from groundglass.analysis import segment as run
    from groundglass.inference.segmenter import Segmenter
    from groundglass.scan.intensity import Kind
    from groundglass.scan.reader import read_scan

    if intensity is not None and intensity not in set(Kind):
        raise typer.BadParameter(f"{intensity!r}: expected one of {', '.join(Kind)}", param_hint="--intensity")
    scan = read_scan(source)
    with _bar("slices") as progress:
        result = run(scan, Segmenter.load(model), Kind(intensity) if intensity else None, progress)
    files = save(result, output)
    console = _console()
    console.print(result.findings.summary, markup=False)
    for warning in result.findings.warnings:
        console.print(f"warning: {warning}", markup=False)
    for file in files:
        console.print(str(file), markup=False)


@app.command()
def demo(output: Output = Path("demo")) -> None:
    """Make a chest phantom with lesions of known volume, segment it, and compare."""
    from groundglass.demo import run_demo

    with _bar("slices") as progress:
        outcome = run_demo(output, progress)
    for line in outcome:
        typer.echo(line)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="One of configs/, or your own.")],
    data: DataFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/NAME]")] = None,
    cache: Annotated[Path, typer.Option(help="Where cut slices are kept between trainings.")] = Path("runs/cache"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train the network on a dataset folder. Needs the `train` extra."""
    _needs("torch", "lightning")
    from groundglass.config import read_config
    from groundglass.experiment import train as run

    configuration = read_config(config)
    folder = output or Path("runs") / configuration.name
    with _bar("cases cut") as progress:
        result = run(configuration, data, folder, cache, resume, progress)
    typer.echo(f"{folder}: {result['checkpoint']} is the result, lesion from a probability of {result['threshold']} on")
    for name, value in (result["validation"] or {}).items():
        typer.echo(f"  validation {name} {value:.3f}" if value is not None else f"  validation {name} undefined")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    output: Output = Path("models"),
    name: Annotated[str, typer.Option(help="Name of the model.")] = "groundglass-ct",
    threshold: Annotated[float | None, typer.Option(min=0.01, max=0.99, help="[default: the run's own choice]")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Check the export on real slices of this dataset.")
    ] = None,
) -> None:
    """Write a run's network as one ONNX file with its card. Needs the `train` extra."""
    _needs("torch", "lightning", "onnx", "onnxscript")
    from groundglass.export import export as write

    path, differences = write(run, name, output, threshold, data)
    typer.echo(f"{path}; largest difference from torch in probability:")
    for engine, difference in differences.items():
        typer.echo(f"  {engine} {difference:.1e}")


@app.command()
def evaluate(
    data: DataFolder,
    case: Annotated[list[str], typer.Option("--case", help="Pattern of case names, such as 'volumes/4'; repeatable.")],
    model: Model = None,
    card: Annotated[bool, typer.Option("--write-card", help="Write the scores into the model's card.")] = False,
) -> None:
    """Score a model on cases with a reference mask, through the same code as segment."""
    from groundglass.data.catalogue import find_cases, select
    from groundglass.evaluation.evaluate import evaluate as run
    from groundglass.evaluation.evaluate import write_scores
    from groundglass.evaluation.tables import score_table
    from groundglass.inference.card import bundled_model
    from groundglass.inference.segmenter import Segmenter

    path = model or bundled_model()
    with _bar("cases") as progress:
        scores = run(select(find_cases(data), case), Segmenter.load(path), progress)
    _console().print(score_table(scores))
    if card:
        write_scores(path, scores)


def _needs(*modules: str) -> None:
    from importlib.util import find_spec

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise GroundglassError(f"{', '.join(missing)} is not installed: pip install 'groundglass[train]'")


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
