"""The command line: it parses options, calls the packages, prints their results and turns errors into exit codes.

Exit codes: 0 success; 1 the program failed or was interrupted; 2 wrong usage; 3 the input was refused; 4 some scans of
a batch, or series of a PACS, failed.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from groundglass.cli import clinical, data, evaluation, services, training
from groundglass.cli.console import replace_unprintable
from groundglass.errors import OUT_OF_MEMORY, GroundglassError
from groundglass.plain_text import printable
from groundglass.workers import open_standard_streams

INTERRUPTED = 130  # Typer's exit code for Ctrl-C
_INTERRUPTED = "interrupted; no incomplete output is left"
GARBAGE_AFTER = 50_000  # new objects instead of 700: imports and headers make hundreds of thousands, which all stay

app = typer.Typer(
    help="Find COVID-19 lesions in chest CT. Research use only: not a medical device.",
    epilog="Exit codes: 0 done; 1 the program failed or was interrupted; 2 wrong usage or configuration; 3 the input "
    "was refused; 4 some scans of a batch, or series of a PACS, failed.",
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
    open_standard_streams()
    replace_unprintable()
    _end_as_on_ctrl_c()
    try:
        result: Any = app(standalone_mode=False)
    except GroundglassError as error:
        _exit(str(error), error.exit_code)
    except MemoryError:
        _exit(OUT_OF_MEMORY, 1)
    except SystemExit as error:  # of Typer or Rich if nobody reads the output; of Lightning after a signal
        if isinstance(error.__context__, BrokenPipeError):
            _exit("ended early: its standard output was closed, as by head; run the same command again to continue", 1)
        _exit(_INTERRUPTED, 1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # Typer's own error for wrong usage
            error.show()
            sys.exit(int(error.exit_code))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # no file of ours
            _exit(f"standard output cannot be written: {error.strerror}", 1)
        if isinstance(error, FileNotFoundError) and error.filename is None and _is_folder_gone():
            _exit("the current folder was removed: change to one that exists", 1)
        if os.environ.get("GROUNDGLASS_DEBUG"):
            raise
        _exit(f"{type(error).__name__}: {error} (a bug in groundglass; set GROUNDGLASS_DEBUG=1 to see where)", 1)
    else:
        if result == INTERRUPTED:
            _exit(_INTERRUPTED, 1)
        sys.exit(result if isinstance(result, int) else 0)


def _end_as_on_ctrl_c() -> None:
    """Let the signals of schedulers, supervisors and closed terminals end a command as Ctrl-C does: tidily.

    One that is ignored, as SIGHUP under nohup, stays so. Of a terminal it comes twice, from the system and from the
    shell, so that it is ignored after the first; a second SIGTERM ends the process at once.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows lacks one
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, end)


def _is_folder_gone() -> bool:
    """Return whether the current folder, from which relative paths go, was removed."""
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() is the same
    except FileNotFoundError:
        return True
    return False


def _exit(message: str, code: int) -> None:
    """Print a message as one line on stderr, if there is one that takes it, and exit."""
    one_line = printable(" ".join(message.split()))
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"groundglass: {one_line}\n")
    sys.exit(code)
