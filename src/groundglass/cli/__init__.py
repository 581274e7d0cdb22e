"""The command line: options in, calls out, errors to exit codes. It holds no logic.

Exit codes: 0 done; 1 the program failed or was interrupted; 2 bad usage; 3 the input was refused; 4 some scans of a
batch, or series of a PACS, failed.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from groundglass.cli import clinical, data, evaluation, services, training
from groundglass.errors import GroundglassError

INTERRUPTED = 130  # what Typer returns for Ctrl-C

app = typer.Typer(
    help="Find COVID-19 lesions in chest CT. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"groundglass {installed('groundglass')}")
        raise typer.Exit


for group in (clinical, services, data, training, evaluation):
    app.add_typer(group.commands)


def main() -> None:
    """Run a command; every failure is one line on stderr and a non-zero exit code."""
    try:
        result: Any = app(standalone_mode=False)
    except GroundglassError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # Typer's own: bad usage
            error.show()
            sys.exit(int(error.exit_code))
        if os.environ.get("GROUNDGLASS_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (a bug in groundglass; GROUNDGLASS_DEBUG=1 shows where)", 1)
    else:
        if result == INTERRUPTED:
            _fail("interrupted; nothing half-written is left", 1)
        sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"groundglass: {line}\n")
    sys.exit(code)
