"""Dataset folders and lists as cases: an image and its mask each.

Found at a folder itself or up to two levels below it:

    tr_im.nii.gz, tr_mask.nii.gz       the publisher's stack of 100 slices, each a patient of its own
    rp_im/, rp_msk/                    the publisher's nine volumes (MedSeg dataset 2)
    images/, masks/                    pairs of one name; NNN.png: MedSeg dataset 1 as single pictures
    ct/, lesion/                       coronacases
    imagesTr/, labelsTr/               nnU-Net's layout: NAME_0000.nii.gz and NAME.nii.gz
    NAME, NAME_mask (_seg, _label, _lesion)   pairs in one folder

or listed by a CSV with the columns image, mask and, if known, patient; paths are relative to the CSV.
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

# Series of one patient (study 10_85902), and probably of one (29_86490 and 29_86491): never on two sides of a split.
SAME_PATIENT = {"2": "2+3", "3": "2+3", "6": "6+7", "7": "6+7"}
MEDSEG = ("slices", "stack", "volumes")  # the sources that state ground-glass and consolidation apart
FOLDERS = (
    ("images", "masks", "pairs"),
    ("rp_im", "rp_msk", "volumes"),
    ("ct", "lesion", "coronacases"),
    ("imagesTr", "labelsTr", "pairs"),
)
SCANS = (".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".jpg", ".jpeg")
_DATASET1 = re.compile(r"\d{3}\.png")
_MASK = re.compile(r"(.+)[_-](mask|seg|label|lesion)s?$")
RESERVED = (*MEDSEG, "coronacases", "pairs")
_HINT = "expected one of the layouts of docs/data.md, there or up to two levels below, or a CSV with image,mask,patient"


@dataclass(frozen=True)
class Case:
    """An image and its reference mask.

    Attributes:
        name: SOURCE/ID, such as `volumes/4`; what patterns of cases match.
        patient: Cases with the same patient stay on one side of a split.
        image: File of the CT.
        lesion: File of the lesion labels, on the same grid.
        strangers: The file is a stack of slices of different patients.
    """

    name: str
    patient: str
    image: Path
    lesion: Path
    unrelated_slices: bool = False

    @property
    def source(self) -> str:
        """Which collection it belongs to: `slices`, `stack`, `volumes`, `coronacases`, `pairs`, or a CSV's name."""
        return self.name.split("/")[0]


def _identity(path: Path) -> str:
    """A file's name without what says its format."""
    lower = path.name.lower()
    suffix = next((suffix for suffix in SCANS if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _scans(folder: Path) -> dict[str, Path]:
    """{identity: file} of a folder's scans, in natural order."""
    files = [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SCANS) and path.is_file() and not path.name.startswith(".")
    ]
    found: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (len(path.name), path.name)):
        if _identity(path) in found:
            raise DatasetError(f"{folder} holds {path.name} and {found[_identity(path)].name}: keep one of them")
        found[_identity(path)] = path
    return found


def _pairs(folder: Path, images: str, masks: str, source: str) -> Iterator[Case]:
    lesions, scans = _scans(folder / masks), _scans(folder / images)
    if images == "images" and scans and all(_DATASET1.fullmatch(image.name) for image in scans.values()):
        source = "slices"
    for name, image in scans.items():
        identity = name.removesuffix("_0000") if images == "imagesTr" else name
        if identity not in lesions:
            raise DatasetError(
                f"{image} has no mask: expected {folder / masks / identity}.*; add it, or take the image out"
            )
        patient = SAME_PATIENT.get(identity, identity) if source == "volumes" else identity
        yield Case(f"{source}/{identity}", f"{source}/{patient}", image, lesions[identity])


def _named_pairs(folder: Path) -> Iterator[Case]:
    scans = _scans(folder)
    for name, lesion in scans.items():
        match = _MASK.match(name)
        if match and match[1] in scans:
            yield Case(f"pairs/{match[1]}", f"pairs/{match[1]}", scans[match[1]], lesion)


def _cases_at(folder: Path) -> Iterator[Case]:
    if (folder / "tr_im.nii.gz").is_file():
        image, lesion = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
        if not lesion.is_file():
            raise DatasetError(f"{image} has no mask: expected {lesion}")
        yield Case("stack/tr", "stack/tr", image, lesion, unrelated_slices=True)
    for images, masks, source in FOLDERS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            yield from _pairs(folder, images, masks, source)
    yield from _named_pairs(folder)


def _listed(path: Path) -> Iterator[Case]:
    """The cases of a CSV; a row without a patient is a patient of its own."""
    if path.stem in RESERVED:
        raise DatasetError(f"{path} has the name of a public dataset: call it otherwise, its name becomes the source")
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
    unique = len({_identity(image) for image in images}) == len(images)
    for line, (row, image) in enumerate(zip(rows, images, strict=True), start=2):
        lesion = path.parent / row["mask"]
        for file in (image, lesion):
            if not file.is_file():
                raise DatasetError(f"{path}, line {line}: {file} is no file; paths are relative to the CSV")
        identity = _identity(image) if unique else f"{image.parent.name}-{_identity(image)}"
        name = f"{path.stem}/{identity}"
        yield Case(name, f"{path.stem}/{row['patient']}" if row.get("patient") else name, image, lesion)


def find_cases(*places: Path) -> tuple[Case, ...]:
    """List the cases of every known layout at or below some folders, and of every CSV.

    Raises:
        DatasetError: A place holds no case, an image has no mask, or two cases share a name.
    """
    cases: list[Case] = []
    for place in places:
        if place.is_file() and place.suffix.lower() == ".csv":
            found = list(_listed(place))
        elif place.is_dir():
            folders = [place, *sorted(place.glob("*/")), *sorted(place.glob("*/*/"))]
            found = [case for folder in folders for case in _cases_at(folder)]
        else:
            raise DatasetError(f"{place} is no folder and no CSV: {_HINT}")
        if not found:
            raise DatasetError(f"{place} holds no dataset: {_HINT}")
        cases += found
    colon = next((case for case in cases if ":" in case.name), None)
    if colon is not None:
        raise DatasetError(f"{colon.image} has a colon in its name, which splits use for slices: rename it")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        first, second = [case.image for case in cases if case.name == name][:2]
        raise DatasetError(f"{name} is there twice, {first} and {second}: name one copy's folder, or rename one")
    return tuple(cases)


def select(cases: Sequence[Case], patterns: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose name matches any of the patterns, such as `volumes/*`.

    Raises:
        DatasetError: A pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in cases):
            names = ", ".join(case.name for case in cases[:8])
            raise DatasetError(f"no case matches {pattern!r}; there are {names}, … ({len(cases)} in all)")
    return tuple(case for case in cases if any(fnmatch(case.name, pattern) for pattern in patterns))
