"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundglass.inference.engine_config import EngineName, Precision
from groundglass.scan.kinds import IntensityKind

BUNDLED_MODEL = "the bundled model"


def flag(name: str, text: str) -> Any:
    """Declare an option without a value that is off unless it is given."""
    return typer.Option(name, help=text, metavar="", show_default="off")


Engine = Annotated[
    EngineName | None,
    typer.Option("--engine", help="Library that runs the model.", show_default="the fastest that is installed"),
]
NumberFormat = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Number format in which the model is computed.",
        show_default="bf16 where the CPU is faster in it, else f32",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, metavar="N", help="Number of CPU threads that the model may use.", show_default="all cores"
    ),
]
Fast = Annotated[
    bool,
    flag("--fast", "Look at each slice once instead of averaging with its mirror image: half the time, less accurate."),
]
OutputFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder for the results, which is created if it does not exist."
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Folder for the report, tables and figures.",
        show_default="no report is written",
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="TEXT",
        help="Name of the scan in findings and report; it should not name the patient.",
        show_default="no label",
    ),
]
WithIdentity = Annotated[
    bool, flag("--with-identity", "Name the source and the patient in findings, report and preview.")
]
Series = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="NUMBER|UID",
        help="Number of the DICOM series to read, as `info` shows it, or the end of its SeriesInstanceUID.",
        show_default="the chest CT, chosen by rule",
    ),
]
ForceModality = Annotated[
    bool, flag("--force-modality", "Accept a DICOM series although its header states no CT, or a projection or map.")
]
Acquisition = Annotated[
    str | None,
    typer.Option(
        "--acquisition",
        metavar="NUMBER",
        help="Acquisition to read of a DICOM series that holds several, such as time points.",
        show_default="all of the series",
    ),
]
ByInstanceNumber = Annotated[
    bool,
    flag("--by-instance-number", "Order DICOM images that state no position by their InstanceNumber."),
]
Intensity = Annotated[
    IntensityKind | None,
    typer.Option("--intensity", help="Meaning of the scan's numbers.", show_default="recognised from the scan"),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        min=0.01,
        max=0.99,
        metavar="PROBABILITY",
        help="Probability from which a voxel is lesion.",
        show_default="the model's own",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="RUN|MODEL",
        help="Folder of a finished run, or an ONNX file with its card beside it.",
        show_default=BUNDLED_MODEL,
    ),
]
OnnxModel = Annotated[
    Path | None,
    typer.Option("--model", metavar="MODEL", help="ONNX file with its card beside it.", show_default=BUNDLED_MODEL),
]
RunOrModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN|MODEL",
        help="Folder of a finished run, or an ONNX file with its card beside it.",
        show_default=BUNDLED_MODEL,
    ),
]
Prepared = Annotated[Path, typer.Option("--data", metavar="PREPARED", help="Folder made by `groundglass prepare`.")]
Dataset = Annotated[
    Path,
    typer.Option("--data", metavar="DATA", help="Folder made by `groundglass prepare`, a dataset folder or a CSV."),
]
SplitFile = Annotated[Path, typer.Option("--split", metavar="SPLIT.json", help="File made by `groundglass split`.")]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit", min=1, metavar="SECONDS", help="Seconds after which the processing of a scan is stopped."
    ),
]
