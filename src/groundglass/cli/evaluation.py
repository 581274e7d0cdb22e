"""Commands that score a model: evaluate, robustness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, print_lines, print_warnings, progress_bar, require
from groundglass.inference.engine_config import EngineConfig

commands = typer.Typer()


@commands.command()
def evaluate(
    data: options.Dataset,
    model: options.RunOrModel = None,
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            metavar="SPLIT.json",
            help="Split file of which one part is scored.",
            show_default="all cases are scored",
        ),
    ] = None,
    part: Annotated[
        str, typer.Option("--part", metavar="PART", help="Part of the split: train, validation or test.")
    ] = "test",
    case: Annotated[
        list[str] | None,
        typer.Option(
            "--case",
            metavar="PATTERN",
            help="Pattern of the names of cases to score, such as 'volumes/4'; repeat the option for several.",
            show_default="all cases are scored",
        ),
    ] = None,
    output: options.ReportFolder = None,
    write_card: Annotated[bool, options.flag("--write-card", "Write the scores into the model's card.")] = False,
    engine: options.Engine = None,
    precision: options.NumberFormat = None,
) -> None:
    """Score a model on cases with a reference mask, segmenting them as `groundglass segment` does.

    A report (`-o`) needs the `train` extra.
    """
    from groundglass.data.splits import read_split
    from groundglass.evaluation.evaluate import evaluate as run
    from groundglass.evaluation.tables import command_line, score_table, write_scores
    from groundglass.evaluation.targets import find_targets, training_warnings
    from groundglass.inference.open_model import open_model, resolve_model

    config = EngineConfig(engine, precision)
    file = resolve_model(model, config)[0] if write_card else None
    if output is not None:
        require("matplotlib")
        from groundglass.evaluation.report import refuse_other_files

        refuse_other_files(output)
    targets = find_targets(data, case or (), read_split(split) if split else None, part)
    segmenter = open_model(model, config)
    warnings = training_warnings(targets, segmenter.card.trained_on)
    with progress_bar("cases") as progress:
        evaluation = run(targets, segmenter, progress, warnings)
    print_warnings(warnings)
    console().print(score_table(evaluation))
    if output is not None:
        from groundglass.evaluation.report import write_report

        print_lines(write_report(evaluation, output))
    if file is not None:
        command = command_line("evaluate", case=case, split=split, part=part if split else None, precision=precision)
        write_scores(file, evaluation, command)


@commands.command()
def robustness(
    data: options.Dataset,
    case: Annotated[
        list[str],
        typer.Option(
            "--case", metavar="PATTERN", help="Pattern of the names of whole volumes; repeat the option for several."
        ),
    ],
    model: options.RunOrModel = None,
    output: options.ReportFolder = None,
    write_card: Annotated[bool, options.flag("--write-card", "Write the repeatability into the model's card.")] = False,
) -> None:
    """Score a model on whole volumes, unchanged and changed as other scanners and exports would change them."""
    from groundglass.evaluation.robustness import (
        measure_robustness,
        refuse_other_files,
        robustness_table,
        write_repeatability,
        write_robustness,
    )
    from groundglass.evaluation.tables import command_line
    from groundglass.evaluation.targets import find_targets, training_warnings
    from groundglass.inference.open_model import open_model, resolve_model

    if output is not None:
        refuse_other_files(output)
    file = resolve_model(model)[0] if write_card else None
    targets = find_targets(data, case)
    segmenter = open_model(model)
    warnings = training_warnings(targets, segmenter.card.trained_on)
    with progress_bar("changed volumes") as progress:
        result = measure_robustness(targets, segmenter, progress, warnings)
    print_warnings(warnings)
    console().print(robustness_table(result))
    if output is not None:
        print_lines(write_robustness(result, output, command_line("robustness", model, case=case)))
    if file is not None:
        write_repeatability(file, result)
