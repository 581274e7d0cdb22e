"""Commands for single scans and single patients: segment, info, follow, demo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import print_lines, print_warnings, progress_bar
from groundglass.inference.engine_config import EngineConfig
from groundglass.io.dicom_options import DicomOptions
from groundglass.workers import JOB_BYTES, limit_memory

commands = typer.Typer()


@commands.command()
def segment(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="DICOM (file, folder or ZIP), NIfTI, MHA or NRRD file, PNG or JPEG slice, or folder of such slices.",
        ),
    ],
    output: options.OutputFolder,
    model: options.Model = None,
    series: options.Series = None,
    acquisition: options.Acquisition = None,
    by_instance_number: options.ByInstanceNumber = False,
    force_modality: options.ForceModality = False,
    intensity: options.Intensity = None,
    threshold: options.Threshold = None,
    lungs: Annotated[bool, options.flag("--lungs", "Write the mask of the lungs too, as lungs.nii.gz.")] = False,
    probability: Annotated[
        bool,
        options.flag("--probability", "Write the probability of lesion of each voxel too, as probability.nii.gz."),
    ] = False,
    label: options.Label = None,
    with_identity: options.WithIdentity = False,
    engine: options.Engine = None,
    precision: options.NumberFormat = None,
    threads: options.Threads = None,
    fast: options.Fast = False,
) -> None:
    """Find the lesions in a scan and write a mask, findings (ml, % of lung), a preview and a report."""
    limit_memory(JOB_BYTES)
    from groundglass.io.reader import read_scan
    from groundglass.parallel import in_background

    dicom = DicomOptions(series, acquisition, force_modality, by_instance_number, with_identity)
    reading = in_background(read_scan, source, dicom=dicom)
    from groundglass.inference.open_model import open_in_background  # while the scan is read

    opening = open_in_background(model, EngineConfig(engine, precision, threads, fast))
    from groundglass.report.analysis import segment as run  # while the model is opened
    from groundglass.report.dicom_results import load_in_background

    scan = reading.result()
    load_in_background(scan)
    with progress_bar("slices") as progress:
        result = run(
            scan,
            opening.result(),
            intensity,
            progress,
            with_identity,
            threshold=threshold,
            keep_probability=probability,
            label=label,
        )
    files = result.save(output, lungs, probability)
    print_lines([result.findings.summary])
    print_warnings(result.saved_findings.warnings)
    print_lines(files)


@commands.command()
def info(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="INPUT",
            help="Any input that `groundglass segment` accepts.",
            show_default="none, which needs --engine",
        ),
    ] = None,
    series: options.Series = None,
    acquisition: options.Acquisition = None,
    by_instance_number: options.ByInstanceNumber = False,
    force_modality: options.ForceModality = False,
    as_json: Annotated[bool, options.flag("--json", "Print JSON instead of text.")] = False,
    with_identity: Annotated[
        bool, options.flag("--with-identity", "Print series descriptions, which may name the patient.")
    ] = False,
    engine: Annotated[
        bool,
        options.flag("--engine", "Print the engine that would run the bundled model on this machine, and why."),
    ] = False,
) -> None:
    """Describe an input without segmenting it: series, grid, intensities, and any reason to refuse it."""
    if engine:
        from groundglass.inference.open_model import open_model

        print_lines([open_model().engine.card])
        return
    if source is None:
        raise typer.BadParameter("neither an input nor --engine is given: give one of them", param_hint="INPUT")
    limit_memory(JOB_BYTES)
    from groundglass.apps.info import describe_input

    dicom = DicomOptions(series, acquisition, force_modality, by_instance_number, with_identity)
    described = describe_input(source, dicom)
    print_lines([described.model_dump_json(indent=2)] if as_json else described.lines)


@commands.command()
def follow(
    sources: Annotated[list[Path], typer.Argument(metavar="SCAN", help="Two or more scans of one patient.")],
    output: options.OutputFolder,
    date: Annotated[
        list[datetime] | None,
        typer.Option(
            "--date",
            metavar="YYYY-MM-DD[THH:MM:SS]",
            help="Date of a scan; repeat the option for each scan, in the order of the scans.",
            show_default="from the DICOM headers",
        ),
    ] = None,
    model: options.Model = None,
    with_identity: options.WithIdentity = False,
) -> None:
    """Compare several scans of one patient: changes in ml and % of lung as a table and a figure."""
    limit_memory(JOB_BYTES)
    from groundglass.apps.follow import follow as run
    from groundglass.inference.open_model import open_model

    with progress_bar("scans") as progress:
        result = run(sources, output, open_model(model), date or (), progress=progress, with_identity=with_identity)
    print_lines([f"scan {change.earlier} to {change.later}: {change.in_words}" for change in result.changes])
    print_warnings(result.warnings)
    for number, visit in enumerate(result.visits, start=1):
        if count := len(visit.warnings):
            report = output / visit.folder / "report.html"
            print_lines([f"scan {number}: {count} warning{'s' if count > 1 else ''} in {report}"])
    print_lines([output / "follow.html"])


@commands.command()
def demo(output: options.OutputFolder = Path("demo")) -> None:
    """Make a chest phantom with lesions of known volume, segment it, and compare the volumes."""
    from groundglass.apps.demo import run_demo

    with progress_bar("slices") as progress:
        lines = run_demo(output, progress)
    print_lines(lines)
