"""Cut the slices of a case to the field of view, by the steps that `segment` takes too: intensity, lungs, letterbox."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.data.case import Case
from groundglass.data.case_files import check_labelled_share, read_case_with_notes, read_second_mask
from groundglass.data.labels import UNSTATED
from groundglass.data.mask_remarks import lesion_shares, remark_on_place, remark_on_view
from groundglass.data.slices import OFFSET_HU, GreyLevels, levels_to_hu
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.network import open_lung_network
from groundglass.scan.crop import Letterbox
from groundglass.scan.intensity import AIR_HU
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.scan.scan import ImageStack


@dataclass(frozen=True, eq=False)
class CaseSlices:
    """The slices of one case as they are stored, and what was found about the case.

    Attributes:
        levels: (n, height, width) grey levels: the file's own if it is an 8-bit picture (uint8), else HU plus
            `OFFSET_HU` (uint16).
        labels: (n, height, width) uint8, as in `Slices`.
        lungs: (n, height, width) where lung is, lesions included.
        second_reader: (n, height, width) where a second reader marked lesion; None if there is none.
        number: (n,) number of each slice in the axial view.
        slope: (n,) HU = slope * level + intercept.
        intercept: (n,) in HU.
        kind: Kind of the file's intensities.
        calibrated: Whether they are HU as the scanner meant them.
        spacing_mm: Spacing of the file's voxels along (z, y, x) of the axial view; None for pictures.
        lesion_slices: Number of slices with lesion in the whole file.
        pixels: {label: number of pixels} in the whole file; labels that do not occur are left out.
        lesion_share: Share of the lung that lesion fills.
        content_sha256: SHA-256 of the image's numbers, whatever the file format.
        notes: Remarks on the case for the user.
    """

    levels: GreyLevels
    labels: NDArray[np.uint8]
    lungs: NDArray[np.bool_]
    second_reader: NDArray[np.bool_] | None
    number: NDArray[np.int64]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    kind: IntensityKind
    calibrated: bool
    spacing_mm: tuple[float, float, float] | None
    lesion_slices: int
    pixels: dict[int, int]
    lesion_share: float
    content_sha256: str
    notes: tuple[str, ...]

    @property
    def hu(self) -> NDArray[np.int16]:
        """(n, height, width) whole HU."""
        return levels_to_hu(self.levels, self.slope, self.intercept)


def cut_case(
    case: Case,
    size: tuple[int, int],
    view: FieldOfView = FieldOfView.LUNGS,
    lesion_slices_only: bool = False,
) -> CaseSlices:
    """Cut the slices of a case that show lung to the field of view, and scale them to `size` (height, width).

    Raises:
        InputError: Image and mask do not match, their numbers are no CT or no labels, or no slice shows lung.
    """
    scan, labels, label_notes = read_case_with_notes(case)
    check_labelled_share(case, labels)
    found = find_lungs(scan, view, network=open_lung_network(threads=1))  # cases are cut side by side
    axial, intensity, lung_field = found.view, found.intensity, found.lung_field
    values, labels = axial.to_axial(scan.values), axial.to_axial(labels)
    hu, boxes = intensity.to_hu(values), lung_field.boxes
    with_lesion = np.asarray(labels.any((1, 2)))
    letterboxes = {
        z: Letterbox(box, size, lung_field.pixel_aspect)
        for z, box in enumerate(boxes)
        if box is not None and (with_lesion[z] or not lesion_slices_only)
    }
    cut_labels = {z: letterbox_labels(letterbox, labels[z]) for z, letterbox in letterboxes.items()}
    if lesion_slices_only:
        cut_labels = {z: cut for z, cut in cut_labels.items() if cut.any()}
        letterboxes = {z: letterboxes[z] for z in cut_labels}
    number = np.array(list(letterboxes), dtype=np.int64)

    dtype: type[np.uint8] | type[np.uint16]
    if intensity.kind is IntensityKind.WINDOW_8BIT:
        full, brightest, dtype = values, 255, np.uint8
        slope, intercept = (
            np.broadcast_to(line, len(values))[number] for line in (intensity.slope, intensity.intercept)
        )
    else:
        full, brightest, dtype = hu + OFFSET_HU, 4 * OFFSET_HU, np.uint16
        slope, intercept = np.full(len(number), 1.0), np.full(len(number), float(-OFFSET_HU))
    air_levels = (AIR_HU - intercept) / slope
    levels = [
        letterbox.apply(full[z].astype(np.float32), air)
        for (z, letterbox), air in zip(letterboxes.items(), air_levels, strict=True)
    ]
    lungs = [lung_field.mask[z] | (labels[z] > 0) for z in letterboxes]
    second = None if case.second_mask is None else read_second_mask(case.second_mask, axial)

    stored_labels = np.array([*cut_labels.values()], np.uint8).reshape(-1, *size)
    shares = lesion_shares(lung_field, labels > 0)
    pixels = np.bincount(labels.ravel(), minlength=UNSTATED + 1)
    return CaseSlices(
        levels=np.rint(np.array(levels).reshape(-1, *size)).clip(0, brightest).astype(dtype),
        labels=stored_labels,
        lungs=_letterbox_masks(letterboxes.values(), lungs, size),
        second_reader=None
        if second is None
        else _letterbox_masks(letterboxes.values(), (second[z] for z in letterboxes), size),
        number=number,
        slope=slope,
        intercept=intercept,
        kind=intensity.kind,
        calibrated=intensity.calibrated,
        spacing_mm=axial.geometry.spacing if axial.geometry.in_mm else None,
        lesion_slices=int(with_lesion.sum()),
        pixels={label: int(pixels[label]) for label in range(1, UNSTATED + 1) if pixels[label]},
        lesion_share=shares["lung"],
        content_sha256=hashlib.sha256(scan.values.tobytes()).hexdigest(),
        notes=(
            *remark_on_view(int(with_lesion.sum()), int(stored_labels.any((1, 2)).sum())),
            *(() if isinstance(scan, ImageStack) else remark_on_place(lung_field, hu, labels > 0, shares)),
            *label_notes,
        ),
    )


def _letterbox_masks(
    letterboxes: Iterable[Letterbox], masks: Iterable[NDArray[Any]], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Scale the mask (H, W) of each slice to its letterbox: (n, height, width), true where half of a pixel is."""
    scaled = [
        letterbox.apply(mask.astype(np.float32), 0.0) >= 0.5 for letterbox, mask in zip(letterboxes, masks, strict=True)
    ]
    return np.array(scaled, dtype=bool).reshape(-1, *size)


def letterbox_labels(letterbox: Letterbox, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale the (H, W) labels of a slice to the letterbox's size.

    A pixel is lesion where lesion covers at least half of it, and has the label that covers most of it. If no pixel is
    half covered, the most covered ones are lesion: a small lesion inside the box never vanishes.
    """
    found = [int(label) for label in np.unique(labels) if label]
    if not found:
        return np.zeros(letterbox.size, dtype=np.uint8)
    shares = np.stack([letterbox.apply((labels == label).astype(np.float32), 0.0) for label in found])
    largest = np.array(found, dtype=np.uint8)[shares.argmax(0)]
    covered = shares.sum(0)
    return np.where((covered > 0) & (covered >= min(0.5, covered.max())), largest, 0).astype(np.uint8)
