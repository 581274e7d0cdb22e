"""Commands for datasets: prepare, show, split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, print_lines, print_warnings, progress_bar, require, resumable
from groundglass.scan.kinds import FieldOfView

if TYPE_CHECKING:
    from groundglass.data.labels import MaskLabels

commands = typer.Typer()
PreparedFolder = Annotated[Path, typer.Argument(metavar="PREPARED", help="Folder made by `groundglass prepare`.")]


@commands.command()
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA", help="Dataset folders, CSVs with the columns image, mask and patient, or lists in JSON."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the prepared slices, which is created if it does not exist.",
            show_default="needed, but for --write-csv",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="NAME=NUMBER",
            help="Meaning of a number in the masks: lesion, ground-glass, consolidation, effusion or ignore; repeat "
            "the option for several. Numbers that are not named are no lesion.",
            show_default="as dataset.json, the CSV or the layout states it",
        ),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients",
            metavar="FILE.csv",
            help="CSV with the columns name and patient: cases of one patient, which every split keeps together.",
            show_default="as the CSV or the layout states it",
        ),
    ] = None,
    second_reader: Annotated[
        Path | None,
        typer.Option(
            "--second-reader",
            metavar="FOLDER",
            help="Folder with a second reader's masks, named like the cases; a training learns from both readers.",
            show_default="none",
        ),
    ] = None,
    write_csv: Annotated[
        Path | None,
        typer.Option(
            "--write-csv",
            metavar="FILE.csv",
            help="Write the cases of DATA as a CSV, to be edited and prepared in place of DATA; prepare nothing.",
            show_default="off",
        ),
    ] = None,
    size: Annotated[
        tuple[int, int],
        typer.Option("--size", min=16, metavar="HEIGHT WIDTH", help="Size of the prepared slices in pixels."),
    ] = (192, 256),
    view: Annotated[
        FieldOfView,
        typer.Option("--view", help="Part of each slice that is kept: the lungs, or the whole slice as in the paper."),
    ] = FieldOfView.LUNGS,
    lesion_slices_only: Annotated[
        bool, options.flag("--lesion-slices-only", "Leave out slices without lesion, as the paper does.")
    ] = False,
    skip_invalid: Annotated[
        bool, options.flag("--skip-invalid", "Leave out cases that are refused instead of stopping.")
    ] = False,
) -> None:
    """Check the cases of a dataset, cut their slices to the network's size and group them by patient."""
    if (output is None) == (write_csv is None):
        raise typer.BadParameter("name either the folder to prepare or the CSV to write", param_hint="-o / --write-csv")
    from groundglass.data.labels import parse_labels

    mask_labels = parse_labels(labels, "--labels") if labels else None
    if write_csv is not None:
        _write_csv(sources, write_csv, mask_labels)
    if output is None:
        return
    from groundglass.data.overview import case_table, joined_groups, source_table
    from groundglass.data.prepare import PreparationSettings
    from groundglass.data.prepare import prepare as run

    status = console(stderr=True)
    on_message = status.print if status.is_terminal else lambda _: None
    with resumable(), progress_bar("cases") as progress:
        settings = PreparationSettings(size, view, lesion_slices_only)
        result = run(
            sources, output, settings, skip_invalid, progress, on_message, mask_labels, patients, second_reader
        )
    console().print(case_table(result.manifest))
    console().print(source_table(result.manifest))
    print_lines(joined_groups(result.manifest))
    print_lines([f"left out: {name}: {reason}" for name, reason in result.refused.items()])
    print_lines([f"note: {note}" for note in result.notes])
    print_warnings(result.warnings)
    print_lines(
        [f"{output}: {f'{result.newly_cut} cases cut' if result.newly_cut else 'nothing to do, everything is there'}"]
    )


def _write_csv(sources: list[Path], path: Path, labels: MaskLabels | None) -> None:
    """Write the CSV of `prepare --write-csv`, and print what is in it."""
    from groundglass.data.case_list_writer import write_list

    written = write_list(path, sources, labels)
    print_lines([f"note: {note}" for note in written.notes])
    print_lines([f"{path}: {written.summary}"])


@commands.command()
def show(
    prepared: PreparedFolder,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.png", help="PNG file to write.")] = Path(
        "examples.png"
    ),
    count: Annotated[
        int, typer.Option("--count", min=1, max=64, metavar="N", help="Largest number of slices to draw.")
    ] = 12,
) -> None:
    """Draw example slices of a prepared folder with a colour for each class (Figure 5 of the paper)."""
    from groundglass.data.overview import write_examples

    write_examples(prepared, output, count)
    print_lines([output])


@commands.command()
def split(
    prepared: PreparedFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the split files.")
    ] = Path("splits"),
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="PATTERN",
            help="Pattern of the names of cases that are always in the test part; repeat the option for several.",
            show_default="volumes 4, 5 and 8 of MedSeg",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            metavar="N",
            help="Number of folds over the patients.",
            show_default="5, or one for each patient if there are fewer",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of all random choices.")] = 0,
) -> None:
    """Write split files for the protocols A (by slice, leaky), B (by patient), C (by source) and D (external).

    Needs the `train` extra.
    """
    require("sklearn")
    from groundglass.data.overview import split_table
    from groundglass.data.protocols import write_splits

    console().print(split_table(write_splits(prepared, output, test or (), folds, seed)))
