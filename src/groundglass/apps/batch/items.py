"""Which scans a batch is made of, and what each is called."""

from __future__ import annotations

import csv
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from groundglass.errors import ConfigError, FormatError, InputError
from groundglass.io.reader import kind_of

RESERVED = ("records", "summary.csv", "key.csv")
_VOLUMES = (".nii", ".nii.gz", ".mha", ".nrrd", ".zip")
_DICOM, _PICTURES = (".dcm", ".ima"), (".png", ".jpg", ".jpeg")
_KINDS = {
    **dict.fromkeys(("NIfTI", "MHA", "NRRD", "ZIP"), "volume"),
    "DICOM": "DICOM",
    **dict.fromkeys(("PNG", "JPEG"), "picture"),
}
_NAME = re.compile(r"[^\W_][\w .+=@-]{0,99}")


@dataclass(frozen=True)
class BatchItem:
    """A scan of a batch.

    Attributes:
        name: Of its row and of its folder of results; without identity it tells nothing of the source.
        source: The file or folder. Left out of the repr, which may end up in a log.
        relative: `source` seen from the folder, the glob's fixed part or the CSV's folder.
        named: Whether the user chose the name.
    """

    name: str
    source: Path = field(repr=False)
    relative: str = field(repr=False)
    named: bool = False

    @property
    def fingerprint(self) -> str:
        """Changes when the source does: of the relative path, and the size and time of each file."""
        digest = hashlib.sha256(self.relative.encode("utf-8", "surrogateescape"))
        for file in _files(self.source):
            try:
                state = file.stat()
            except OSError:
                digest.update(b"missing")
                continue
            told = f"\0{file.relative_to(self.source)}\0{state.st_size}\0{state.st_mtime_ns}"
            digest.update(told.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def find_items(source: str, with_identity: bool = False) -> tuple[BatchItem, ...]:
    """The scans of a folder, a glob or a CSV, in a fixed order.

    A folder is searched with all below it. Each volume (NIfTI, MHA, NRRD, ZIP) is a case; a folder without volumes that
    holds DICOM is one case, with everything below it; one that holds pictures is one case. Passed over are hidden files
    and folders, other files, slices beside volumes, and folders with a `findings.json`: they are results.

    Args:
        source: A folder; a glob (`**` goes through folders), of which each match is a case; a CSV with a column `scan`
            (paths seen from its folder) and, if wanted, `case`; or a single scan.
        with_identity: Call cases after their paths; otherwise by a hash of them, unless the CSV names them.

    Raises:
        InputError: There is no scan, or the CSV is not as it should be.
    """
    path = Path(source)
    named: list[tuple[Path, str | None]]
    if path.is_dir():
        base, named = path, [(each, None) for each in _below(path, set())]
    elif path.is_file() and path.suffix.lower() == ".csv":
        base, named = path.parent, _listed(path)
    elif path.is_file():
        base, named = path.parent, [(path, None)]
    else:
        base, named = _fixed_part(path), [(Path(each), None) for each in _matches(source)]
    if not named:
        raise InputError(
            "no scan was found, expected a folder with scans in it, a quoted glob that matches, or a CSV with a "
            "column scan: check the path"
        )
    return tuple(_case(each, base, name, with_identity) for each, name in named)


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of `i/n`.

    Raises:
        ConfigError: The text is no such part.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ConfigError(f"--shard {text!r}: expected i/n, such as 1/8 to 8/8")
    return int(number), int(of)


def shard(cases: tuple[BatchItem, ...], part: tuple[int, int]) -> tuple[BatchItem, ...]:
    """Part i of n, counted from 1: every nth case. All parts of one list together are the list, each case once."""
    number, of = part
    return cases[number - 1 :: of]


def scrubbed(text: str, case: BatchItem) -> str:
    """A message without the source's path, or the name of any file or folder on it or in it."""
    source, relative = case.source, PurePosixPath(case.relative)
    parts = {source.name, *relative.parts, *(file.name for file in _files(source))}
    names = {str(source), os.path.realpath(source), case.relative, *parts, *(_stem(part) for part in parts)}
    names |= {str(parent) for parent in source.parents if len(parent.parts) > 1}
    names |= {"".join(c if c.isprintable() else "?" for c in name) for name in names}
    for name in sorted(names, key=lambda each: (-len(each), each)):
        if len(name) > 2:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "the scan", text, flags=re.IGNORECASE)
    return text


def _case(path: Path, base: Path, name: str | None, with_identity: bool) -> BatchItem:
    path = path.absolute()  # not resolved: a link is called after itself
    relative = Path(os.path.relpath(path, base)).as_posix()
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()
    if name is None and with_identity:
        told = path.name if relative == "." else _stem(relative)
        readable = re.sub(r"[^\w.-]+", "_", told.replace("/", "__")).lstrip("._-")
        return BatchItem(f"{readable[:80]}-{digest[:6]}", path, relative)
    return BatchItem(name or digest[:12], path, relative, name is not None)


def _below(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # links that go in a circle
        return
    seen.add(real)
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError:
        yield folder  # a row that says why it cannot be read
        return
    if any(entry.name == "findings.json" for entry in entries):
        return
    kinds = {file: _kind(file) for file in entries if file not in set(folders)}
    volumes = [file for file, kind in kinds.items() if kind == "volume"]
    if volumes:
        yield from volumes
    elif {"DICOM", "picture"} & set(kinds.values()):
        yield folder
        if "DICOM" in kinds.values():
            return
    for each in folders:
        yield from _below(each, seen)


def _kind(file: Path) -> str | None:
    """By its name; where that says nothing, by its first bytes."""
    name = file.name.lower()
    for suffixes, kind in ((_VOLUMES, "volume"), (_DICOM, "DICOM"), (_PICTURES, "picture")):
        if name.endswith(suffixes):
            return kind
    try:
        return _KINDS.get(kind_of(file)) if file.is_file() and name != "dicomdir" else None
    except FormatError:
        return None


def _listed(table: Path) -> list[tuple[Path, str | None]]:
    """The rows of a CSV: path and name, if it has one."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the CSV cannot be read ({type(error).__name__}), expected text in UTF-8") from None
    if "scan" not in columns:
        raise InputError(f"the CSV has the columns {', '.join(columns) or 'none'}, expected scan and, if wanted, case")
    found: list[tuple[Path, str | None]] = []
    names, scans = set(RESERVED), set[Path]()
    for line, row in enumerate(rows, start=2):
        scan, name = (row["scan"] or "").strip(), (row.get("case") or "").strip() or None
        if not scan:
            raise InputError(f"row {line} of the CSV names no scan: fill it in, or take the row out")
        path = table.parent / scan
        if name is None and path.resolve() in scans:
            raise InputError(f"row {line} of the CSV names a scan that an earlier one names: name each once")
        if name is not None and (not _NAME.fullmatch(name) or name.endswith((" ", ".")) or name.casefold() in names):
            raise InputError(
                f"row {line} of the CSV has a case name that is taken or no folder's name, expected letters, digits "
                "and . _ - that no other row has"
            )
        scans.add(path.resolve())
        names |= {name.casefold()} if name else set()
        found.append((path, name))
    return found


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute


def _fixed_part(pattern: Path) -> Path:
    """The folder before the first part with a wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[len(Path(pattern.anchor).parts) : -1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _stem(path: str) -> str:
    suffix = next((each for each in (".nii.gz", *_VOLUMES, *_DICOM, *_PICTURES) if path.lower().endswith(each)), "")
    return path.removesuffix(path[len(path) - len(suffix) :]) if suffix else path


def _files(source: Path) -> list[Path]:
    """The file itself, or all files below the folder."""
    if not source.is_dir():
        return [source]
    return sorted(Path(place, name) for place, _, names in os.walk(source) for name in names)
