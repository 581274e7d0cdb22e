"""Commands for many scans and for clinical systems: batch, serve, watch."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from groundglass.cli import options
from groundglass.cli.console import console, live_table, print_event, print_lines, print_warnings, require, resumable
from groundglass.errors import BatchError, GroundglassError
from groundglass.inference.engine_config import EngineConfig

commands = typer.Typer()


@commands.command()
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of scans, quoted glob pattern, or CSV with a column `scan` and optionally a column `case`.",
        ),
    ],
    output: options.OutputFolder,
    model: options.OnnxModel = None,
    intensity: options.Intensity = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Number of worker processes, which share the CPU cores.",
            show_default="1",
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Part of the scans to process, from 1/N to N/N, for the job array of a cluster.",
        ),
    ] = "1/1",
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="tcp://HOST:PORT",
            help="Dask scheduler whose workers segment the scans; they must reach SOURCE, the output folder and the "
            "model under the same paths. Needs the `batch` extra.",
            show_default="worker processes on this machine",
        ),
    ] = None,
    time_limit: options.TimeLimit = 600,
    pseudonyms: Annotated[
        bool,
        options.flag(
            "--pseudonyms",
            "Name the cases by hashes of their paths, and write nothing that names a file or a patient but key.csv.",
        ),
    ] = False,
    with_identity: options.WithIdentity = False,
    engine: options.Engine = None,
    precision: options.NumberFormat = None,
    fast: options.Fast = False,
) -> None:
    """Segment many scans and write a folder for each, a row for each into summary.csv, and an overview.

    Run the same command again to continue, and to retry failed scans.
    """
    if workers and scheduler:
        raise typer.BadParameter(
            "the workers of --scheduler are used: leave one of the two out", param_hint="--workers"
        )
    if pseudonyms and with_identity:
        raise typer.BadParameter("they exclude each other: leave one of the two out", param_hint="--pseudonyms")
    if scheduler:
        require("distributed", extra="batch")
    from groundglass.apps.batch.items import parse_shard
    from groundglass.apps.batch.records import BatchOptions
    from groundglass.apps.batch.run import BatchProgress, describe_record, plan_batch, progress_table, run_batch

    batch_options = BatchOptions(
        model, EngineConfig(engine, precision, fast=fast), intensity, with_identity, pseudonyms
    )
    planned = plan_batch(source, output, batch_options, parse_shard(shard))
    print_warnings(planned.notes)
    progress, printer = BatchProgress(planned), console()
    in_table = printer.is_terminal and console(stderr=True).is_terminal
    on_record = (lambda _: None) if in_table else (lambda record: print_lines([describe_record(record)]))
    try:
        with live_table(lambda: progress_table(progress)):
            if scheduler:
                from groundglass.apps.batch.cluster import run_on_cluster

                run_on_cluster(scheduler, planned, progress, time_limit, on_record)
            else:
                run_batch(planned, progress, workers or 1, time_limit, on_record)
    except KeyboardInterrupt:
        raise GroundglassError(f"interrupted: {progress.line}; run the same command again to continue") from None
    if in_table:
        printer.print(progress_table(progress))
    else:
        print_lines([progress.line])
    print_lines([output / "summary.csv", output / "overview.html"])
    if progress.failed:
        raise BatchError(
            f"{len(progress.failed)} of {progress.total} scans failed for the reasons in summary.csv; "
            "run the same command again to retry them"
        )


@commands.command()
def serve(
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder that keeps scans and results.")
    ] = Path("groundglass-scans"),
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Address to listen on; every address other than a loopback address needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free port.")
    ] = 8642,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token that clients must send.",
            show_default="no token",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Host name under which clients reach the server; repeat the option for several.",
            show_default="loopback names and --host",
        ),
    ] = None,
    model: options.Model = None,
    keep: Annotated[
        float, typer.Option("--keep", metavar="HOURS", help="Hours after which results are deleted.")
    ] = 168,
    queue: Annotated[
        int, typer.Option("--queue", min=1, metavar="N", help="Largest number of scans that may wait.")
    ] = 32,
    time_limit: options.TimeLimit = 600,
    max_upload: Annotated[
        int, typer.Option("--max-upload", min=1, metavar="MIB", help="Largest upload for one scan in MiB.")
    ] = 2048,
    max_slices: Annotated[
        int, typer.Option("--max-slices", min=1, metavar="N", help="Largest number of slices of one scan.")
    ] = 3000,
    engine: options.Engine = None,
    precision: options.NumberFormat = None,
    threads: options.Threads = None,
    fast: options.Fast = False,
) -> None:
    """Serve a web page on which scans can be dropped, and an HTTP API. Needs the `serve` extra."""
    require("fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
    from groundglass.apps.service.config import ServiceConfig, read_token
    from groundglass.apps.service.serve import serve as run

    config = ServiceConfig(
        folder=folder,
        host=host,
        port=port,
        token=read_token(token_file) if token_file else None,
        host_names=tuple(name or ()),
        model=model,
        engine=EngineConfig(engine, precision, threads, fast),
        time_limit_s=time_limit,
        keep_hours=keep,
        queue_size=queue,
        max_upload_bytes=max_upload << 20,
        max_slices=max_slices,
    )
    run(config, print_event)


@commands.command()
def watch(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of an Orthanc server, such as http://127.0.0.1:8042.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the record of processed series, which is created if it does not exist.",
        ),
    ],
    dicomweb: Annotated[
        bool, options.flag("--dicomweb", "Treat URL as the root of a DICOMweb server and search it by QIDO-RS.")
    ] = False,
    model: options.OnnxModel = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Date of the oldest study to process.",
            show_default="studies of any date",
        ),
    ] = None,
    poll: Annotated[
        float,
        typer.Option(
            "--poll", min=0.1, max=86_400, metavar="SECONDS", help="Seconds between two searches for new series."
        ),
    ] = 10,
    time_limit: options.TimeLimit = 600,
    once: Annotated[bool, options.flag("--once", "Process the series that the server holds now, then exit.")] = False,
    again: Annotated[bool, options.flag("--again", "Retry series that were refused or given up.")] = False,
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            metavar="FILE.toml",
            help="File with a user and a password, or with a token.",
            show_default="GROUNDGLASS_PACS_USER and _PASSWORD, or _TOKEN, if they are set",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca",
            metavar="FILE.pem",
            help="File with the certificate authorities to trust.",
            show_default="those of certifi",
        ),
    ] = None,
) -> None:
    """Watch a PACS: segment each CT series that arrives, and store DICOM SEG and report in its study.

    Needs the `serve` extra.
    """
    require("dicomweb_client", extra="serve")
    from groundglass.apps.pacs.watch import WatchOptions
    from groundglass.apps.pacs.watch import watch as run
    from groundglass.apps.pacs.watcher import RetryPolicy

    day = since.date() if since else None
    watch_options = WatchOptions(url, output, dicomweb, day, model, credentials, ca, again)
    with resumable():
        try:
            counts = run(watch_options, RetryPolicy(poll_s=poll, time_limit_s=time_limit), once, print_event)
        except KeyboardInterrupt:
            if once:
                raise
            print_event("stopped; run the same command again to continue")
            return
    print_event(counts.line)
    if counts.failed:
        raise BatchError(
            f"{counts.failed} series failed for the reasons recorded in {output}; "
            "run the same command again to retry them"
        )
