"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundglass.inference.engine_config import EngineName, Precision
from groundglass.scan.kinds import IntensityKind

Engine = Annotated[
    EngineName | None,
    typer.Option("--engine", help="Library that runs the model. [default: the fastest that is installed]"),
]
NumberFormat = Annotated[
    Precision | None,
    typer.Option(
        "--precision", help="Number format in which the model is computed. [default: int8 where the model has it]"
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads that the model may use. [default: all cores]")
]
OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results; created if it does not exist.")
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for the report, tables and figures. [default: none is written]"),
]
WithIdentity = Annotated[
    bool, typer.Option("--with-identity", help="Name the source and the patient in findings, report and preview.")
]
Series = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="UID",
        help="SeriesInstanceUID, or its last digits, of the series to take. [default: chosen by rule]",
    ),
]
ForceModality = Annotated[
    bool, typer.Option("--force-modality", help="Take a DICOM series for a CT although its header says otherwise.")
]
Intensity = Annotated[
    IntensityKind | None,
    typer.Option("--intensity", help="What the scan's numbers are. [default: recognised from the scan]"),
]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="ONNX file with its card beside it, or a run folder. [default: the bundled model]"),
]
RunOrModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN|MODEL]", help="Folder of a finished run, or an ONNX file. [default: the bundled model]"
    ),
]
Prepared = Annotated[Path, typer.Option("--data", metavar="PREPARED", help="Folder made by `groundglass prepare`.")]
Dataset = Annotated[
    Path, typer.Option("--data", help="Folder made by `groundglass prepare`, a dataset folder, or a CSV.")
]
SplitFile = Annotated[Path, typer.Option("--split", metavar="SPLIT.json", help="File made by `groundglass split`.")]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=1, metavar="SECONDS", help="Time after which a scan is given up.")
]
