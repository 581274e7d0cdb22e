"""A case of a dataset: an image and its reference mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from groundglass.data.labels import MaskLabels
from groundglass.files import sha256_of
from groundglass.io.text_header import HEADER_SUFFIXES, files_of

MEDSEG_SOURCES = ("slices", "stack", "volumes")  # their masks label ground-glass and consolidation separately
SLICER_SUFFIX = ".seg.nrrd"  # of segmentations of 3D Slicer
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
SCAN_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", *HEADER_SUFFIXES, *PICTURE_SUFFIXES)


@dataclass(frozen=True)
class Case:
    """An image and its reference mask.

    Attributes:
        name: SOURCE/ID, such as `volumes/4`; patterns of cases match it.
        patient: Cases of the same patient stay in one part of a split.
        image: File of the CT.
        mask: File of the lesion labels, on the same grid.
        unrelated_slices: Whether the file is a stack of slices of different patients.
        labels: What the numbers of the mask mean; None where nothing states it.
        second_mask: File of a second reader's mask, lesion where it is not 0, on the same slices; None without one.
    """

    name: str
    patient: str
    image: Path
    mask: Path
    unrelated_slices: bool = False
    labels: MaskLabels | None = None
    second_mask: Path | None = None

    @property
    def source(self) -> str:
        """The dataset, such as `slices`, `volumes`, `coronacases` or `pairs`, or the name of a CSV."""
        return self.name.split("/")[0]


def identifier_of(path: Path) -> str:
    """Return the name of a file without the suffix of its format; a segmentation of 3D Slicer ends in `_seg`."""
    lower = path.name.lower()
    if lower.endswith(SLICER_SUFFIX):
        return f"{path.name[: -len(SLICER_SUFFIX)]}_seg"
    suffix = next((suffix for suffix in SCAN_SUFFIXES if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def sha256_of_scan(path: Path) -> str:
    """Return the SHA-256 of a file; of a header whose voxels lie in a file beside it, that of both files' SHA-256.

    Raises:
        OSError, FormatError: A file cannot be read.
    """
    digests = [sha256_of(file) for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
