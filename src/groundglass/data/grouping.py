"""Patient groups of a prepared folder: the patients that the dataset states, joined where slices show one anatomy."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from groundglass.data.case import Case
from groundglass.data.duplicates import SimilarSlices, closest_pairs, join
from groundglass.data.overview import draw_pairs
from groundglass.data.prepared import Manifest, PreparedCase, SimilarSliceNames, read_slices
from groundglass.data.slices import Slices
from groundglass.files import write_atomic

_SAME_IMAGE = "the same image as"


def stated_groups(case: Case, numbers: Sequence[int]) -> tuple[str, ...]:
    """Return the patient of each slice as the dataset states it: each of a stack of unrelated slices is a patient."""
    return tuple(f"{case.patient}-{number}" if case.unrelated_slices else case.patient for number in numbers)


def group_patients(folder: Path, manifest: Manifest) -> Manifest:
    """Join the patients whose slices are near-duplicates or whose images are identical, and draw the closest pairs.

    Args:
        folder: A prepared folder whose cases are all cut.
        manifest: The manifest of the folder.

    Returns:
        The complete manifest: with groups, closest pairs and notes on identical images.

    Raises:
        DatasetError: A file does not fit the manifest.
        OutputError: The picture of the closest pairs cannot be written.
    """
    stated = [case.model_copy(update={"group": stated_groups(case.case, case.number)}) for case in manifest.cases]
    slices = read_slices(folder, manifest.model_copy(update={"cases": tuple(stated)}))
    pairs = closest_pairs(slices.hu, slices.patient)
    copies = _identical_images(stated)
    groups = join(slices.patient, [*pairs, *(_first_slices(slices, case, first) for case, first in copies.items())])
    if pairs:
        buffer = io.BytesIO()
        draw_pairs(slices, pairs).save(buffer, "PNG")
        write_atomic(folder / "closest-pairs.png", buffer.getvalue())

    cases = []
    for case in stated:
        notes = tuple(note for note in case.notes if not note.startswith(_SAME_IMAGE))
        if case.name in copies:
            notes += (f"{_SAME_IMAGE} {copies[case.name]}",)
        group = tuple(groups[slices.case == case.name].tolist())
        cases.append(case.model_copy(update={"group": group, "notes": notes}))
    update = {"cases": tuple(cases), "pairs": _named(pairs, slices), "complete": True}
    return manifest.model_copy(update=update)


def _identical_images(cases: Sequence[PreparedCase]) -> dict[str, str]:
    """Return {case: the first case whose image holds the same numbers} for all but the first of them."""
    first_with: dict[str, str] = {}
    for case in cases:
        if case.number:
            first_with.setdefault(case.content_sha256, case.name)
    return {
        case.name: first_with[case.content_sha256]
        for case in cases
        if case.number and first_with[case.content_sha256] != case.name
    }


def _first_slices(slices: Slices, case: str, first: str) -> SimilarSlices:
    """Return the first slices of two cases with identical images as a pair."""
    i, j = (int(np.flatnonzero(slices.case == name)[0]) for name in (first, case))
    return SimilarSlices(i, j, 1.0, mirrored=False)


def _named(pairs: Sequence[SimilarSlices], slices: Slices) -> tuple[SimilarSliceNames, ...]:
    """Return pairs of slices by name."""
    names = slices.name.tolist()
    return tuple(
        SimilarSliceNames(
            first=names[pair.first],
            second=names[pair.second],
            similarity=round(pair.similarity, 4),
            mirrored=pair.mirrored,
        )
        for pair in pairs
    )
