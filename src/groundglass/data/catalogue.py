"""Find the cases of dataset folders and lists: an image and its mask each.

A dataset folder, or a folder up to two levels below it, holds one of these layouts:

    tr_im.nii.gz, tr_mask.nii.gz              MedSeg dataset 1 as published: a stack of 100 slices of different patients
    rp_im/, rp_msk/                           MedSeg dataset 2 as published: nine volumes
    images/, masks/                           pairs with equal names; if called NNN.png, MedSeg dataset 1 as pictures
    ct/, lesion/                              coronacases
    imagesTr/, labelsTr/                      the layout of nnU-Net: NAME_0000.nii.gz and NAME.nii.gz
    NAME, NAME_mask (_seg, _label, _lesion)   pairs in one folder

A list is a CSV with the columns image, mask and, if known, patient; its paths are relative to the CSV.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from groundglass.errors import DatasetError

# Volumes 2 and 3 are series of one patient (study 10_85902), 6 and 7 probably are (29_86490 and 29_86491): each pair
# stays in one part of a split.
SAME_PATIENT = {"2": "2+3", "3": "2+3", "6": "6+7", "7": "6+7"}
MEDSEG_SOURCES = ("slices", "stack", "volumes")  # their masks label ground-glass and consolidation separately
# Folder of the images, folder of the masks, source.
PAIRED_FOLDERS = (
    ("images", "masks", "pairs"),
    ("rp_im", "rp_msk", "volumes"),
    ("ct", "lesion", "coronacases"),
    ("imagesTr", "labelsTr", "pairs"),
)
SCAN_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".jpg", ".jpeg")
_DATASET1_PICTURE = re.compile(r"\d{3}\.png")
_MASK_NAME = re.compile(r"(.+)[_-](mask|seg|label|lesion)s?$")
RESERVED_SOURCES = (*MEDSEG_SOURCES, "coronacases", "pairs")
_EXPECTED = (
    "expected one of the layouts of docs/data.md, there or up to two levels below, or a CSV with image,mask,patient"
)


@dataclass(frozen=True)
class Case:
    """An image and its reference mask.

    Attributes:
        name: SOURCE/ID, such as `volumes/4`; patterns of cases match it.
        patient: Cases of the same patient stay in one part of a split.
        image: File of the CT.
        mask: File of the lesion labels, on the same grid.
        unrelated_slices: Whether the file is a stack of slices of different patients.
    """

    name: str
    patient: str
    image: Path
    mask: Path
    unrelated_slices: bool = False

    @property
    def source(self) -> str:
        """`slices`, `stack`, `volumes`, `coronacases`, `pairs`, or the name of a CSV."""
        return self.name.split("/")[0]


def _identifier(path: Path) -> str:
    """Return the name of a file without the suffix of its format."""
    lower = path.name.lower()
    suffix = next((suffix for suffix in SCAN_SUFFIXES if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _scans_in(folder: Path) -> dict[str, Path]:
    """Return {identifier: file} of the scans in a folder, in natural order."""
    files = [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SCAN_SUFFIXES) and path.is_file() and not path.name.startswith(".")
    ]
    scans: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (len(path.name), path.name)):
        first = scans.setdefault(_identifier(path), path)
        if first is not path:
            raise DatasetError(f"{folder} holds {path.name} and {first.name}: keep one of them")
    return scans


def _cases_of_paired_folders(folder: Path, images: str, masks: str, source: str) -> Iterator[Case]:
    """Yield the cases of a folder of images and a folder of masks with equal names."""
    mask_files, image_files = _scans_in(folder / masks), _scans_in(folder / images)
    names = [image.name for image in image_files.values()]
    if images == "images" and names and all(map(_DATASET1_PICTURE.fullmatch, names)):
        source = "slices"
    for name, image in image_files.items():
        identifier = name.removesuffix("_0000") if images == "imagesTr" else name
        if identifier not in mask_files:
            raise DatasetError(
                f"{image} has no mask: expected {folder / masks / identifier}.*; add it, or take the image out"
            )
        patient = SAME_PATIENT.get(identifier, identifier) if source == "volumes" else identifier
        yield Case(f"{source}/{identifier}", f"{source}/{patient}", image, mask_files[identifier])


def _cases_of_named_pairs(folder: Path) -> Iterator[Case]:
    """Yield the cases of files called NAME and NAME_mask in one folder."""
    scans = _scans_in(folder)
    for name, mask in scans.items():
        match = _MASK_NAME.match(name)
        if match and match[1] in scans:
            yield Case(f"pairs/{match[1]}", f"pairs/{match[1]}", scans[match[1]], mask)


def _cases_in(folder: Path) -> Iterator[Case]:
    """Yield the cases of every layout that a folder itself holds."""
    if (folder / "tr_im.nii.gz").is_file():
        image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
        if not mask.is_file():
            raise DatasetError(f"{image} has no mask: expected {mask}")
        yield Case("stack/tr", "stack/tr", image, mask, unrelated_slices=True)
    for images, masks, source in PAIRED_FOLDERS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            yield from _cases_of_paired_folders(folder, images, masks, source)
    yield from _cases_of_named_pairs(folder)


def _cases_of_list(path: Path) -> Iterator[Case]:
    """Yield the cases of a CSV; a row without a patient is a patient of its own."""
    if path.stem in RESERVED_SOURCES:
        raise DatasetError(
            f"{path} has the name of a public dataset: give it another name, which becomes the source of its cases"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            rows = [{name: (row[key] or "").strip() for name, key in zip(columns, row, strict=False)} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a CSV: {error}") from error
    if not {"image", "mask"} <= set(columns) <= {"image", "mask", "patient"}:
        raise DatasetError(f"{path} has the columns {', '.join(columns)}: expected image,mask and, if known, patient")
    images = [path.parent / row["image"] for row in rows]
    unique = len({_identifier(image) for image in images}) == len(images)
    for line, (row, image) in enumerate(zip(rows, images, strict=True), start=2):
        mask = path.parent / row["mask"]
        for file in (image, mask):
            if not file.is_file():
                raise DatasetError(f"{path}, line {line}: {file} is no file; paths are relative to the CSV")
        identifier = _identifier(image) if unique else f"{image.parent.name}-{_identifier(image)}"
        name = f"{path.stem}/{identifier}"
        yield Case(name, f"{path.stem}/{row['patient']}" if row.get("patient") else name, image, mask)


def find_cases(*paths: Path) -> tuple[Case, ...]:
    """List the cases of every known layout in dataset folders, and of lists.

    Args:
        *paths: Folders, with layouts in them or up to two levels below, and CSVs.

    Raises:
        DatasetError: A path holds no case, an image has no mask, or two cases share a name.
    """
    cases: list[Case] = []
    for path in paths:
        if path.is_file() and path.suffix.lower() == ".csv":
            found = list(_cases_of_list(path))
        elif path.is_dir():
            folders = [path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))]
            found = [case for folder in folders for case in _cases_in(folder)]
        else:
            raise DatasetError(f"{path} is no folder and no CSV: {_EXPECTED}")
        if not found:
            raise DatasetError(f"{path} holds no dataset: {_EXPECTED}")
        cases += found
    colon = next((case for case in cases if ":" in case.name), None)
    if colon is not None:
        raise DatasetError(f"{colon.image} has a colon in its name, which splits use for slices: rename it")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        first, second = [case.image for case in cases if case.name == name][:2]
        raise DatasetError(f"two cases are called {name}, {first} and {second}: name one copy's folder, or rename one")
    return tuple(cases)


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
