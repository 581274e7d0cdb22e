"""Find the cases of dataset folders and lists: an image and its mask each.

A folder holds one of the layouts of `layouts`, itself or up to four levels below, or a list in JSON (`json_list`); a
list is such a file or a CSV (`case_list`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from groundglass.data.case import MEDSEG_SOURCES, SCAN_SUFFIXES, Case
from groundglass.data.case_list import read_case_list
from groundglass.data.json_list import json_lists_in, read_json_list
from groundglass.data.label_files import labels_beside, labels_in, unread_label_files
from groundglass.data.labels import MaskLabels, describe
from groundglass.data.layouts import advice_on_classes, cases_in, looks_like_mask
from groundglass.errors import DatasetError
from groundglass.files import walk
from groundglass.tables.reading import TABLE_SUFFIXES

_DEPTH = 4  # levels below a folder at which layouts are looked for
_EXPECTED = (
    f"expected one of the layouts of docs/data.md, there or up to {_DEPTH} levels below, or a CSV with "
    "image,mask,patient"
)
# What is said of a folder without a scan that is read, by the ends of its files' names.
_OTHER_FILES = {
    (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"): "it holds archives: unpack them",
    (".npy", ".npz"): "it holds NumPy arrays: save each image and mask as NIfTI, such as with nibabel, and masks "
    "of several channels as the number of the class (argmax)",
    (".tif", ".tiff", ".bmp", ".gif", ".webp"): "it holds pictures of other formats: save them as PNG",
    (".hdr",): "it holds headers with voxels in other files (.img): save them as NIfTI",
    (
        ".dcm",
        ".dicom",
        ".ima",
    ): "it holds DICOM: convert each series to NIfTI, such as with dcm2niix, and masks (SEG, RTSTRUCT) with 3D Slicer",
    (".h5", ".hdf5", ".mat", ".pkl", ".pt"): "it holds arrays of other programs: save each image and mask as NIfTI",
}


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
        paths: Folders, with layouts in them or up to four levels below, and CSVs.
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
    read = cache(labels_in)
    cases = [case if case.labels else replace(case, labels=labels_beside(case.mask, read)) for case in cases]
    stated = dict.fromkeys(case.labels for case in cases if case.labels and not case.labels.others_are_no_lesion)
    unread = unread_label_files(case.mask for case in cases if not case.labels and case.source not in MEDSEG_SOURCES)
    notes += [
        f"{file} is not read: if it says what the numbers of the masks mean, state it, such as --labels lesion=2"
        for file in unread
    ]
    return FoundCases(tuple(cases), (*notes, *map(describe, stated)))


def _cases_of_path(path: Path, on_note: Callable[[str], None]) -> list[Case]:
    """Return the cases of a folder or a list.

    Raises:
        DatasetError: It is neither, or is not laid out as expected.
    """
    if path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, ".txt"):
        return list(read_case_list(path, on_note))
    if path.is_file() and path.suffix.lower() == ".json":
        return list(read_json_list(path, on_note))
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder and no CSV: {_EXPECTED}")
    cases = [case for folder in _folders_of(path) for case in cases_in(folder, on_note)]
    return _named_apart(path, cases, on_note) or _cases_of_json_lists(path, on_note)


def _cases_of_json_lists(path: Path, on_note: Callable[[str], None]) -> list[Case]:
    """Return the cases of the only list in JSON in a folder, or of those in folders below it.

    Raises:
        DatasetError: A folder holds several, which may name the same images.
    """
    cases: list[Case] = []
    for folder in _folders_of(path):
        lists = json_lists_in(folder)
        if len(lists) > 1:
            raise DatasetError(f"{folder} holds several lists, {', '.join(file.name for file in lists)}: give one")
        cases += [case for file in lists for case in read_json_list(file, on_note)]
    return cases


def _folders_of(path: Path) -> Iterator[Path]:
    """Yield a folder and those below it, to `_DEPTH` levels, each once; links are followed, hidden folders left out."""
    seen = set[Path]()
    level = [path]
    for _ in range(_DEPTH + 1):
        level = [folder for folder in level if folder.resolve() not in seen]
        seen.update(folder.resolve() for folder in level)
        yield from level
        level = [f for folder in level for f in sorted(folder.glob("*/")) if not f.name.startswith(".")]


def _named_apart(path: Path, cases: list[Case], on_note: Callable[[str], None]) -> list[Case]:
    """Name pairs of equal names in several folders after these; other equal names stay, and are refused."""
    counts = Counter(case.name for case in cases)
    named: list[Case] = []
    for case in cases:
        alike = [other.image.relative_to(path).parts for other in cases if other.name == case.name]
        if case.source != "pairs" or len(alike) == 1:
            named.append(case)
            continue
        place = next(i for i, parts in enumerate(zip(*alike, strict=False)) if len(set(parts)) > 1)
        name = f"pairs/{case.image.relative_to(path).parts[place]}-{case.name.partition('/')[2]}"
        named.append(replace(case, name=name, patient=name))
    if any(count > 1 for name, count in counts.items() if name.startswith("pairs/")):
        renamed = next(new.name for old, new in zip(cases, named, strict=True) if old.name != new.name)
        on_note(
            f"cases of equal names in several folders of {path} are named after these, such as {renamed}, and taken "
            "for different patients"
        )
    return named


def _mend(path: Path) -> str:
    """Return how a folder without a known layout can be used, as the end of a message; "" if it holds no scan."""
    if not path.is_dir():
        return ""
    if any(case.image.is_relative_to(path) for case in _cases_beside(path)):
        return f"; its masks lie beside it: give {path.resolve().parent}"
    files = [folder / name for folder, _, names in walk(path) for name in names if not name.startswith(".")]
    names = [file.name.lower() for file in files]
    mends = [mend for suffixes, mend in _OTHER_FILES.items() if any(name.endswith(suffixes) for name in names)]
    if any(name.endswith(SCAN_SUFFIXES) for name in names):
        scans = [file for file in files if file.name.lower().endswith(SCAN_SUFFIXES)]
        if not any(looks_like_mask(scan, path) for scan in scans):
            mends.append(
                f"none of its {len(scans)} scans is a mask by its name or folder, and cases need masks of lesions"
            )
        command = f"groundglass prepare {path} --write-csv cases.csv"
        mends.append(f"{command} writes such a CSV of its scans, to be completed")
    return "".join(f"; {mend}" for mend in mends) + advice_on_classes(files)


def _cases_beside(path: Path) -> list[Case]:
    """Return the cases in the folder above, if it is laid out as a dataset."""
    try:
        return list(cases_in(path.absolute().parent, lambda _: None))
    except (DatasetError, OSError):
        return []


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
