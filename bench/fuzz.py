"""Read damaged files of every kind: each must be read or give a one-line error, quickly and in little memory.

    python bench/fuzz.py [--count 20000] [--seed 0] [--workers 2] [--only 'header-*'] [-o failures]

Scans of every format are damaged, headers of DICOM with the results for a PACS that are made from them, a DICOM
Segmentation that is opened as a mask, lists of cases and the dataset.json of datasets: `tests/helpers/fuzz_seeds.py`
writes the intact files, `tests/helpers/fuzz_doors.py` reads the damaged ones. Every file follows from the seed and its
number; files that fail are kept in the output folder.
A failure is any exception but `InputError`, a warning, a message that is not one line of text, a dead process, more
than 10 s of a core, or more than 2 GiB; what waits for 300 s by the clock is one too, since other programs may have the
cores for a while. The exit code is 1 if there was one. Once the reader is fixed, put the file into tests/fuzz/.
"""

from __future__ import annotations

import argparse
import gzip
import io
import multiprocessing
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement

from groundglass.errors import InputError
from groundglass.io.dicom_header import silence_pydicom
from groundglass.workers import limit_core_time

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.fuzz_doors import read_damaged
from helpers.fuzz_seeds import save_unchanged, write_seeds

CORE_S, CLOCK_S, MEMORY = 10, 300, 2 << 30
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
HEADER = 600  # bytes at the start that get half of all changes
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_TEXTS = (
    *(
        b"",
        b" ",
        b"\0\0\0\0",
        b"\n",
        b"\r\n",
        b'"',
        b";",
        b"\t",
        b",,,,",
        b"\\\\\\",
        b"^^^===^",
        b"<b>&amp;",
        b"[[[[[[",
        b"{}",
    ),
    *(b"0", b"-1", b"1,5", b"1e999", b"nan", b"Infinity", b"null", b"true", b"1" * 200, b"1.2.003..abc", b"99999999"),
    *(b"20201345", b"2020.01.02", b"250000.5", b"ISO_IR 192", b"ISO 2022 IR 87\\GB18030", b"\x1b$B;3ED", b"\x1b[31m"),
    *(
        "Müller".encode("latin_1"),
        "Müller ünlü 王".encode(),
        b"\xff\xfe",
        b"\xc3(",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"../" * 9,
    ),
    *(b"A" * 70_000, "\u2028".encode(), b"\xc2\x85", b"lesion=1"),
)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Make one small change, or up to eight: bits, numbers, texts, holes, repeats, cuts."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 9) if rng.random() < 0.5 else 1):
        if not content:
            break
        reach = min(HEADER, len(content)) if rng.random() < 0.5 else len(content)
        offset = int(rng.integers(reach))
        length = int(rng.integers(1, 64))
        match rng.integers(8):
            case 0:
                content[offset] ^= 1 << int(rng.integers(8))
            case 1:
                content[offset] = int(rng.integers(256))
            case 2:
                size = int(rng.choice((1, 2, 4, 8)))
                value = int(rng.choice(ODD_NUMBERS)).to_bytes(8, str(rng.choice(("little", "big"))))[:size]  # type: ignore[arg-type]
                content[offset : offset + size] = value
            case 3:
                del content[offset : offset + length]
            case 4:
                content[offset:offset] = content[offset : offset + length]
            case 5:
                content[offset : offset + length] = rng.bytes(length)
            case 6:
                if rng.random() < 0.2:
                    del content[offset:]
            case 7:
                content[offset : offset + int(rng.integers(12))] = ODD_TEXTS[rng.integers(len(ODD_TEXTS))]
    return bytes(content)


def mutate_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Give one to four attributes of a DICOM file an odd value, or remove them; the file itself stays well-formed."""
    dataset = dcmread(io.BytesIO(data))
    parents = [dataset, *_nested(dataset)]
    for _ in range(rng.integers(1, 5)):
        parent = parents[rng.integers(len(parents))] if rng.random() < 0.5 else dataset
        tags = list(parent.keys())
        if not tags:
            continue
        tag = tags[rng.integers(len(tags))]
        element = parent.get_item(tag)
        del parent[tag]
        value = ODD_TEXTS[rng.integers(len(ODD_TEXTS))]
        if element.VR != "SQ" and rng.random() < 0.8:
            is_implicit, is_little_endian = (bool(each) for each in dataset.original_encoding)
            value = value[:64_000] + b" " * (len(value) % 2)
            parent[tag] = RawDataElement(tag, element.VR, len(value), value, 0, is_implicit, is_little_endian)
    written = io.BytesIO()
    save_unchanged(dataset, written)
    return written.getvalue()


def _nested(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the items of all sequences, at any depth."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            yield item
            yield from _nested(item)


def mutate_file(name: str, data: bytes, rng: np.random.Generator) -> bytes:
    """Mutate a file; half of the packed ones and of DICOM inside, since a checksum or a parser stops other changes."""
    if rng.random() < 0.5 or not name.endswith((".gz", ".zip", ".dcm")):
        return mutate(data, rng)
    if name.endswith(".gz"):
        return gzip.compress(mutate(gzip.decompress(data), rng), 1)
    if name.endswith(".dcm"):
        try:
            with silence_pydicom():
                return mutate_header(data, rng)
        except Exception:  # pydicom does not write every combination
            return mutate(data, rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = int(rng.integers(len(old.namelist())))
        for i, member in enumerate(old.namelist()):
            content = old.read(member)
            new.writestr(member, mutate_file(member, content, rng) if i == chosen else content)
    return packed.getvalue()


def outcome(path: Path) -> str:
    """Read a file as the commands do, and return `read`, `refused`, or the traceback."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            messages, result = read_damaged(path), "read"
    except InputError as error:
        messages, result = (str(error),), "refused"
    except BaseException:
        return traceback.format_exc()
    bad = next((message for message in messages if not message or UNPRINTABLE.search(message)), None)
    return result if bad is None else f"a message that is not one line of text: {bad!r}"


def work(numbers: range, seed: int, seeds: list[Path], pipe: Connection) -> None:
    """Read the files of these numbers, and send (number, None) before and (number, outcome) after each."""
    # Beyond what the starting process has mapped already: libraries that a test has loaded may map gigabytes.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(prefix="groundglass-fuzz-") as folder:
        for number in numbers:
            path = write_mutated(number, seed, seeds, Path(folder))
            pipe.send((number, None))
            limit_core_time(CORE_S)
            pipe.send((number, outcome(path)))
            path.unlink()


def write_mutated(number: int, seed: int, seeds: list[Path], folder: Path) -> Path:
    """Write the file of that number."""
    rng = np.random.default_rng((seed, number))
    origin = seeds[number % len(seeds)]
    path = folder / f"{number}-{origin.name}"
    path.write_bytes(mutate_file(origin.name, origin.read_bytes(), rng))
    return path


class Worker:
    """A process that reads its share of the files; after one that it dies or hangs on, another process goes on."""

    def __init__(self, numbers: range, start: Callable[[range, Connection], BaseProcess]) -> None:
        self.numbers, self.start = numbers, start
        self.busy: tuple[int, float] | None = None
        self._start()

    def _start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = self.start(self.numbers, other)
        other.close()

    def poll(self) -> tuple[int, str] | None:
        """Return the number and the outcome of a file, if there is a new one."""
        try:
            while self.pipe.poll(0.01):
                number, result = self.pipe.recv()
                if result is not None:
                    self._done(number)
                    return number, result
                self.busy = number, time.monotonic()
        except (EOFError, ConnectionError):
            self.process.join()
            if not self.numbers:
                return None
            if self.process.exitcode == -signal.SIGXCPU:
                return self._failed(f"more than {CORE_S} s of a core")
            return self._failed(f"the process died with exit code {self.process.exitcode}")
        if self.busy and time.monotonic() - self.busy[1] > CLOCK_S:
            return self._failed(f"more than {CLOCK_S} s by the clock")
        return None

    def _done(self, number: int) -> None:
        step, stop = self.numbers.step, self.numbers.stop
        self.busy, self.numbers = None, range(number + step, stop, step)

    def _failed(self, reason: str) -> tuple[int, str]:
        number = self.busy[0] if self.busy else self.numbers.start
        self.process.kill()
        self.process.join()
        self._done(number)
        self._start()
        return number, reason


def fuzz(seeds: list[Path], count: int, seed: int, workers: int, output: Path) -> tuple[Counter[str], list[str]]:
    """Read `count` mutated files; those that fail are kept in the folder `output`."""
    context = multiprocessing.get_context("fork")

    def start(numbers: range, pipe: Connection) -> BaseProcess:
        process = context.Process(target=work, args=(numbers, seed, seeds, pipe), daemon=True)
        process.start()
        return process

    running = [Worker(range(first, count, workers), start) for first in range(workers)]
    counts: Counter[str] = Counter()
    failures = []
    while any(worker.numbers for worker in running):
        for worker in running:
            if not worker.numbers or (found := worker.poll()) is None:
                continue
            number, result = found
            passed = result in ("read", "refused")
            counts[f"{seeds[number % len(seeds)].name}: {result if passed else 'FAILED'}"] += 1
            if not passed:
                output.mkdir(parents=True, exist_ok=True)
                failures.append(f"{write_mutated(number, seed, seeds, output).name}: {result}")
    for worker in running:
        worker.process.join()
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="*", help="damage only the intact files whose names match this pattern")
    parser.add_argument("-o", "--output", type=Path, default=Path("fuzz-failures"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seeds = [path for path in write_seeds(Path(folder)) if fnmatch(path.name, arguments.only)]
        started = time.monotonic()
        counts, failures = fuzz(seeds, arguments.count, arguments.seed, arguments.workers, arguments.output)
    for name, number in sorted(counts.items()):
        print(f"{number:7} {name}")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{sum(counts.values())} files, {len(failures)} failures, {time.monotonic() - started:.0f} s")
    print(f"peak memory of a process {children:.0f} MiB of {MEMORY >> 20} MiB allowed")
    for failure in failures:
        print(failure)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
