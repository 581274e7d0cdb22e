"""Find the cases of dataset folders and lists: an image and its mask each.

A folder holds one of the layouts of `layouts`, itself or up to two levels below; a list is a CSV (`case_list`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from groundglass.data.case import SCAN_SUFFIXES, Case
from groundglass.data.case_list import read_case_list
from groundglass.data.labels import MaskLabels, describe, read_dataset_json
from groundglass.data.layouts import cases_in
from groundglass.errors import DatasetError
from groundglass.files import walk
from groundglass.tables import TABLE_SUFFIXES

_EXPECTED = (
    "expected one of the layouts of docs/data.md, there or up to two levels below, or a CSV with image,mask,patient"
)


@dataclass(frozen=True)
class FoundCases:
    """The cases of datasets.

    Attributes:
        cases: In the order of the paths, and of the files in them.
        notes: Sentences for the user: what was assumed, and what was left out.
    """

    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def find_cases(*paths: Path) -> tuple[Case, ...]:
    """List the cases of dataset folders and lists; see `find_cases_with_notes`."""
    return find_cases_with_notes(paths).cases


def find_cases_with_notes(paths: Sequence[Path], labels: MaskLabels | None = None) -> FoundCases:
    """List the cases of every known layout in dataset folders, and of lists.

    Args:
        paths: Folders, with layouts in them or up to two levels below, and CSVs.
        labels: What the numbers of all masks mean; None: as the lists, layouts and dataset.json files state it.

    Raises:
        DatasetError: A path holds no case, an image has no mask, two cases share a name, or a dataset.json does not
            tell what is lesion.
    """
    cases: list[Case] = []
    notes: list[str] = []
    for path in paths:
        found = _cases_of_path(path, notes.append)
        if not found:
            raise DatasetError(f"{path} holds no dataset: {_EXPECTED}{_mend(path)}")
        cases += found
    _check_names(cases)
    if labels is not None:
        return FoundCases(tuple(replace(case, labels=labels) for case in cases), tuple(notes))
    read = cache(read_dataset_json)
    cases = [case if case.labels else replace(case, labels=_labels_beside(case.mask, read)) for case in cases]
    stated = dict.fromkeys(case.labels for case in cases if case.labels and not case.labels.others_are_no_lesion)
    return FoundCases(tuple(cases), (*notes, *map(describe, stated)))


def _cases_of_path(path: Path, on_note: Callable[[str], None]) -> list[Case]:
    """Return the cases of a folder or a list.

    Raises:
        DatasetError: It is neither, or is not laid out as expected.
    """
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return list(read_case_list(path, on_note))
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder and no CSV: {_EXPECTED}")
    folders = [path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))]
    return [case for folder in folders for case in cases_in(folder, on_note)]


def _mend(path: Path) -> str:
    """Return how a folder without a known layout can be used, as the end of a message; "" if it holds no scan."""
    if not path.is_dir():
        return ""
    if any(case.image.is_relative_to(path) for case in _cases_beside(path)):
        return f"; its masks lie beside it: give {path.resolve().parent}"
    if any(name.lower().endswith(SCAN_SUFFIXES) for _, _, names in walk(path) for name in names):
        return f"; groundglass prepare {path} --write-csv cases.csv writes such a CSV of its scans, to be completed"
    return ""


def _cases_beside(path: Path) -> list[Case]:
    """Return the cases in the folder above, if it is laid out as a dataset."""
    try:
        return list(cases_in(path.absolute().parent, lambda _: None))
    except (DatasetError, OSError):
        return []


def _labels_beside(mask: Path, read: Callable[[Path], MaskLabels | None]) -> MaskLabels | None:
    """Return the labels that a dataset.json in the folder of a mask, or in the one above, states."""
    folders = (mask.absolute().parent, mask.absolute().parent.parent)
    files = (file for folder in folders for file in sorted(folder.glob("[Dd]ataset.json")) if file.is_file())
    return next(map(read, files), None)


def _check_names(cases: Sequence[Case]) -> None:
    """Check that the names of cases are unique, and can be used in splits.

    Raises:
        DatasetError: They are not.
    """
    colon = next((case for case in cases if ":" in case.name), None)
    if colon is not None:
        raise DatasetError(f"{colon.image} has a colon in its name, which splits use for slices: rename it")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        first, second = [case.image for case in cases if case.name == name][:2]
        raise DatasetError(f"two cases are called {name}, {first} and {second}: name one copy's folder, or rename one")


def select(cases: Sequence[Case], patterns: Sequence[str]) -> tuple[Case, ...]:
    """Return the cases whose name matches any of the patterns, such as `volumes/*`.

    Raises:
        DatasetError: A pattern matches no case.
    """
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in cases):
            names = ", ".join(case.name for case in cases[:8])
            raise DatasetError(f"no case matches {pattern!r}; there are {names}, … ({len(cases)} in all)")
    return tuple(case for case in cases if any(fnmatch(case.name, pattern) for pattern in patterns))
