"""Commands for datasets: prepare, show, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, print_lines, progress_bar, require
from groundglass.scan.kinds import FieldOfView

commands = typer.Typer()
PreparedFolder = Annotated[Path, typer.Argument(metavar="PREPARED", help="Folder made by `groundglass prepare`.")]


@commands.command()
def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DATA", help="Dataset folders, or CSVs with the columns image, mask and patient."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the prepared slices, which is created if it does not exist.",
        ),
    ],
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
    from groundglass.data.overview import case_table, joined_groups, source_table
    from groundglass.data.prepare import PreparationSettings
    from groundglass.data.prepare import prepare as run

    status = console(stderr=True)
    on_message = status.print if status.is_terminal else lambda _: None
    with progress_bar("cases") as progress:
        settings = PreparationSettings(size, view, lesion_slices_only)
        result = run(sources, output, settings, skip_invalid, progress, on_message)
    console().print(case_table(result.manifest))
    console().print(source_table(result.manifest))
    print_lines(joined_groups(result.manifest))
    print_lines([f"left out: {name}: {reason}" for name, reason in result.refused.items()])
    print_lines(
        [f"{output}: {f'{result.newly_cut} cases cut' if result.newly_cut else 'nothing to do, everything is there'}"]
    )


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
    """Write split files for the protocols A (by slice, leaky), B (by patient), C (by source) and D (external)."""
    require("sklearn")
    from groundglass.data.overview import split_table
    from groundglass.data.protocols import write_splits

    console().print(split_table(write_splits(prepared, output, test or (), folds, seed)))
