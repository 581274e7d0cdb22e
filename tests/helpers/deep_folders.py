"""Trees of folders that are deeper than most programs expect."""

import os
from pathlib import Path


def make_deep(folder: Path, depth: int) -> None:
    """Make a folder in a folder in a folder; its path may be longer than the system takes at once."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    for _ in range(depth):
        os.mkdir("d")  # noqa: PTH102 - relative to the current folder
        os.chdir("d")
    os.fchdir(before)
    os.close(before)


def remove_deep(folder: Path) -> None:
    """Remove what `make_deep` made, which `shutil.rmtree` cannot."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    depth = 0
    while Path("d").is_dir():
        os.chdir("d")
        depth += 1
    for _ in range(depth):
        os.chdir("..")
        for entry in Path().iterdir():
            entry.unlink() if entry.is_file() else entry.rmdir()
    os.fchdir(before)
    os.close(before)
