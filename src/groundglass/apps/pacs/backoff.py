"""Growing pauses while a server or the disk fails, and how they are told."""

from __future__ import annotations

import time
from collections.abc import Callable

from groundglass.apps.pacs.processing import short_message

_LONGEST_PAUSE_S = 60.0  # between two tries to reach a server


class Backoff:
    """Growing pauses while the server or the disk fails.

    Args of the constructor:
        on_message: Called with a line when waiting begins, when the reason changes, and when waiting is over.
    """

    def __init__(self, on_message: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._since: float | None = None
        self._reason, self._pause_s = "", 1.0

    def wait(self, error: Exception) -> None:
        """Report an error, unless it is the same as before, and sleep."""
        self._since = self._since or time.monotonic()
        if short_message(error) != self._reason:
            self._reason = short_message(error)
            self._on_message(f"waiting: {self._reason}")
        time.sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)

    def reset(self) -> None:
        """Report that waiting is over, if there was any, and begin again with short pauses."""
        if self._since is not None:
            self._on_message(f"resumed after {format_duration(time.monotonic() - self._since)}")
        self._since, self._reason, self._pause_s = None, "", 1.0


def format_duration(seconds: float) -> str:
    """Return a time in seconds or minutes, as people write it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
