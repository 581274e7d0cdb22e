"""Join the pieces of a series that was given several SeriesInstanceUIDs, as some exports and anonymisers do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from groundglass.io.dicom_grid import SAME_SPACING, is_even_stack, is_same_orientation
from groundglass.io.dicom_header import DicomSlice, kernel_of, text_value, thickness_of
from groundglass.io.dicom_kind import recognise_kind

# Identifiers that tell scans apart. One that differs in every image was made up for each, and tells nothing.
_IDENTIFIERS = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber")
_FEWEST_MADE_UP = 3  # values that all differ, from which on they count as made up


@dataclass(frozen=True, eq=False)
class SeriesPiece:
    """The slices of one SeriesInstanceUID, or of several that were joined.

    Attributes:
        uids: The UIDs; empty ones if they are not stated.
        slices: The slices.
    """

    uids: tuple[str, ...]
    slices: tuple[DicomSlice, ...]


def join_pieces(pieces: Sequence[SeriesPiece]) -> list[SeriesPiece]:
    """Join pieces of one slice each that belong to one scan, and larger ones that continue each other.

    Pieces of one slice are joined if study, frame of reference, series number, matrix, orientation, pixel spacing,
    kernel and the kind of image agree. Larger pieces have to state one series number too, and to form an even grid
    together.
    """
    whole = [piece for piece in pieces if len(piece.slices) > 1]
    for similar in _similar([piece for piece in pieces if len(piece.slices) == 1]):
        telling = tuple(name for name in _IDENTIFIERS if not _is_made_up(name, similar))
        whole += [_join(group) for group in _partition(similar, partial(_values, names=telling))]
    groups = (group for similar in _similar(whole) for group in _partition(similar, _identifiers))
    return [piece for group in groups for piece in _continued(group)]


def _continued(pieces: list[SeriesPiece]) -> list[SeriesPiece]:
    """Join pieces of the same identifiers if they state a series number and form an even grid together."""
    whole = _join(pieces)
    is_one = len(pieces) > 1 and _values(whole, ("SeriesNumber",)) != ("",) and is_even_stack(whole.slices)
    return [whole] if is_one else pieces


def _join(pieces: Sequence[SeriesPiece]) -> SeriesPiece:
    if len(pieces) == 1:
        return pieces[0]
    uids = tuple(uid for piece in pieces for uid in piece.uids)
    return SeriesPiece(uids, tuple(dicom_slice for piece in pieces for dicom_slice in piece.slices))


class HasSlices(Protocol):
    """Anything that consists of slices."""

    @property
    def slices(self) -> tuple[DicomSlice, ...]:
        """The slices."""


def is_alike(one: HasSlices, other: HasSlices) -> bool:
    """Return whether the images of two series may belong to one scan by all but their identifiers."""
    return _description(one) == _description(other) and _fits(one.slices[0], other.slices[0])


def _similar(pieces: Iterable[SeriesPiece]) -> list[list[SeriesPiece]]:
    """Group pieces whose images may belong to one scan by all but their identifiers."""
    groups: list[list[SeriesPiece]] = []
    for key_group in _partition(list(pieces), _description):
        begun = len(groups)
        for piece in key_group:
            fitting = (group for group in groups[begun:] if _fits(piece.slices[0], group[0].slices[0]))
            group = next(fitting, None)
            if group is None:
                groups.append([piece])
            else:
                group.append(piece)
    return groups


def _description(piece: HasSlices) -> tuple[object, ...]:
    first = piece.slices[0]
    header, kind = first.header, recognise_kind(first.header)
    texts = (text_value(header, name) for name in ("PatientID", "Modality", "SeriesDescription"))
    reconstruction = round(thickness_of(header) or 0.0, 1), kernel_of(header)
    return first.size, first.frame is None, kind.rejection_reason, kind.is_derived, *reconstruction, *texts


def _fits(one: DicomSlice, other: DicomSlice) -> bool:
    if not is_same_orientation(one.directions, other.directions):
        return False
    if one.spacing_mm is None or other.spacing_mm is None:
        return one.spacing_mm is other.spacing_mm
    return bool(np.allclose(one.spacing_mm, other.spacing_mm, rtol=SAME_SPACING))


def _is_made_up(name: str, pieces: Sequence[SeriesPiece]) -> bool:
    values = {_values(piece, (name,)) for piece in pieces}
    return len(values) == len(pieces) >= _FEWEST_MADE_UP


def _identifiers(piece: SeriesPiece) -> tuple[str, ...]:
    return _values(piece, _IDENTIFIERS)


def _values(piece: SeriesPiece, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(text_value(piece.slices[0].header, name) for name in names)


def _partition(
    pieces: Sequence[SeriesPiece], key_of: Callable[[SeriesPiece], tuple[object, ...]]
) -> list[list[SeriesPiece]]:
    groups: dict[tuple[object, ...], list[SeriesPiece]] = {}
    for piece in pieces:
        groups.setdefault(key_of(piece), []).append(piece)
    return list(groups.values())
