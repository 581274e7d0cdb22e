"""Datasets in the Brain Imaging Data Structure: images in folders of subjects, masks in `derivatives`.

sub-01/ct/sub-01_ct.nii.gz, derivatives/NAME/sub-01/ct/sub-01_label-lesion_mask.nii.gz; sub-01/derivatives/… too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from groundglass.data.case import SCAN_SUFFIXES, Case, identifier_of
from groundglass.data.labels import NO_LESION, label_of_name
from groundglass.errors import DatasetError
from groundglass.files import walk

DERIVATIVES = "derivatives"
_SUBJECT = re.compile(r"sub-[a-zA-Z0-9]+(?=_|$)")
_ENTITIES = re.compile(r"(?:sub|ses|run)-[a-zA-Z0-9]+(?=_|$)")
_MASK = re.compile(r".*[_-](d?seg|mask|lesions?|infections?|roi|labels?)([_-](manual|auto|gt))?", re.IGNORECASE)
_LABEL = re.compile(r"label-([a-zA-Z0-9]+)")


def subject_of(identifier: str) -> str | None:
    """Return the subject that the name of a file states; None without one."""
    match = _SUBJECT.match(identifier)
    return match[0] if match else None


def cases_of_subjects(
    folder: Path,
    mask_of_lesions: Callable[[Path, Sequence[Path]], Path],
    on_note: Callable[[str], None],
) -> Iterator[Case]:
    """Yield the cases of a folder with `derivatives` in it; images without a mask of lesions are left out.

    Args:
        folder: The dataset, or the folder of a subject.
        mask_of_lesions: Returns the mask of an image of which there are several.
        on_note: Called with a sentence on what was left out.

    Raises:
        DatasetError: A mask has several images, or an image several masks.
    """
    images: dict[tuple[str, ...], list[Path]] = {}  # by subject, session and run
    masks: dict[tuple[str, ...], list[Path]] = {}
    for parent, _, names in walk(folder) if (folder / DERIVATIVES).is_dir() else ():
        is_derived = DERIVATIVES in parent.relative_to(folder).parts
        for name in names:
            identifier = identifier_of(Path(name))
            if subject_of(identifier) is None or not name.lower().endswith(SCAN_SUFFIXES):
                continue
            key = tuple(_ENTITIES.findall(identifier))
            if _MASK.fullmatch(identifier):
                if is_derived and not _is_of_lungs(identifier):
                    masks.setdefault(key, []).append(parent / name)
            elif not is_derived:
                images.setdefault(key, []).append(parent / name)
    without_mask = 0
    for key, files in images.items():
        if key not in masks:
            without_mask += 1
            continue
        name = "_".join(key)
        ct = [file for file in files if identifier_of(file).lower().endswith("_ct")] or files
        if len(ct) > 1:
            listed = ", ".join(file.name for file in ct)
            raise DatasetError(f"{masks[key][0]} has several images, {listed}: name the right one in a CSV")
        yield Case(f"pairs/{name}", f"pairs/{key[0]}", ct[0], mask_of_lesions(ct[0], masks[key]))
    if without_mask and masks:
        on_note(f"{without_mask} of {len(images)} images in {folder} have no mask of lesions, and are left out")


def _is_of_lungs(identifier: str) -> bool:
    label = _LABEL.search(identifier)
    return label is not None and label_of_name(label[1]) == NO_LESION
