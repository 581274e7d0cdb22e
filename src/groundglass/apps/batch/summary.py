"""`summary.csv`, put together from the records that are there, and `key.csv`, which tells whose they are."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from pathlib import Path

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.records import RECORDS, CaseRecord, Numbers, read_record
from groundglass.errors import ConfigError
from groundglass.files import write_atomic
from groundglass.tables import csv_text

SUMMARY, KEY = "summary.csv", "key.csv"


class Summary:
    """`summary.csv`: a row for each record in the folder, whoever wrote it."""

    def __init__(self, folder: Path, with_identity: bool) -> None:
        """Open the folder of results.

        Raises:
            ConfigError: It was begun with identity, and is to go on without, or the other way round.
        """
        self.folder, self.with_identity = folder, with_identity
        self._known: dict[str, tuple[tuple[int, ...], CaseRecord | None]] = {}
        self._written: list[tuple[int, ...]] | None = None
        self._due = 0.0
        if any((record.source is not None) != with_identity for record in self.records):
            began = "without" if with_identity else "with"
            raise ConfigError(f"the output folder was begun {began} --with-identity: go on so, or name another folder")

    @property
    def records(self) -> list[CaseRecord]:
        """All that are there now, in the order of their names."""
        self._look()
        return [record for _, (_, record) in sorted(self._known.items()) if record is not None]

    def write(self, at_once: bool = True) -> None:
        """Write the summary.

        Args:
            at_once: Now, and again if a record came meanwhile: the last of several writers then has them all. False:
                if it was not written just now, so that it does not take the time of a long batch.

        Raises:
            OutputError: It cannot be written.
        """
        begun = time.monotonic()
        if not at_once and begun < self._due:
            return
        while (states := self._look()) != self._written:
            write_atomic(self.folder / SUMMARY, self._text().encode("utf-8"))
            self._written = states
            if not at_once:
                break
        now = time.monotonic()
        self._due = now + max(1.0, 20 * (now - begun))

    def _look(self) -> list[tuple[int, ...]]:
        """Read what is new; what the state of every record's file is."""
        states: dict[str, tuple[int, ...]] = {}
        if (self.folder / RECORDS).is_dir():
            with os.scandir(self.folder / RECORDS) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and not entry.name.startswith("."):
                        try:
                            state = entry.stat()
                        except FileNotFoundError:
                            continue
                        states[entry.name.removesuffix(".json")] = state.st_ino, state.st_mtime_ns, state.st_size
        self._known = {
            name: known
            if (known := self._known.get(name)) and known[0] == state
            else (state, read_record(self.folder, name))
            for name, state in states.items()
        }
        return [states[name] for name in sorted(states)]

    def _text(self) -> str:
        identity = ["source"] if self.with_identity else []
        columns = ["case", *identity, "status", "reason", *Numbers.model_fields, "seconds", "model"]
        rows = []
        for _, (_, record) in sorted(self._known.items()):
            if record is not None:
                row = record.model_dump(mode="json", include={"case", *identity, "status", "reason", "seconds"})
                numbers = record.numbers.model_dump() if record.numbers else {}
                rows.append({**row, **numbers, "model": f"{record.model.name} {record.model.sha256[:12]}"})
        return csv_text(rows, columns)


def write_key(cases: Iterable[BatchItem], folder: Path) -> None:
    """Write which hashed name stands for which source into `key.csv`, readable by its owner only.

    Raises:
        OutputError: It cannot be written.
    """
    path = folder / KEY
    rows = {case.name: str(case.source) for case in cases if not case.named}
    if not rows:
        return
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = {row["case"]: row["scan"] for row in csv.DictReader(stream)} | rows
    text = csv_text({"case": name, "scan": scan} for name, scan in sorted(rows.items()))
    write_atomic(path, text.encode("utf-8", "surrogateescape"), mode=0o600)
