"""A clock that nobody sets: results are kept for a time, and a wrong clock of the machine must not delete them."""

from __future__ import annotations

import time

# Counts the time in which the machine sleeps too, where there is such a clock.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def steady_s() -> float:
    """Return the seconds since some moment before this program started; setting the clock changes nothing."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
