"""A prepared folder: slices cut once and stored without loss, and a manifest that describes them.

PREPARED/
    manifest.json           the settings; for each case the sha256 of its files, its patients, intensities and slices
    levels/CASE.png         the slices of a case one below the other: 8-bit grey levels, or HU + 2048 in 16 bits
    labels/CASE.png         their labels
    lungs/CASE.png          where lung is
    second/CASE.png         where a second reader marked lesion, if there is one
    closest-pairs.png       the most similar slices of different patients, to be checked by eye
"""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile
from pydantic import ValidationError

from groundglass.data.case import Case
from groundglass.data.labels import MaskLabels
from groundglass.data.slices import NOT_READ, GreyLevels, Slices, levels_to_hu
from groundglass.errors import DatasetError
from groundglass.files import sha256_of
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.strict_model import StrictModel, first_error

# Raised whenever the manifest, the stored files or the way slices are cut change; a folder of another format has to be
# prepared again. 1: version 0.1. 2: the manifest's key `strangers` is called `unrelated_slices`. 3: the lungs are found
# by a network, and the windows of grey levels estimated with them. 4: the lungs and a second reader's masks are stored.
# 5: pixels that are no squares are cut in proportion, and volumes that were stored on their side upright.
FORMAT = 5


class PreparedCase(StrictModel):
    """One case of a prepared folder; `number`, `group`, `slope` and `intercept` have one entry for each slice.

    Attributes:
        name: SOURCE/ID.
        image: File of the CT.
        mask: File of the lesion labels.
        image_sha256: SHA-256 of the image file.
        mask_sha256: SHA-256 of the mask file.
        content_sha256: SHA-256 of the image's numbers.
        patient: The patient as the layout or the list of the dataset states it.
        unrelated_slices: Whether the file is a stack of slices of different patients.
        kind: Kind of the file's intensities.
        calibrated: Whether they are HU as the scanner meant them.
        spacing_mm: Spacing of the file's voxels along (z, y, x) of the axial view; None for pictures.
        lesion_slices: Number of slices with lesion in the file.
        pixels: {label: number of pixels} in the file.
        number: Number of the slice, from 0 at the feet.
        group: Patient group of the slice, with near-duplicates joined.
        slope: HU = slope * level + intercept.
        intercept: In HU.
        levels_sha256: SHA-256 of levels/CASE.png.
        labels_sha256: SHA-256 of labels/CASE.png.
        lungs_sha256: SHA-256 of lungs/CASE.png.
        second_sha256: SHA-256 of second/CASE.png; None without a second reader.
        second_mask: File of the second reader's mask.
        second_mask_sha256: SHA-256 of that file; None without one, and where it was not recorded.
        notes: Remarks on the case for the user.
        labels: What the numbers of the mask mean; None where nothing states it.
        lesion_share: Share of the lung that lesion fills; None where it was not recorded.
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
    lungs_sha256: str
    second_sha256: str | None = None
    second_mask: Path | None = None
    second_mask_sha256: str | None = None
    notes: tuple[str, ...]
    labels: MaskLabels | None = None
    lesion_share: float | None = None

    @property
    def source(self) -> str:
        """The source of the case, such as `volumes`."""
        return self.name.split("/")[0]

    @property
    def spacing_between_slices_mm(self) -> float:
        """Distance from slice to slice; NaN where the slices are no neighbours."""
        return math.nan if self.spacing_mm is None or self.unrelated_slices else self.spacing_mm[0]

    @property
    def case(self) -> Case:
        """The case with its original files."""
        return Case(
            self.name, self.patient, self.image, self.mask, self.unrelated_slices, self.labels, self.second_mask
        )


class SimilarSliceNames(StrictModel):
    """Two similar slices of different patients by name, as the manifest lists them.

    Attributes:
        first: CASE:NUMBER of a slice.
        second: CASE:NUMBER of the other one.
        similarity: Up to 1, for equal slices.
        mirrored: Whether the second is a mirror image of the first.
    """

    first: str
    second: str
    similarity: float
    mirrored: bool


class Manifest(StrictModel):
    """The content of a prepared folder.

    Attributes:
        format: `FORMAT` of the folder.
        version: Version of groundglass that prepared it.
        size: (height, width) of every slice, the field of view letterboxed.
        field_of_view: Part of a slice that was cut out.
        lesion_slices_only: Whether slices without lesion were left out.
        complete: Whether every case is cut and grouped; if not, the next call of `prepare` continues.
        cases: The cases in the order of the dataset.
        pairs: The closest pairs of slices across patients, in descending order of similarity.
    """

    format: int = FORMAT
    version: str
    size: tuple[int, int]
    field_of_view: FieldOfView
    lesion_slices_only: bool
    complete: bool = True
    cases: tuple[PreparedCase, ...]
    pairs: tuple[SimilarSliceNames, ...] = ()


def png_path(folder: Path, subfolder: str, case: str) -> Path:
    """Return the file with one kind of images of a case: "levels", "labels", "lungs" or "second"."""
    return folder / subfolder / f"{case}.png"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared folder, complete or not.

    A folder of another `FORMAT`, such as one prepared by version 0.1, is refused: it has to be removed and prepared
    again.

    Raises:
        DatasetError: There is no manifest, it is damaged, or the folder is of another format.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise DatasetError(f"{folder} is no prepared folder (no manifest.json): groundglass prepare DATA -o {folder}")
    text = path.read_bytes()
    _check_format(folder, text)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DatasetError(f"{path} is damaged: {first_error(error)}; remove {folder} and prepare again") from error


def _check_format(folder: Path, text: bytes) -> None:
    """Check the format before anything else: the keys of another format would look like damage.

    Raises:
        DatasetError: The folder is of another format.
    """
    try:
        found = json.loads(text).get("format", FORMAT)
    except (ValueError, AttributeError, RecursionError):  # not JSON, or no object: the validation describes the damage
        return
    if found != FORMAT:
        version = "an older" if found in range(1, FORMAT) else "another"
        raise DatasetError(
            f"{folder} was prepared by {version} version of groundglass (format {found}, expected {FORMAT}): remove it "
            "and prepare again"
        )


def read_complete_manifest(folder: Path) -> Manifest:
    """Read the manifest of a prepared folder that is complete.

    Raises:
        DatasetError: `read_manifest` fails, or `prepare` was interrupted.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise DatasetError(f"{folder} is unfinished: call groundglass prepare again, it continues where it stopped")
    return manifest


def read_prepared(folder: Path) -> tuple[Manifest, Slices]:
    """Read the manifest of a prepared folder and all its slices.

    Raises:
        DatasetError: The folder is not complete, or a file does not fit the manifest.
    """
    manifest = read_complete_manifest(folder)
    return manifest, read_slices(folder, manifest)


def read_slices(folder: Path, manifest: Manifest) -> Slices:
    """Read all slices of a prepared folder, and check each file against the manifest.

    Raises:
        DatasetError: A file does not fit the manifest, or there is no slice.
    """
    cases = [case for case in manifest.cases if case.number]
    if not cases:
        raise DatasetError(f"{folder} holds no slice that shows lung: check the cases with groundglass segment")
    hu, labels, lungs, second = [], [], [], []
    for case in cases:
        path = partial(png_path, folder, case=case.name)
        levels = _read_png(path("levels"), manifest.size, case.levels_sha256, folder)
        hu.append(levels_to_hu(levels, np.array(case.slope), np.array(case.intercept)))
        labels.append(_read_png(path("labels"), manifest.size, case.labels_sha256, folder).astype(np.uint8))
        lungs.append(_read_png(path("lungs"), manifest.size, case.lungs_sha256, folder) > 0)
        second.append(
            (_read_png(path("second"), manifest.size, case.second_sha256, folder) > 0).astype(np.uint8)
            if case.second_sha256 is not None
            else np.full(labels[-1].shape, NOT_READ, dtype=np.uint8)
        )
    return Slices(
        hu=np.concatenate(hu),
        labels=np.concatenate(labels),
        case=np.concatenate([[case.name] * len(case.number) for case in cases]),
        number=np.concatenate([case.number for case in cases]),
        patient=np.concatenate([case.group for case in cases]),
        spacing_mm=np.concatenate([[case.spacing_between_slices_mm] * len(case.number) for case in cases]),
        lungs=np.concatenate(lungs),
        second_reader=np.concatenate(second) if any(case.second_sha256 for case in cases) else None,
    )


def _read_png(path: Path, size: tuple[int, int], sha256: str, folder: Path) -> GreyLevels:
    """Read the (n, *size) slices of a PNG.

    Raises:
        DatasetError: The file is missing, or its SHA-256 is another one.
    """
    if not path.is_file() or sha256_of(path) != sha256:
        raise DatasetError(
            f"{path} {'does not fit the manifest' if path.is_file() else 'is missing'}: "
            f"remove {folder} and prepare again"
        )
    with PngImageFile(path) as image:  # not Image.open, which takes a long scan's slices for a decompression bomb
        return np.asarray(image).reshape(-1, *size)
