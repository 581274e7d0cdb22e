"""A dataset folder as a list of cases.

Four layouts are known, at the folder itself or up to two levels below it:

    tr_im.nii.gz, tr_mask.nii.gz       the publisher's stack of 100 slices, each a patient of its own
    rp_im/, rp_msk/                    the publisher's nine volumes (dataset 2)
    images/, masks/                    dataset 1 as single pictures
    ct/, lesion/                       coronacases
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from groundglass.errors import DatasetError

# Series of one patient (study 10_85902), and probably of one (29_86490 and 29_86491): never on two sides of a split.
SAME_PATIENT = {"2": "2+3", "3": "2+3", "6": "6+7", "7": "6+7"}


@dataclass(frozen=True)
class Case:
    """An image and its reference mask.

    Attributes:
        name: SOURCE/ID, such as `volumes/4`; what a configuration's patterns match.
        patient: Cases with the same patient stay on one side of a split.
        image: File of the CT.
        lesion: File of the lesion labels, on the same grid.
        strangers: The file is a stack of slices of different patients.
    """

    name: str
    patient: str
    image: Path
    lesion: Path
    strangers: bool = False

    @property
    def source(self) -> str:
        """Which collection it belongs to: `slices`, `stack`, `volumes` or `coronacases`."""
        return self.name.split("/")[0]


def _identity(path: Path) -> str:
    return path.name.split(".")[0]


def _pairs(folder: Path, images: str, masks: str, source: str) -> Iterator[Case]:
    for image in sorted((folder / images).glob("*.*"), key=lambda path: (len(_identity(path)), path.name)):
        lesion = folder / masks / image.name
        if not lesion.is_file():
            raise DatasetError(f"{image} has no mask: expected {lesion}; add it, or take the image out")
        identity = _identity(image)
        patient = SAME_PATIENT.get(identity, identity) if source == "volumes" else identity
        yield Case(f"{source}/{identity}", f"{source}/{patient}", image, lesion)


def _cases_at(folder: Path) -> Iterator[Case]:
    if (folder / "tr_im.nii.gz").is_file():
        image, lesion = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
        yield Case("stack/tr", "stack/tr", image, lesion, strangers=True)
    for images, masks, source in (
        ("images", "masks", "slices"),
        ("rp_im", "rp_msk", "volumes"),
        ("ct", "lesion", "coronacases"),
    ):
        if (folder / images).is_dir() and (folder / masks).is_dir():
            yield from _pairs(folder, images, masks, source)


def find_cases(folder: Path) -> tuple[Case, ...]:
    """List the cases of every known layout at or below a folder.

    Raises:
        DatasetError: No layout was found, an image has no mask, or two cases share a name.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder: expected a dataset folder (see docs/data.md)")
    places = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
    cases = tuple(case for place in places for case in _cases_at(place))
    if not cases:
        raise DatasetError(
            f"{folder} holds no dataset: expected tr_im.nii.gz, or rp_im/ and rp_msk/, or images/ and masks/, "
            "or ct/ and lesion/, there or up to two levels below (see docs/data.md)"
        )
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{folder} holds {twice[0]} twice: name the folder of one copy")
    return cases


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
