"""A folder that one process at a time works in; the lock ends with the process, however that ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def lock_folder(folder: Path) -> IO[str] | None:
    """Take a folder, for as long as what is returned stays open; None: another process has it.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / "lock"
    path.touch(mode=0o600)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
