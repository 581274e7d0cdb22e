"""Mutated files at every door of `read_scan`: each must end as a scan or as one refusal, soon, and in little memory.

    python bench/fuzz.py [--count 20000] [--seed 0] [--workers 2] [-o failures]

Every file follows from the seed and its number, and that of a failure is kept in the folder. A failure is any exception
but `InputError`, a warning, a dead process, more than 10 s, more than 2 GiB. Exit code 1 if there was one. Put what
failed, once mended, into tests/fuzz/.
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from groundglass.errors import InputError
from groundglass.io.reader import read_scan

SECONDS, MEMORY = 10, 2 << 30
HEADER = 600  # bytes: half of all changes go there
ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Dice = np.random.Generator


def mutate(data: bytes, dice: Dice) -> bytes:
    """One to eight small changes: bits, numbers, holes, repeats, cuts."""
    content = bytearray(data)
    for _ in range(dice.integers(1, 9)):
        if not content:
            break
        reach = min(HEADER, len(content)) if dice.random() < 0.5 else len(content)
        at = int(dice.integers(reach))
        length = int(dice.integers(1, 64))
        match dice.integers(7):
            case 0:
                content[at] ^= 1 << int(dice.integers(8))
            case 1:
                content[at] = int(dice.integers(256))
            case 2:
                size = int(dice.choice((1, 2, 4, 8)))
                value = int(dice.choice(ODD)).to_bytes(8, str(dice.choice(("little", "big"))))[:size]  # type: ignore[arg-type]
                content[at : at + size] = value
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = content[at : at + length]
            case 5:
                content[at : at + length] = dice.bytes(length)
            case 6:
                if dice.random() < 0.2:
                    del content[at:]
    return bytes(content)


def repacked(name: str, data: bytes, dice: Dice) -> bytes:
    """A packed file is mutated as it is, or inside and packed again: its checksum would hide most changes."""
    if dice.random() < 0.5 or not name.endswith((".gz", ".zip")):
        return mutate(data, dice)
    if name.endswith(".gz"):
        return gzip.compress(mutate(gzip.decompress(data), dice), 1)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = int(dice.integers(len(old.namelist())))
        for i, member in enumerate(old.namelist()):
            content = old.read(member)
            new.writestr(member, mutate(content, dice) if i == chosen else content)
    return packed.getvalue()


def outcome(path: Path) -> str:
    """Open a file as `segment` does: `read`, `refused`, or the traceback."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_scan(path)
    except InputError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"a refusal of several lines: {error}"
    except BaseException:
        return traceback.format_exc()
    return "read"


def work(numbers: range, seed: int, seeds: list[Path], pipe: Connection) -> None:
    """One process: says which file it begins, and what became of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="groundglass-fuzz-") as folder:
        for number in numbers:
            path = made(number, seed, seeds, Path(folder))
            pipe.send((number, None))
            pipe.send((number, outcome(path)))
            path.unlink()


def made(number: int, seed: int, seeds: list[Path], folder: Path) -> Path:
    """The file of that number."""
    dice = np.random.default_rng((seed, number))
    origin = seeds[number % len(seeds)]
    path = folder / f"{number}-{origin.name}"
    path.write_bytes(repacked(origin.name, origin.read_bytes(), dice))
    return path


class Worker:
    """A process at its share of the numbers; begun anew behind a file that it died or hung on."""

    def __init__(self, numbers: range, begin: Callable[[range, Connection], BaseProcess]) -> None:
        self.numbers, self.begin = numbers, begin
        self.busy: tuple[int, float] | None = None
        self._start()

    def _start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = self.begin(self.numbers, other)
        other.close()

    def poll(self) -> tuple[int, str] | None:
        """What became of a file, if that is known by now."""
        try:
            while self.pipe.poll(0.01):
                number, what = self.pipe.recv()
                if what is not None:
                    self._done(number)
                    return number, what
                self.busy = number, time.monotonic()
        except (EOFError, ConnectionError):
            self.process.join()
            if not self.numbers:
                return None
            return self._failed(f"the process died with exit code {self.process.exitcode}")
        if self.busy and time.monotonic() - self.busy[1] > SECONDS:
            return self._failed(f"more than {SECONDS} s")
        return None

    def _done(self, number: int) -> None:
        step, stop = self.numbers.step, self.numbers.stop
        self.busy, self.numbers = None, range(number + step, stop, step)

    def _failed(self, why: str) -> tuple[int, str]:
        number = self.busy[0] if self.busy else self.numbers.start
        self.process.kill()
        self.process.join()
        self._done(number)
        self._start()
        return number, why


def fuzz(seeds: list[Path], count: int, seed: int, workers: int, kept: Path) -> tuple[Counter[str], list[str]]:
    """Open `count` mutated files; the files of failures go into `kept`."""
    context = multiprocessing.get_context("fork")

    def begin(numbers: range, pipe: Connection) -> BaseProcess:
        process = context.Process(target=work, args=(numbers, seed, seeds, pipe), daemon=True)
        process.start()
        return process

    running = [Worker(range(first, count, workers), begin) for first in range(workers)]
    counts: Counter[str] = Counter()
    failures = []
    while any(worker.numbers for worker in running):
        for worker in running:
            if not worker.numbers or (found := worker.poll()) is None:
                continue
            number, what = found
            fine = what in ("read", "refused")
            counts[f"{seeds[number % len(seeds)].name}: {what if fine else 'FAILED'}"] += 1
            if not fine:
                kept.mkdir(parents=True, exist_ok=True)
                failures.append(f"{made(number, seed, seeds, kept).name}: {what}")
    for worker in running:
        worker.process.join()
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz-failures"))
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from helpers.fuzz_seeds import write_seeds

    with tempfile.TemporaryDirectory() as folder:
        seeds = write_seeds(Path(folder))
        began = time.monotonic()
        counts, failures = fuzz(seeds, arguments.count, arguments.seed, arguments.workers, arguments.output)
    for name, number in sorted(counts.items()):
        print(f"{number:7} {name}")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{sum(counts.values())} files, {len(failures)} failures, {time.monotonic() - began:.0f} s")
    print(f"peak memory of a process {children:.0f} MiB, of {MEMORY >> 20} allowed")
    for failure in failures:
        print(failure)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
