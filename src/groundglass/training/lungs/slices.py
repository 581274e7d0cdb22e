"""The slices that teach a network where the lungs are: whole slices in HU with the right and the left lung labelled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.data.case import PICTURE_SUFFIXES, Case
from groundglass.data.catalogue import find_cases, select
from groundglass.data.protocols import PUBLIC_TEST
from groundglass.errors import DatasetError, FormatError, IntensityError, LungError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.window import estimate_window
from groundglass.io.reader import read_scan
from groundglass.scan.crop import resize_slice
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import recognise_numbers
from groundglass.scan.morphology import fill_holes
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from groundglass.training.lungs.lung_sides import split_left_right
from groundglass.training.lungs.no_chest import draw_no_chest, radiographs
from groundglass.training.lungs.thresholds import lungs_by_thresholds

STORED_SIDE = 256  # pixels of a stored slice; the network sees fewer, after crops and turns
RIGHT, LEFT = 1, 2
NOT_STATED = 255  # in a lung mask: the slice is not labelled
NO_CHEST = "no-chest"  # the group of real slices that show no lung at all
DRAWN = "drawn"  # the group of drawn and projected images that show no chest
DRAWN_SLICES = 240
PHANTOM = "phantom"  # the group of the synthetic chests
PHANTOM_SEEDS = range(100, 104)
LUNG_FOLDERS = {"rp_im": "rp_lung_msk", "ct": "lung"}  # folder of the images -> folder of the lung masks
# Slices on which the threshold finder, which labels what a mask does not state, takes bowel for lung (looked at).
DOUBTFUL = {"coronacases/004": range(9, 14)}
# Pictures of dataset 1 in which the bundled network took other things than lung for it, or missed a front of it.
DOUBTFUL_PICTURES = {f"slices/{number:03}" for number in (10, 36, 45, 51, 54, 69, 74)}
DARK_HU = -700.0  # what is darker and lies within a lung is a part of it, not the dome of the diaphragm


@dataclass(frozen=True, eq=False)
class LungSlices:
    """Whole slices with their lungs.

    Attributes:
        hu: (n, STORED_SIDE, STORED_SIDE) int16, HU or estimated HU.
        label: (n, STORED_SIDE, STORED_SIDE) uint8: 0, `RIGHT` or `LEFT` (the patient's sides).
        group: (n,) the case that a slice comes from, `PHANTOM`, `NO_CHEST` or `DRAWN`.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    group: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.hu)

    @property
    def sha256(self) -> str:
        """SHA-256 of the slices and their labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.hu).data)
        digest.update(np.ascontiguousarray(self.label).data)
        digest.update("\n".join(self.group.tolist()).encode())
        return digest.hexdigest()


def read_lung_slices(
    datasets: Sequence[Path], no_chest: Path | None = None, patterns: Sequence[str] = ()
) -> LungSlices:
    """Read every case with a lung mask, pictures with lesions alone, and images that show no chest.

    Lesions count as lung. Slices of scans whose lung mask is not stated are labelled by thresholds, and pictures by the
    bundled lung network; those in which it finds none are left out. Synthetic chests are added, and images of what is
    no slice of a chest (water phantoms, limbs, screens, radiographs), drawn or projected from the scans.

    Args:
        datasets: Dataset folders in the layout of MedSeg's volumes or of coronacases, or of pictures and their masks.
        no_chest: A folder of 16-bit PNG slices (HU + 2048) without lung.
        patterns: Names of the cases to read; by default all but the public test part.

    Raises:
        DatasetError: There is no case with a lung mask, and no picture.
        FormatError: A file is damaged.
    """
    cases = [case for case in find_cases(*datasets) if _is_picture(case) or _lung_file(case) is not None]
    cases = [case for case in cases if case.name not in DOUBTFUL_PICTURES]
    chosen = select(cases, patterns) if patterns else [case for case in cases if case.name not in PUBLIC_TEST]
    if not chosen:
        raise DatasetError(
            f"{', '.join(map(str, datasets))} hold no lung masks: expected {' or '.join(LUNG_FOLDERS.values())} "
            "beside the images"
        )
    rows = [row for case in chosen for row in (_picture_rows(case) if _is_picture(case) else _case_rows(case))]
    rows += [] if no_chest is None else list(_no_chest_rows(no_chest))
    rows += list(_phantom_rows())
    rows += [_empty_row(plane, DRAWN) for plane in draw_no_chest(DRAWN_SLICES, STORED_SIDE)]
    hu, label, group = zip(*rows, strict=True)
    return LungSlices(np.array(hu), np.array(label), np.array(group))


def _is_picture(case: Case) -> bool:
    return case.image.suffix.lower() in PICTURE_SUFFIXES


def _lung_file(case: Case) -> Path | None:
    folder = LUNG_FOLDERS.get(case.image.parent.name)
    path = case.image.parent.parent / folder / case.image.name if folder else None
    return path if path is not None and path.is_file() else None


def _case_rows(case: Case) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8], str]]:
    scan, lung_file = read_scan(case.image), _lung_file(case)
    assert lung_file is not None
    view = AxialView(scan.geometry)
    stated, lesion = (view.to_axial(_on_grid(scan, path)) for path in (lung_file, case.mask))
    lungs = (stated == 1) | (lesion > 0)
    hu = _in_hu(scan, view.to_axial(scan.values), lungs)
    unlabelled = (stated == NOT_STATED).all((1, 2))
    if unlabelled.any():
        lungs[unlabelled] |= lungs_by_thresholds(hu, view.geometry)[unlabelled]
    labelled = [z for z in range(len(hu)) if z not in DOUBTFUL.get(case.name, ())]
    yield from _chest_rows(hu, lungs, labelled, case.name)
    for plane in radiographs(hu):
        yield _empty_row(plane, DRAWN)


def _picture_rows(case: Case) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8], str]]:
    scan = read_scan(case.image)
    try:
        found = find_lungs(scan)
    except (FormatError, IntensityError, LungError):
        return
    hu = found.hu[0]
    lungs = found.lung_field.mask[0] | (found.view.to_axial(_on_grid(scan, case.mask))[0] > 0)
    lungs |= fill_holes(lungs) & (hu < DARK_HU)
    yield from _chest_rows(hu[None], lungs[None], [0], case.name)


def _in_hu(scan: Scan, values: NDArray[Any], lungs: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (z, y, x) HU, estimated with the lungs that a mask states where the numbers are those of a window."""
    numbers = recognise_numbers(scan)
    if not numbers.kind.is_window:
        return numbers.exact.to_hu(values)
    shown = [z for z in range(0, len(values), 3) if lungs[z].any()]
    levels, inside = (np.stack([_stored(array[z]) for z in shown]) for array in (values, lungs))
    slope, intercept = estimate_window(levels, inside > 0.5)
    return np.asarray(values * slope + intercept, dtype=np.float32)


def _phantom_rows() -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8], str]]:
    for seed in PHANTOM_SEEDS:
        phantom = chest_phantom(seed, shape=(20, 288, 352))
        hu = np.asarray(phantom.scan.values, dtype=np.float32)
        yield from _chest_rows(hu, phantom.lungs.voxels, range(len(hu)), PHANTOM)


def _chest_rows(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], labelled: Iterable[int], group: str
) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8], str]]:
    right = np.asarray(split_left_right(PackedMask.from_slices(lungs)))
    for z in labelled:
        sides = [_stored(side[z]) > 0.5 for side in (right, lungs & ~right)]
        label = np.where(sides[0], RIGHT, np.where(sides[1], LEFT, 0))
        yield _rounded(_stored(hu[z])), label.astype(np.uint8), group


def _on_grid(scan: Scan, path: Path) -> NDArray[np.uint8]:
    mask = read_scan(path)
    if not mask.geometry.matches(scan.geometry, tolerance_mm=0.1):
        raise DatasetError(f"{path} lies on another grid than its image: expected {scan.geometry}")
    return np.asarray(np.rint(mask.values), dtype=np.uint8)


def _no_chest_rows(folder: Path) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8], str]]:
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            hu = np.asarray(image).astype(np.float32) - 2048
        yield _empty_row(hu, NO_CHEST)


def _empty_row(hu: NDArray[np.float32], group: str) -> tuple[NDArray[np.int16], NDArray[np.uint8], str]:
    return _rounded(_stored(hu)), np.zeros((STORED_SIDE, STORED_SIDE), np.uint8), group


def _stored(plane: NDArray[Any]) -> NDArray[np.float32]:
    """Return a slice (y, x) as (STORED_SIDE, STORED_SIDE)."""
    return resize_slice(plane, STORED_SIDE, STORED_SIDE)


def _rounded(hu: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(np.rint(hu.clip(-2048, 3000)), dtype=np.int16)
