"""A prepared folder: slices cut once, lossless, with a manifest that says what they are.

PREPARED/
    manifest.json           the settings; of each case its files' sha256, patient groups, intensities and slices
    levels/CASE.png         its slices one below the other: 8-bit grey levels, or HU + 2048 in 16 bits
    labels/CASE.png         their labels
    closest-pairs.png       the most alike slices of different patients, for a person to look at
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile
from pydantic import BaseModel, ConfigDict, ValidationError

from groundglass.data.catalogue import Case
from groundglass.data.slices import Levels, Slices, levels_to_hu
from groundglass.errors import DatasetError
from groundglass.files import sha256_of
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.strict_model import first_error

FORMAT = 1  # raise it when what is stored, or how it is cut, changes


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PreparedCase(_Record):
    """One case of a prepared folder; `number`, `group`, `slope` and `intercept` have an entry a slice.

    Attributes:
        name: SOURCE/ID.
        image: The CT's file.
        mask: The reference's file.
        image_sha256: Of that file.
        mask_sha256: Of that file.
        content_sha256: Of the image's numbers.
        patient: As the dataset's layout or list states it.
        strangers: Whether the file is a stack of slices of different patients.
        kind: Of the file's intensities.
        calibrated: Whether they are HU as the scanner meant them.
        spacing_mm: Of the file's voxels, (z, y, x) of the axial view; None for pictures.
        lesion_slices: In the file.
        pixels: {label: pixels} in the file.
        number: The slice's number, from 0 at the feet.
        group: Its patient group, near-duplicates joined.
        slope: HU = slope * level + intercept.
        intercept: In HU.
        levels_sha256: Of levels/CASE.png.
        labels_sha256: Of labels/CASE.png.
        notes: What a person should know of the case.
    """

    name: str
    image: Path
    mask: Path
    image_sha256: str
    mask_sha256: str
    content_sha256: str
    patient: str
    unrelated_slices: bool
    kind: IntensityKind
    calibrated: bool
    spacing_mm: tuple[float, float, float] | None
    lesion_slices: int
    pixels: dict[int, int]
    number: tuple[int, ...]
    group: tuple[str, ...]
    slope: tuple[float, ...]
    intercept: tuple[float, ...]
    levels_sha256: str
    labels_sha256: str
    notes: tuple[str, ...]

    @property
    def source(self) -> str:
        """The collection that it belongs to."""
        return self.name.split("/")[0]

    @property
    def spacing_between_slices_mm(self) -> float:
        """NaN where the slices are no neighbours."""
        return math.nan if self.spacing_mm is None or self.unrelated_slices else self.spacing_mm[0]

    @property
    def case(self) -> Case:
        """The case with its original files."""
        return Case(self.name, self.patient, self.image, self.mask, self.unrelated_slices)


class SimilarCases(_Record):
    """Two slices of different patients, as CASE:NUMBER, and how alike they are."""

    first: str
    second: str
    similarity: float
    mirrored: bool


class Manifest(_Record):
    """What a prepared folder holds.

    Attributes:
        format: Of this layout and of the way slices are cut.
        version: Of groundglass.
        size: (height, width) of every slice, the field of view letterboxed.
        field_of_view: What of a slice is seen.
        lesion_slices_only: Slices without lesion are left out.
        complete: False where a call was interrupted; the next one goes on.
        cases: In the order of the dataset.
        pairs: The closest pairs of slices across patients, most alike first.
    """

    format: int = FORMAT
    version: str
    size: tuple[int, int]
    field_of_view: FieldOfView
    lesion_slices_only: bool
    complete: bool = True
    cases: tuple[PreparedCase, ...]
    pairs: tuple[SimilarCases, ...] = ()


def png_of(folder: Path, part: str, case: str) -> Path:
    """Where `part` ("levels" or "labels") of a case is kept."""
    return folder / part / f"{case}.png"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder, whole or not.

    Raises:
        DatasetError: There is none, it is damaged, or of another format.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DatasetError(f"{folder} is no prepared folder (no manifest.json): groundglass prepare DATA -o {folder}")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DatasetError(f"{path} is damaged: {first_error(error)}; remove {folder} and prepare again") from error
    if manifest.format != FORMAT:
        raise DatasetError(f"{folder} is of format {manifest.format}, expected {FORMAT}: remove it and prepare again")
    return manifest


def read_complete(folder: Path) -> Manifest:
    """The manifest of a prepared folder that is whole.

    Raises:
        DatasetError: As `read_manifest`, or `prepare` was interrupted.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise DatasetError(f"{folder} is unfinished: call groundglass prepare again, it goes on where it stopped")
    return manifest


def read_prepared(folder: Path) -> tuple[Manifest, Slices]:
    """A prepared folder's manifest and all its slices.

    Raises:
        DatasetError: The folder is not whole, or a file does not fit its manifest.
    """
    manifest = read_complete(folder)
    return manifest, read_slices(folder, manifest)


def read_slices(folder: Path, manifest: Manifest) -> Slices:
    """All slices of a prepared folder, each file held against the manifest.

    Raises:
        DatasetError: A file does not fit its manifest, or there is no slice.
    """
    cases = [case for case in manifest.cases if case.number]
    if not cases:
        raise DatasetError(f"{folder} holds no slice that shows lung: check the cases with groundglass segment")
    hu, labels = [], []
    for case in cases:
        levels = _read(folder, "levels", case, manifest.size, case.levels_sha256)
        hu.append(levels_to_hu(levels, np.array(case.slope), np.array(case.intercept)))
        labels.append(_read(folder, "labels", case, manifest.size, case.labels_sha256).astype(np.uint8))
    return Slices(
        np.concatenate(hu),
        np.concatenate(labels),
        np.concatenate([[case.name] * len(case.number) for case in cases]),
        np.concatenate([case.number for case in cases]),
        np.concatenate([case.group for case in cases]),
        np.concatenate([[case.spacing_between_slices_mm] * len(case.number) for case in cases]),
    )


def _read(folder: Path, part: str, case: PreparedCase, size: tuple[int, int], expected: str) -> Levels:
    path = png_of(folder, part, case.name)
    if not path.is_file() or sha256_of(path) != expected:
        raise DatasetError(
            f"{path} {'does not fit the manifest' if path.is_file() else 'is not there'}: "
            f"remove {folder} and prepare again"
        )
    with PngImageFile(path) as image:  # not Image.open, which takes a long scan's slices for a decompression bomb
        return np.asarray(image).reshape(-1, *size)
