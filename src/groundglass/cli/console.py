"""Output of the commands: consoles, progress bars and live tables; and a check for optional packages."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from groundglass.errors import GroundglassError

if TYPE_CHECKING:
    from rich.console import Console


REPLACING = "groundglass-replace"  # name of the handler of characters that cannot be encoded


def replace_unprintable() -> None:
    """Let stdout and stderr replace characters that their encoding lacks, so that no name or sign stops a command."""
    codecs.register_error(REPLACING, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=REPLACING)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Return what is written in place of characters, and where encoding goes on: a minus sign stays one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join("-" if character == "\N{MINUS SIGN}" else "?" for character in lost), error.end


def console(stderr: bool = False) -> Console:
    """Create a console for stdout or stderr that neither highlights nor wraps, and shows texts from files as they are.

    Names of files and of cases may hold markup and escape sequences, also in tables.
    """
    from groundglass.cli.plain_console import PlainConsole

    return PlainConsole(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_lines(lines: Sequence[object]) -> None:
    """Print each item on a line of its own."""
    printer = console()
    for line in lines:
        printer.print(str(line))


def print_line(line: str) -> None:
    """Print a line; see `print_lines`."""
    print_lines([line])


def print_event(line: str) -> None:
    """Print a line of a program that runs on: one for which the disk has no room is lost, and ends nothing."""
    with suppress(OSError):
        print_line(line)


def print_warnings(warnings: Sequence[str]) -> None:
    """Print each warning on a line of its own."""
    print_lines([f"warning: {warning}" for warning in warnings])


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, and nothing in a pipe.

    Args:
        description: The items that are counted, such as slices.

    Yields:
        A function to be called with the number of items done and the number of all.
    """
    printer = console(stderr=True)
    if not printer.is_terminal:
        yield lambda *_: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=printer, transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def live_table(table: Callable[[], Any]) -> Iterator[None]:
    """Show a table that is redrawn every two seconds on a terminal, and nothing in a pipe."""
    from rich.live import Live

    printer = console(stderr=True)
    if not printer.is_terminal:
        yield
        return
    with Live(get_renderable=table, console=printer, refresh_per_second=0.5, transient=True):
        yield


@contextmanager
def resumable() -> Iterator[None]:
    """Say that the same command goes on, where one is interrupted inside `with` that keeps what is done.

    Raises:
        GroundglassError: It is interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise GroundglassError("interrupted; run the same command again to continue") from None


def require(*modules: str, extra: str = "train") -> None:
    """Check that optional packages are installed.

    Raises:
        GroundglassError: A package is missing; the message names the extra that installs it.
    """
    from importlib.util import find_spec

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise GroundglassError(f"{', '.join(missing)} {verb} not installed: pip install 'groundglass[{extra}]'")
