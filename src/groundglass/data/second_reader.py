"""Masks of a second reader, for cases that two people segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundglass.data.case import Case
from groundglass.data.layouts import scans_in
from groundglass.errors import DatasetError


def with_second_reader(cases: Sequence[Case], folder: Path) -> tuple[Case, ...]:
    """Add to each case the mask of a second reader, if a folder holds one of its name.

    Args:
        cases: The cases of a dataset.
        folder: Masks named like the cases: ID.nii.gz for the case SOURCE/ID.

    Raises:
        DatasetError: The folder holds no such mask, or a name fits the cases of two sources.
    """
    masks = {name: path.resolve() for name, path in scans_in(folder).items()} if folder.is_dir() else {}
    named = [case for case in cases if case.name.partition("/")[2] in masks]
    if not named:
        raise DatasetError(f"{folder} holds no mask with the name of a case, such as {cases[0].name.partition('/')[2]}")
    sources = sorted({case.source for case in named})
    if len(sources) > 1:
        raise DatasetError(f"{folder} names cases of {' and '.join(sources)}: prepare them one after the other")
    return tuple(replace(case, second_mask=masks.get(case.name.partition("/")[2])) for case in cases)
