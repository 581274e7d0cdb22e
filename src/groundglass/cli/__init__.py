"""The command line: it parses options, calls the packages, prints their results and turns errors into exit codes.

Exit codes: 0 success; 1 the program failed or was interrupted; 2 wrong usage; 3 the input was refused; 4 some scans of
a batch, or series of a PACS, failed.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from groundglass.cli import clinical, data, evaluation, services, training
from groundglass.cli.console import replace_unprintable
from groundglass.errors import OUT_OF_MEMORY, GroundglassError
from groundglass.plain_text import printable

INTERRUPTED = 130  # Typer's exit code for Ctrl-C
GARBAGE_AFTER = 50_000  # new objects instead of 700: imports and headers make hundreds of thousands, which all stay

app = typer.Typer(
    help="Find COVID-19 lesions in chest CT. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _print_version(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"groundglass {installed_version('groundglass')}")
        raise typer.Exit


for group in (clinical, services, data, training, evaluation):
    app.add_typer(group.commands)


def main() -> None:
    """Run a command; print any failure as one line on stderr and exit with a code other than 0."""
    gc.set_threshold(GARBAGE_AFTER)
    replace_unprintable()
    try:
        result: Any = app(standalone_mode=False)
    except GroundglassError as error:
        _exit(str(error), error.exit_code)
    except MemoryError:
        _exit(OUT_OF_MEMORY, 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # Typer's own error for wrong usage
            error.show()
            sys.exit(int(error.exit_code))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # no file of ours
            _exit(f"standard output cannot be written: {error.strerror}", 1)
        if os.environ.get("GROUNDGLASS_DEBUG"):
            raise
        _exit(f"{type(error).__name__}: {error} (a bug in groundglass; set GROUNDGLASS_DEBUG=1 to see where)", 1)
    else:
        if result == INTERRUPTED:
            _exit("interrupted; no incomplete output is left", 1)
        sys.exit(result if isinstance(result, int) else 0)


def _exit(message: str, code: int) -> None:
    """Print a message as one line on stderr, if there is one that takes it, and exit."""
    one_line = printable(" ".join(message.split()))
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"groundglass: {one_line}\n")
    sys.exit(code)
