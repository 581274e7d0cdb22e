"""Write `summary.csv` and `overview.html`, made from the records, and `key.csv`, which maps pseudonyms to sources."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.overview import render_overview
from groundglass.apps.batch.records import RECORDS, ItemRecord, KeyNumbers, read_record
from groundglass.errors import ConfigError
from groundglass.files import write_atomic
from groundglass.plain_text import original_cell
from groundglass.tables.writing import csv_text

SUMMARY, KEY, OVERVIEW = "summary.csv", "key.csv", "overview.html"
_FileState = tuple[int, int, int]  # inode, modification time in ns, bytes


class Summary:
    """`summary.csv`: a row for each record in the folder, whichever process wrote it."""

    def __init__(self, folder: Path, pseudonyms: bool) -> None:
        """Open the folder of results.

        Args:
            folder: May not exist yet.
            pseudonyms: Whether the summary names no sources.

        Raises:
            ConfigError: The folder was begun with pseudonyms and is to be continued without, or the other way round.
        """
        self.folder, self.pseudonyms = folder, pseudonyms
        self._records: dict[str, tuple[_FileState, ItemRecord | None]] = {}
        self._written: list[_FileState] | None = None
        self._next_write = 0.0
        self._read_new_records()
        if any(record and (record.source is None) != pseudonyms for _, record in self._records.values()):
            begun = "without" if pseudonyms else "with"
            raise ConfigError(
                f"the output folder was begun {begun} --pseudonyms: continue in the same way, or name another folder"
            )

    @property
    def names(self) -> set[str]:
        """The names of all cases that have a row."""
        return {name for name, (_, record) in self._records.items() if record is not None}

    def write(self) -> None:
        """Write summary and overview, and again if a record came meanwhile: the last of several writers has them all.

        Raises:
            OutputError: The file cannot be written.
        """
        while self._write():
            pass
        records = [record for _, (_, record) in sorted(self._records.items()) if record is not None]
        if records:
            write_atomic(self.folder / OVERVIEW, render_overview(records, self.folder).encode("utf-8"))

    def write_if_due(self) -> None:
        """Write the summary unless it was written a short time ago, so that it takes little of a long batch's time.

        Raises:
            OutputError: The file cannot be written.
        """
        begun = time.monotonic()
        if begun >= self._next_write:
            self._write()
            now = time.monotonic()
            self._next_write = now + max(1.0, 20 * (now - begun))

    def _write(self) -> bool:
        """Write the summary if a record has changed; return whether one had."""
        states = self._read_new_records()
        if states == self._written:
            return False
        write_atomic(self.folder / SUMMARY, self._text().encode("utf-8"))
        self._written = states
        return True

    def _read_new_records(self) -> list[_FileState]:
        """Read the records that are new or have changed; return the state of every record's file."""
        states: dict[str, _FileState] = {}
        if (self.folder / RECORDS).is_dir():
            with os.scandir(self.folder / RECORDS) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and not entry.name.startswith("."):
                        with suppress(FileNotFoundError):  # another process may remove it at any time
                            stat = entry.stat()
                            states[entry.name.removesuffix(".json")] = stat.st_ino, stat.st_mtime_ns, stat.st_size
        self._records = {
            name: known
            if (known := self._records.get(name)) and known[0] == state
            else (state, read_record(self.folder, name))
            for name, state in states.items()
        }
        return [states[name] for name in sorted(states)]

    def _text(self) -> str:
        columns, rows = summary_columns(self.pseudonyms), []
        of_record = set(columns) - {*KeyNumbers.model_fields, "model"}
        for _, (_, record) in sorted(self._records.items()):
            if record is not None:
                row = record.model_dump(mode="json", include=of_record)
                numbers = record.numbers.model_dump() if record.numbers else {}
                rows.append({**row, **numbers, "model": f"{record.model.name} {record.model.sha256[:12]}"})
        return csv_text(rows, columns)


def summary_columns(pseudonyms: bool = False) -> list[str]:
    """Return the columns of the summary."""
    identity = [] if pseudonyms else ["source"]
    return ["case", *identity, "status", "reason", *KeyNumbers.model_fields, "seconds", "model"]


def write_key(items: Iterable[BatchItem], folder: Path) -> None:
    """Write which pseudonym stands for which source into `key.csv`, readable by its owner only.

    Raises:
        ConfigError: The file is there, and was changed.
        OutputError: It cannot be written.
    """
    path = folder / KEY
    rows = {item.name: str(item.source) for item in items if not item.named_by_user}
    if not rows:
        return
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            known = list(csv.DictReader(stream))
        if not all(row.get("case") and row.get("scan") for row in known):
            raise ConfigError(
                f"{path} was changed (by a spreadsheet?): bring back its columns case and scan, with commas between "
                "them; nothing else tells which scan a pseudonym stands for"
            )
        rows = {row["case"]: original_cell(row["scan"]) for row in known} | rows
    text = csv_text({"case": name, "scan": scan} for name, scan in sorted(rows.items()))
    write_atomic(path, text.encode("utf-8", "surrogateescape"), mode=0o600)
