"""Find the scans of a batch, and give each a name."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from groundglass.errors import ConfigError, FormatError, InputError
from groundglass.files import walk
from groundglass.io.dicom_folders import DicomFolder, find_spread_series, look_into
from groundglass.io.reader import file_kind
from groundglass.io.text_header import HEADER_SUFFIXES
from groundglass.plain_text import printable
from groundglass.tables.reading import TABLE_SUFFIXES, path_of_cell, read_table

LONGEST_NAME = 80  # characters of a name that is made from a path
LONGEST_NAME_BYTES = 200  # of any name: file systems allow 255, and those of the files in records are longer
MAX_DEPTH = 100  # folders below the source, down to which scans are searched for
RESERVED = ("records", "summary.csv", "overview.html", "key.csv")
_VOLUMES = (".nii", ".nii.gz", ".mha", ".nrrd", *HEADER_SUFFIXES, ".zip")
_DICOM, _PICTURES = (".dcm", ".ima"), (".png", ".jpg", ".jpeg")
_CATEGORY_BY_FORMAT = {
    **dict.fromkeys(("NIfTI", "MHA", "NRRD", "ZIP"), "volume"),
    "DICOM": "DICOM",
    **dict.fromkeys(("PNG", "JPEG"), "picture"),
}
_VALID_NAME = re.compile(r"[^\W_][\w .+=@-]{0,99}")


@dataclass(frozen=True)
class BatchItem:
    """A scan of a batch.

    Attributes:
        name: Name of its row in the summary and of its folder of results. A pseudonym reveals nothing about the
            source, unless the user chose it.
        source: The file or folder. Left out of the repr, which may end up in a log.
        relative_path: Path of `source` from the folder, from the fixed part of the glob, or from the folder of the CSV.
        named_by_user: True if the name comes from the CSV.
        series: SeriesInstanceUID to read; None to read the one that the rule of `dicom_series` chooses.
    """

    name: str
    source: Path = field(repr=False)
    relative_path: str = field(repr=False)
    named_by_user: bool = False
    series: str | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """Hash of the relative path, and of the size and modification time of each file: it changes with the source."""
        digest = hashlib.sha256(self.relative_path.encode("utf-8", "surrogateescape"))
        for file in _files(self.source):
            try:
                state = file.stat()
            except OSError:
                digest.update(b"missing")
                continue
            line = f"\0{os.path.relpath(file, self.source)}\0{state.st_size}\0{state.st_mtime_ns}"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def find_items(
    source: str | Sequence[Path], pseudonyms: bool = False, on_note: Callable[[str], None] = lambda _: None
) -> tuple[BatchItem, ...]:
    """Find the scans of a folder, a glob or a CSV, in a fixed order.

    A folder is searched with all its subfolders. Each volume (NIfTI, MHA, NRRD, ZIP) is an item; a folder without
    DICOM of other studies below it that holds DICOM is one item, with all DICOM below it, and so is a folder whose
    subfolders hold parts of one series; a folder that holds pictures and no volume is one item. Hidden files and
    folders, other files, and folders with a `findings.json` (results) are skipped.

    Args:
        source: A folder; a glob (`**` searches subfolders), of which each match is an item; a CSV with a column `scan`
            (paths relative to its folder) and optionally `case` (names); a single scan; or the paths of scans.
        pseudonyms: Name items by a hash of their paths; otherwise after their paths. Those that the CSV names keep
            their names.
        on_note: Called with what was assumed about the folder or the CSV.

    Raises:
        InputError: No scan is found, or the CSV has missing columns, empty rows, duplicates or bad names.
    """
    path = Path(source) if isinstance(source, str) else Path()
    scans: list[tuple[Path, str | None]]  # with the names of a CSV
    series: dict[Path, str | None] = {}
    if not isinstance(source, str):
        paths = dict.fromkeys(each.absolute() for each in source)
        base = Path(os.path.commonpath([each.parent for each in paths] or [path]))
        scans = [(each, None) for each in paths]
    elif path.is_dir():
        base, found = path, _search(path, set())
        scans = [(each.path, None) for each in found]
        series = {each.path: each.series for each in found}
        joined = sum(each.is_joined for each in found)
        if joined:
            what = "1 folder holds a series" if joined == 1 else f"{joined} folders hold a series each"
            on_note(f"{what} whose slices lie in several folders: each such folder is read as one scan")
    elif path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        base, scans = path.parent, _read_list(path, on_note)
    elif path.is_file():
        base, scans = path.parent, [(path, None)]
    else:
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        base, scans = _fixed_part(path), [(Path(match), None) for match in matches]
    if not scans:
        raise InputError(
            "no scan was found, expected a folder with scans in it, a quoted glob that matches, or a CSV with a "
            "column scan: check the path"
        )
    made = ((scan, _make_item(scan, base, name, pseudonyms)) for scan, name in scans)
    items = tuple(replace(item, series=series.get(scan)) for scan, item in made)
    return items if pseudonyms else _with_unique_names(items)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse `i/n` as (i, n).

    Raises:
        ConfigError: The text has another form, or i does not lie between 1 and n.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard {text!r}: expected i/n, such as 1/8 to 8/8")
    return int(number), int(count)


def select_shard(items: tuple[BatchItem, ...], shard: tuple[int, int]) -> tuple[BatchItem, ...]:
    """Select shard (i, n), counted from 1: every nth item. The shards 1 to n together hold each item once."""
    number, count = shard
    return items[number - 1 :: count]


def deidentify_message(text: str, item: BatchItem) -> str:
    """Replace the path of the source, and the name of any file or folder on it or in it, by "the scan"."""
    source, relative_path = item.source, PurePosixPath(item.relative_path)
    parts = {source.name, *relative_path.parts, *(file.name for file in _files(source))}
    names = {str(source), os.path.realpath(source), item.relative_path, *parts, *(_stem(part) for part in parts)}
    names |= {str(parent) for parent in source.parents if len(parent.parts) > 1}
    names |= set(map(printable, names))
    for name in sorted(names, key=lambda name: (-len(name), name)):
        if len(name) > 2:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "the scan", text, flags=re.IGNORECASE)
    return text


def _make_item(path: Path, base: Path, name: str | None, pseudonyms: bool) -> BatchItem:
    path = path.absolute()  # not resolved: a link keeps its own name
    relative_path = Path(os.path.relpath(path, base)).as_posix()
    if name is not None:
        return BatchItem(name, path, relative_path, named_by_user=True)
    if pseudonyms:
        return BatchItem(_digest(relative_path)[:12], path, relative_path)
    stem = path.name if relative_path == "." else _stem(relative_path)
    readable = re.sub(r"[^\w.-]+", "_", stem.replace("/", "__")).lstrip("._-")[:LONGEST_NAME]
    readable = readable.encode()[:LONGEST_NAME_BYTES].decode(errors="ignore").rstrip(".")
    return BatchItem(readable or _digest(relative_path)[:12], path, relative_path)


def _digest(relative_path: str) -> str:
    return hashlib.sha256(relative_path.encode("utf-8", "surrogateescape")).hexdigest()


def _with_unique_names(items: tuple[BatchItem, ...]) -> tuple[BatchItem, ...]:
    """Add the beginning of a hash of the path to each name that another item, or a file of the batch, has too."""
    counts = Counter([*(item.name.casefold() for item in items), *RESERVED])
    return tuple(
        replace(item, name=f"{item.name}-{_digest(item.relative_path)[:6]}")
        if counts[item.name.casefold()] > 1 and not item.named_by_user
        else item
        for item in items
    )


@dataclass(frozen=True)
class _Found:
    """A scan that a search found.

    Attributes:
        path: Its file or folder.
        dicom: What the folder holds, if it is one of DICOM.
        is_joined: Whether the DICOM of one series lies in several of its subfolders.
        series: UID of that series, if another one in the folder is of higher rank.
    """

    path: Path
    dicom: DicomFolder | None = None
    is_joined: bool = False
    series: str | None = None


def _search(folder: Path, visited: set[str], depth: int = 0) -> list[_Found]:
    if depth > MAX_DEPTH:  # no scan lies so deep: it becomes a row that says why it cannot be read
        return [_Found(folder)]
    real = os.path.realpath(folder)
    if real in visited:  # links may form a circle
        return []
    visited.add(real)
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError:
        return [_Found(folder)]  # it becomes a row that says why it cannot be read
    if any(entry.name == "findings.json" for entry in entries):
        return []
    categories = {file: _category(file) for file in entries if file not in set(folders)}
    volumes = [_Found(file) for file, category in categories.items() if category == "volume"]
    below = [each for subfolder in folders for each in _search(subfolder, visited, depth + 1)]
    if own := [file for file, category in categories.items() if category == "DICOM"]:
        return [*volumes, *_with_own_dicom(folder, own, below)]
    pictures = [_Found(folder)] if "picture" in categories.values() and not volumes else []
    dicom = [each.dicom for each in below if each.dicom]
    spread = find_spread_series(folder, dicom) if len(dicom) > 1 else None
    if spread:
        parts = spread.parts
        whole = replace(parts[0], path=folder, file_count=sum(part.file_count for part in parts))
        joined = _Found(folder, whole, is_joined=True, series=spread.uid)
        return [*volumes, joined, *(each for each in below if each.dicom not in parts)]
    return [*volumes, *pictures, *below]


def _with_own_dicom(folder: Path, own: Sequence[Path], below: Sequence[_Found]) -> list[_Found]:
    """Return what a folder with DICOM files of its own holds, and the scans below it that do not belong to these.

    DICOM below it belongs to them, unless it is of other studies: then a few files lie above the folders of others.
    """
    files = look_into(folder, own)
    if not files.study or all(each.dicom is None or each.dicom.study in ((), files.study) for each in below):
        return [_Found(folder, look_into(folder)), *(each for each in below if each.path.is_file())]
    if len(own) == 1:
        return [_Found(own[0]), *below]
    return [_Found(folder, files, series=files.series[-1] if files.series else None), *below]


def _category(file: Path) -> str | None:
    """Return "volume", "DICOM" or "picture" by the file's suffix or else by its first bytes; None for other files."""
    name = file.name.lower()
    for suffixes, category in ((_VOLUMES, "volume"), (_DICOM, "DICOM"), (_PICTURES, "picture")):
        if name.endswith(suffixes):
            return category
    try:
        return _CATEGORY_BY_FORMAT.get(file_kind(file)) if file.is_file() and name != "dicomdir" else None
    except FormatError:
        return None


def _read_list(csv_file: Path, on_note: Callable[[str], None]) -> list[tuple[Path, str | None]]:
    """Read the rows of a CSV: path and name, None where it has none."""
    try:
        table = read_table(csv_file.read_bytes(), ("scan", "case"))
    except FormatError as error:
        raise InputError(f"the CSV cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"the CSV cannot be read: {error.strerror}") from None
    if "scan" not in table.columns:
        found = ", ".join(table.columns) or "none"
        raise InputError(f"the CSV has the columns {found}, expected scan and optionally case: scan is missing")
    for note in table.notes:
        on_note(f"the CSV: {note}")
    scans: list[tuple[Path, str | None]] = []
    used_names, listed_scans = set(RESERVED), set[str]()
    for row in table.rows:
        line, scan, name = row.line, row.cells["scan"], row.cells.get("case") or None
        if not scan:
            raise InputError(f"row {line} of the CSV names no scan: fill it in, or remove the row")
        try:
            path = path_of_cell(csv_file.parent, scan)
        except FormatError as error:
            raise InputError(f"row {line} of the CSV: {error}") from None
        real = os.path.realpath(path)  # of a link in a circle too
        if name is None and real in listed_scans:
            raise InputError(f"row {line} of the CSV names the scan of an earlier row: name each scan once")
        is_valid = name is None or (
            _VALID_NAME.fullmatch(name) and not name.endswith((" ", ".")) and len(name.encode()) <= LONGEST_NAME_BYTES
        )
        if not is_valid or (name and name.casefold() in used_names):
            raise InputError(
                f"row {line} of the CSV has a case name that is in use or is no valid folder name, expected letters, "
                "digits and . _ - that no other row has"
            )
        listed_scans.add(real)
        used_names |= {name.casefold()} if name else set()
        scans.append((path, name))
    return scans


def _fixed_part(pattern: Path) -> Path:
    """Return the folder before the first part with a wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[len(Path(pattern.anchor).parts) : -1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _stem(path: str) -> str:
    suffixes = (*_VOLUMES, *_DICOM, *_PICTURES)
    length = next((len(suffix) for suffix in suffixes if path.lower().endswith(suffix)), 0)
    return path[: len(path) - length]


def _files(source: Path) -> list[Path]:
    """Return the file itself, with those of its name beside it if it is a header, or all files below the folder."""
    if not source.is_dir():
        beside = source.parent.glob(f"{glob.escape(source.stem)}.*") if source.suffix.lower() in HEADER_SUFFIXES else ()
        return sorted({source, *beside})
    return sorted(folder / name for folder, _, names in walk(source) for name in names)
