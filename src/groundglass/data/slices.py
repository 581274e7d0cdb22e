"""Cases as slices: cut to the field of view, scaled to the network's size, with their labels.

The way from a file to these slices is the one that `segment` takes: intensity, lung field, letterbox.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.data.catalogue import MEDSEG, Case
from groundglass.errors import DatasetError
from groundglass.inference.lungs import find_lungs
from groundglass.io.reader import read_scan
from groundglass.scan.crop import Letterbox, slices_apart
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import AIR_HU, Window, recognise
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.scan.scan import ImageStack, Scan

OFFSET_HU = 2048  # added to HU where they are kept as unsigned numbers
CLASS_LABELS = {"ground-glass": 1, "consolidation": 2, "effusion": 3}
UNSTATED = 4  # lesion whose class the reference does not state
Levels = NDArray[Any]  # uint8 or uint16
FULL = 0.9  # of a case's pixels: a mask that covers more is no lesion mask


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices ready for training.

    Attributes:
        hu: (n, height, width) int16, approximate HU.
        labels: (n, height, width) uint8: 0 no lesion, `CLASS_LABELS`, or `UNSTATED`.
        case: (n,) name of the case that each comes from.
        number: (n,) the slice's number in its case, from 0 at the feet (pictures: in their order).
        patient: (n,) the patient group of each.
        spacing_mm: (n,) from slice to slice of its case; NaN for pictures.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    case: NDArray[np.str_]
    number: NDArray[np.int64]
    patient: NDArray[np.str_]
    spacing_mm: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hu)

    def __repr__(self) -> str:
        n, height, width = self.hu.shape
        return (
            f"Slices({n} of {height} x {width}, {int(self.has_lesion.sum())} with lesion, {len(set(self.case))} cases)"
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) whether a slice holds any lesion pixel."""
        return np.asarray(self.labels.any((1, 2)))

    @property
    def source(self) -> NDArray[np.str_]:
        """(n,) the collection that each comes from."""
        return np.array([name.split("/")[0] for name in self.case])

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """The slices for which `keep` (n,) is true, or at these places."""
        return Slices(**{part.name: getattr(self, part.name)[keep] for part in fields(self)})

    def between_neighbours(self, neighbours_mm: float) -> NDArray[np.int64]:
        """(n, 3) places of the slice that far below, of itself, and of the one that far above; with 0 (n, 1) of itself.

        A neighbour that is not there, as of a picture or at the end of a scan, is the slice itself.
        """
        if not neighbours_mm:
            return np.arange(len(self))[:, None]
        at = {key: place for place, key in enumerate(zip(self.case.tolist(), self.number.tolist(), strict=True))}

        def beside(place: int, way: int) -> int:
            spacing = float(self.spacing_mm[place])
            step = slices_apart(neighbours_mm, None if np.isnan(spacing) else spacing)
            return at.get((str(self.case[place]), int(self.number[place]) + way * step), place)

        return np.array([(beside(i, -1), i, beside(i, 1)) for i in range(len(self))]).reshape(-1, 3)

    def images(
        self, window: Window, neighbours_mm: float, places: slice | NDArray[np.int64] = slice(None)
    ) -> NDArray[np.float32]:
        """(n, 1 or 3, height, width) in [0, 1]: what a network sees of the slices at `places`."""
        return window.scale(self.hu[self.between_neighbours(neighbours_mm)[places]].astype(np.float32))


@dataclass(frozen=True, eq=False)
class Cut:
    """A case's slices as they are kept, and what was seen of the case.

    Attributes:
        levels: (n, height, width), the file's own grey levels where it is an 8-bit picture (uint8), else HU plus
            `OFFSET_HU` (uint16).
        labels: (n, height, width) uint8, as in `Slices`.
        number: (n,) each slice's number in the axial view.
        slope: (n,) HU = slope * level + intercept.
        intercept: (n,) in HU.
        kind: Of the file's intensities.
        calibrated: Whether they are HU as the scanner meant them.
        spacing_mm: Of the file's voxels along (z, y, x) of the axial view; None for pictures.
        lesion_slices: In the whole file.
        pixels: {label: pixels} in the whole file, 0 left out.
        content_sha256: Of the image's numbers, whatever file they are in.
        notes: What a person should know of the case.
    """

    levels: Levels
    labels: NDArray[np.uint8]
    number: NDArray[np.int64]
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    kind: IntensityKind
    calibrated: bool
    spacing_mm: tuple[float, float, float] | None
    lesion_slices: int
    pixels: dict[int, int]
    content_sha256: str
    notes: tuple[str, ...]

    @property
    def hu(self) -> NDArray[np.int16]:
        """(n, height, width) whole HU."""
        return levels_to_hu(self.levels, self.slope, self.intercept)


def levels_to_hu(levels: Levels, slope: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.int16]:
    """(n, height, width) grey levels and their (n,) lines -> whole HU."""
    line = (part.astype(np.float32)[:, None, None] for part in (slope, intercept))
    hu = levels * next(line) + next(line)
    return np.asarray(np.clip(np.rint(hu), -OFFSET_HU, 3 * OFFSET_HU), dtype=np.int16)


def read_pair(case: Case) -> tuple[Scan, NDArray[np.uint8]]:
    """The CT of a case and its labels (z, y, x), both in the file's own order.

    Raises:
        FormatError: A file is damaged, or no CT.
        DatasetError: The mask's grid is not the image's, or its numbers are no labels.
    """
    scan, mask = read_scan(case.image), read_scan(case.lesion)
    if scan.values.shape != mask.values.shape:
        sizes = (" x ".join(map(str, values.shape)) for values in (mask.values, scan.values))
        raise DatasetError(f"{case.lesion} is {next(sizes)} voxels, its image {next(sizes)}: expected the same grid")
    if not scan.geometry.matches(mask.geometry, tolerance_mm=0.1):
        raise DatasetError(
            f"{case.lesion} lies elsewhere than its image ({mask.geometry} and {scan.geometry}, corners more than "
            "0.1 mm apart): expected the same grid; save the mask with the image's affine"
        )
    if case.unrelated_slices and not isinstance(scan, ImageStack):
        count, height, width = scan.geometry.shape
        scan = ImageStack(scan.values, scan.geometry, scan.source, scan.notes, sizes=((height, width),) * count)
    return scan, _labels(case, mask)


def _labels(case: Case, mask: Scan) -> NDArray[np.uint8]:
    """0, `CLASS_LABELS` or `UNSTATED`; 0/255 and, but for MedSeg, 0/1 masks state no class."""
    values = np.rint(mask.values)
    found = {int(value) for value in np.unique(values)}
    if np.abs(values - mask.values).max() > 0.01 or not (found <= {0, 1, 2, 3, 4} or found <= {0, 255}):
        shown = ", ".join(f"{value:g}" for value in np.unique(mask.values)[:8])
        raise DatasetError(
            f"{case.lesion} holds {shown}…: expected 0 and 1, 0 and 255, or 0 none, 1 ground-glass, 2 consolidation, "
            "3 effusion, 4 lesion of an unstated class"
        )
    if found <= {0, 255} or (found <= {0, 1} and case.source not in MEDSEG):
        return np.where(values > 0, UNSTATED, 0).astype(np.uint8)
    return np.asarray(values, dtype=np.uint8)


def cut_case(
    case: Case,
    size: tuple[int, int],
    view: FieldOfView = FieldOfView.LUNGS,
    lesion_slices_only: bool = False,
) -> Cut:
    """The slices of a case that show lung, cut to the field of view and scaled to `size` (height, width).

    Raises:
        InputError: The case is refused: files that do not match, numbers that are no CT or no labels, no lung.
    """
    scan, labels = read_pair(case)
    axial = AxialView(scan.geometry)
    intensity = recognise(scan)
    values, labels = axial.turn(scan.values), axial.turn(labels)
    hu = intensity.to_hu(values)
    field = find_lungs(scan, hu, axial.geometry, view)
    places = [
        (z, Letterbox(box, size))
        for z, box in enumerate(field.boxes)
        if box is not None and (labels[z].any() or not lesion_slices_only)
    ]
    number = np.array([z for z, _ in places], dtype=np.int64)
    windowed = intensity.kind is IntensityKind.LUNG_WINDOW_8BIT
    slope, intercept = (
        np.broadcast_to(line, len(values))[number] if windowed else np.full(len(number), nominal)
        for line, nominal in ((intensity.slope, 1.0), (intensity.intercept, float(-OFFSET_HU)))
    )
    air = (AIR_HU - intercept) / slope
    cut = [
        letterbox.apply((values if windowed else hu + OFFSET_HU)[z].astype(np.float32), fill)
        for (z, letterbox), fill in zip(places, air, strict=True)
    ]
    rounded = np.rint(np.array(cut).reshape(-1, *size))
    levels: Levels = (
        rounded.clip(0, 255).astype(np.uint8) if windowed else rounded.clip(0, 4 * OFFSET_HU).astype(np.uint16)
    )
    cut_labels = np.array([take_labels(letterbox, labels[z]) for z, letterbox in places], np.uint8).reshape(-1, *size)
    counts = np.bincount(labels.ravel(), minlength=UNSTATED + 1)
    with_lesion = np.asarray(labels.any((1, 2)))
    return Cut(
        levels=levels,
        labels=cut_labels,
        number=number,
        slope=slope,
        intercept=intercept,
        kind=intensity.kind,
        calibrated=intensity.calibrated,
        spacing_mm=axial.geometry.spacing if axial.geometry.in_mm else None,
        lesion_slices=int(with_lesion.sum()),
        pixels={label: int(counts[label]) for label in range(1, UNSTATED + 1) if counts[label]},
        content_sha256=hashlib.sha256(scan.values.tobytes()).hexdigest(),
        notes=_notes(case, labels, int(with_lesion.sum()), int(cut_labels.any((1, 2)).sum())),
    )


def _notes(case: Case, labels: NDArray[np.uint8], lesion_slices: int, kept: int) -> tuple[str, ...]:
    """What is said of a case with so many lesion slices, of which some are kept with lesion in view."""
    covered = float((labels > 0).mean())
    if covered > FULL:
        raise DatasetError(
            f"{case.lesion} marks {100 * covered:.0f} % of all pixels: a mask is 0 where no lesion is; check its labels"
        )
    if not lesion_slices:
        return ("the mask is empty",)
    lost = lesion_slices - kept
    return (f"lesion out of view: {lost} slice{'s' if lost > 1 else ''}",) if lost else ()


def take_labels(letterbox: Letterbox, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A pixel is lesion where at least half of it is, and then of the label that covers most of it.

    Where no pixel is half covered, the most covered ones are: a small lesion in the box never vanishes.
    """
    kinds = [int(label) for label in np.unique(labels) if label]
    if not kinds:
        return np.zeros(letterbox.size, dtype=np.uint8)
    share = np.stack([letterbox.apply((labels == label).astype(np.float32), 0.0) for label in kinds])
    winner = np.array(kinds, dtype=np.uint8)[share.argmax(0)]
    covered = share.sum(0)
    return np.where((covered > 0) & (covered >= min(0.5, covered.max())), winner, 0).astype(np.uint8)
