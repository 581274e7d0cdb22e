"""Write the cases of a dataset as a list, to be edited and prepared in place of the dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundglass.data.case import MEDSEG_SOURCES, SCAN_SUFFIXES, Case, identifier_of
from groundglass.data.case_list import COLUMNS
from groundglass.data.catalogue import find_cases_with_notes
from groundglass.data.labels import MaskLabels
from groundglass.data.layouts import looks_like_mask, match_key
from groundglass.errors import DatasetError, OutputError
from groundglass.files import walk, write_atomic
from groundglass.tables.writing import csv_text

MEDSEG_LABELS = "ground-glass=1 consolidation=2 effusion=3 lesion=4+255"


@dataclass(frozen=True)
class WrittenList:
    """A list that was written.

    Attributes:
        rows: Number of its rows.
        incomplete: Number of rows without an image or without a mask.
        notes: Sentences for the user.
    """

    rows: int
    incomplete: int
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The numbers in words."""
        text = f"{self.rows} case{'s' if self.rows != 1 else ''}"
        return text + (f", of which {self.incomplete} have to be completed or removed" if self.incomplete else "")


def write_list(path: Path, sources: Sequence[Path], labels: MaskLabels | None = None) -> WrittenList:
    """Write the cases of datasets as a list that `prepare` reads.

    Of folders that cannot be prepared as they are, all scans are listed, with the masks that their names suggest.

    Args:
        path: The CSV to write.
        sources: Dataset folders and lists, as `prepare` takes them.
        labels: What the numbers of all masks mean; None: as the dataset states it.

    Raises:
        DatasetError: There is no scan, or a list among the sources cannot be read.
        OutputError: The file exists already, or cannot be written.
    """
    if path.exists():
        raise OutputError(f"{path} exists already and may have been edited: name another file")
    try:
        found = find_cases_with_notes(sources, labels)
        rows, notes = [_row_of_case(path, case) for case in found.cases], found.notes
    except DatasetError as error:
        if not all(source.is_dir() for source in sources):
            raise
        rows, notes = [row for source in sources for row in _draft(path, source)], (str(error),)
        if not rows:
            raise
        rows = [row | {"labels": labels.text if labels else ""} for row in rows]
    write_atomic(path, csv_text([dict.fromkeys(COLUMNS, "") | row for row in rows], COLUMNS).encode("utf-8-sig"))
    return WrittenList(len(rows), sum(not (row["image"] and row["mask"]) for row in rows), notes)


def _row_of_case(path: Path, case: Case) -> dict[str, str]:
    """Return the cells of a case."""
    labels = case.labels.text if case.labels else MEDSEG_LABELS if case.source in MEDSEG_SOURCES else ""
    patient = case.patient.removeprefix(f"{case.source}/")
    row = {"image": _relative(path, case.image), "mask": _relative(path, case.mask), "patient": patient}
    return row | {"labels": labels, "unrelated_slices": "yes" if case.unrelated_slices else ""}


def _draft(path: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Yield a row for each image below a folder, with the mask of a similar name, and for each mask that is left."""
    below = (parent / name for parent, _, names in walk(folder) for name in names)
    files = sorted(file for file in below if file.name.lower().endswith(SCAN_SUFFIXES) and file.is_file())
    files = [file for file in files if not file.name.startswith(".")]
    masks = [file for file in files if looks_like_mask(file, folder)]
    masks_of: dict[str, list[Path]] = {}
    for mask in masks:
        masks_of.setdefault(match_key(identifier_of(mask)), []).append(mask)
    for image in sorted(set(files) - set(masks)):
        found = masks_of.get(match_key(identifier_of(image)), [])
        yield {"image": _relative(path, image), "mask": _relative(path, found.pop(0)) if found else ""}
    for mask in (mask for found in masks_of.values() for mask in found):
        yield {"image": "", "mask": _relative(path, mask)}


def _relative(path: Path, file: Path) -> str:
    """Return the path of a file from the folder of a CSV; the whole path where it is on another drive."""
    try:
        return Path(os.path.relpath(file.absolute(), path.absolute().parent)).as_posix()
    except ValueError:
        return file.absolute().as_posix()
