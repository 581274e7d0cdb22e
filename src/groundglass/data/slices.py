"""Cases as slices: cut to the field of view, scaled to the network's size, with their labels.

A file becomes slices by the steps that `segment` takes, too: intensity, lung field, letterbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundglass.data.case import MEDSEG_SOURCES, Case
from groundglass.data.labels import CLASS_LABELS, UNSTATED
from groundglass.errors import DatasetError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.network import open_lung_network
from groundglass.io.reader import read_scan
from groundglass.scan.crop import Letterbox, resize_slice, slices_apart
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import AIR_HU, Window
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.scan.lung_field import LungField
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.scan import ImageStack, Scan

GreyLevels: TypeAlias = NDArray[Any]  # uint8 or uint16
OFFSET_HU = 2048  # added to HU so that they can be stored as unsigned numbers
GRID_TOLERANCE_MM = 0.1  # by which the corners of a mask may differ from those of its image
LUNG_FILLED = "lesion fills"  # how the remark begins on a mask that may be one of the lungs
# Shares of the lungs, and of one of them, that lesion rarely exceeds.
LARGEST_SHARE_OF_LUNGS, LARGEST_SHARE_OF_SIDE = 0.6, 0.8
NOT_READ = 255  # in the mask of a second reader: the reader did not see the case
LARGEST_LABELLED_SHARE = 0.9  # of a case's pixels: a mask with more is no lesion mask


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices ready for training.

    Attributes:
        hu: (n, height, width) int16, approximate HU.
        labels: (n, height, width) uint8: 0 no lesion, `CLASS_LABELS`, or `UNSTATED`.
        case: (n,) name of the case of each slice.
        number: (n,) number of each slice in its case, from 0 at the feet (pictures: in their order).
        patient: (n,) patient group of each slice.
        spacing_mm: (n,) distance from slice to slice of its case; NaN for pictures.
        lungs: (n, height, width) where lung is, lesions included; None where it is not needed.
        second_reader: (n, height, width) uint8: a second reader's 0 no lesion or 1 lesion, or `NOT_READ`; None if no
            case has a second reader.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    case: NDArray[np.str_]
    number: NDArray[np.int64]
    patient: NDArray[np.str_]
    spacing_mm: NDArray[np.float64]
    lungs: NDArray[np.bool_] | None = None
    second_reader: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.hu)

    def __repr__(self) -> str:
        n, height, width = self.hu.shape
        return (
            f"Slices({n} of {height} x {width}, {int(self.has_lesion.sum())} with lesion, {len(set(self.case))} cases)"
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) whether any pixel of a slice is lesion."""
        return np.asarray(self.labels.any((1, 2)))

    @property
    def source(self) -> NDArray[np.str_]:
        """(n,) source of each slice, such as `volumes`."""
        return np.array([name.split("/")[0] for name in self.case])

    @property
    def name(self) -> NDArray[np.str_]:
        """(n,) name of each slice: CASE:NUMBER."""
        return np.array([f"{case}:{number}" for case, number in zip(self.case, self.number, strict=True)])

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """Return the slices for which `keep` (n,) is true, or those at these indices."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        kept: dict[str, Any] = {name: None if value is None else value[keep] for name, value in values}
        return Slices(**kept)

    def neighbour_indices(self, neighbours_mm: float) -> NDArray[np.int64]:
        """Find the neighbours of each slice.

        Args:
            neighbours_mm: Distance of the neighbours; 0 for none.

        Returns:
            (n, 3) indices of the slice that far below, of the slice itself, and of the slice that far above, or (n, 1)
            of the slice itself. Where there is no neighbour, as at the end of a scan, the slice takes its place.
        """
        if not neighbours_mm:
            return np.arange(len(self))[:, None]
        index_of = {key: index for index, key in enumerate(zip(self.case.tolist(), self.number.tolist(), strict=True))}

        def neighbour(index: int, direction: int) -> int:
            spacing = float(self.spacing_mm[index])
            step = slices_apart(neighbours_mm, None if np.isnan(spacing) else spacing)
            return index_of.get((str(self.case[index]), int(self.number[index]) + direction * step), index)

        return np.array([(neighbour(i, -1), i, neighbour(i, 1)) for i in range(len(self))]).reshape(-1, 3)

    def network_inputs(
        self, window: Window, neighbours_mm: float, indices: slice | NDArray[np.int64] = slice(None)
    ) -> NDArray[np.float32]:
        """Return the network's input for the slices at `indices`: (n, 1 or 3, height, width) in [0, 1]."""
        return window.scale(self.hu[self.neighbour_indices(neighbours_mm)[indices]].astype(np.float32))


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


def levels_to_hu(levels: GreyLevels, slope: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.int16]:
    """Convert (n, height, width) grey levels to whole HU by the (n,) slopes and intercepts of the slices."""
    slope32, intercept32 = (values.astype(np.float32)[:, None, None] for values in (slope, intercept))
    hu = levels * slope32 + intercept32
    return np.asarray(np.clip(np.rint(hu), -OFFSET_HU, 3 * OFFSET_HU), dtype=np.int16)


def read_case(case: Case) -> tuple[Scan, NDArray[np.uint8]]:
    """Read the CT of a case and its labels (z, y, x), both in the order of the file.

    Raises:
        FormatError: A file is damaged, or no CT.
        DatasetError: Image and mask are not on the same grid, or the mask's numbers are no labels.
    """
    scan, labels, _ = read_case_with_notes(case)
    return scan, labels


def read_case_with_notes(case: Case) -> tuple[Scan, NDArray[np.uint8], tuple[str, ...]]:
    """Read a case as `read_case` does, with sentences on what its labels were taken for.

    Raises:
        FormatError: A file is damaged, or no CT.
        DatasetError: Image and mask are not on the same grid, or the mask's numbers are no labels.
    """
    scan = read_scan(case.image)
    mask = _in_axes_of(scan, read_scan(case.mask))
    if scan.values.shape != mask.values.shape:
        mask_size, image_size = (" x ".join(map(str, values.shape)) for values in (mask.values, scan.values))
        raise DatasetError(f"{case.mask} is {mask_size} voxels, its image {image_size}: expected the same grid")
    if not scan.geometry.matches(mask.geometry, GRID_TOLERANCE_MM):
        raise DatasetError(
            f"{case.mask} lies elsewhere than its image ({mask.geometry} and {scan.geometry}, corners more than "
            "0.1 mm apart): expected the same grid; resample the mask onto the image's grid or, if its voxels are in "
            "the image's order and only its affine is wrong, save it with the image's affine"
        )
    if case.unrelated_slices and not isinstance(scan, ImageStack):
        count, height, width = scan.geometry.shape
        scan = ImageStack(scan.values, scan.geometry, scan.source, scan.notes, sizes=((height, width),) * count)
    return scan, *_to_labels(case, mask)


def _in_axes_of(scan: Scan, mask: Scan) -> Scan:
    """Return a mask that lies where its image does, with its axes in the order and direction of the image's."""
    view, mask_view = AxialView(scan.geometry), AxialView(mask.geometry)
    if scan.values.shape == mask.values.shape and scan.geometry.matches(mask.geometry, GRID_TOLERANCE_MM):
        return mask
    if not view.geometry.matches(mask_view.geometry, GRID_TOLERANCE_MM):
        return mask
    values = view.from_axial(mask_view.to_axial(mask.values))
    return replace(mask, values=values, geometry=scan.geometry)


def _to_labels(case: Case, mask: Scan) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return 0, `CLASS_LABELS` or `UNSTATED`, and sentences on what was assumed.

    Where nothing states what the numbers mean, masks of 0 and 255, and but for MedSeg of 0 and 1, state no class.
    """
    values = np.rint(mask.values)
    found = tuple(map(int, np.unique(values)))
    shown = ", ".join(f"{value:g}" for value in np.unique(mask.values)[:8])
    is_whole = np.abs(values - mask.values).max() <= 0.01
    if case.labels is not None:
        labels, others = case.labels.translate(values)
        if not is_whole or (others and not case.labels.others_are_no_lesion):
            raise DatasetError(
                f"{case.mask} holds {shown}…: expected whole numbers that {case.labels.stated_by} names "
                f"({case.labels.text}); state all that are lesion, such as --labels {case.labels.text.split()[-1]}"
            )
        return labels, (f"not named, so no lesion: {', '.join(map(str, others))}",) if others else ()
    if not is_whole or not (set(found) <= {0, 1, 2, 3, 4} or set(found) <= {0, 255}):
        raise DatasetError(
            f"{case.mask} holds {shown}…: expected 0 and 1, 0 and 255, or 0 none, 1 ground-glass, 2 consolidation, "
            "3 effusion, 4 lesion of an unstated class; state what others mean, such as --labels lesion=2"
        )
    is_medseg = case.source in MEDSEG_SOURCES
    if set(found) <= {0, 255} or (set(found) <= {0, 1} and not is_medseg):
        return np.where(values > 0, UNSTATED, 0).astype(np.uint8), ()
    names = {label: name for name, label in CLASS_LABELS.items()} | {UNSTATED: "lesion"}
    assumed = ", ".join(f"{value} as {names[value]}" for value in found if value)
    return np.asarray(values, dtype=np.uint8), () if is_medseg else (f"labels taken by default: {assumed}",)


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
    axial = AxialView(scan.geometry)
    values, labels = axial.to_axial(scan.values), axial.to_axial(labels)
    _check_labelled_share(case, labels)
    found = find_lungs(scan, view, network=open_lung_network(threads=1))  # cases are cut side by side
    intensity, lung_field = found.intensity, found.lung_field
    hu, boxes = intensity.to_hu(values), lung_field.boxes
    with_lesion = np.asarray(labels.any((1, 2)))
    letterboxes = {
        z: Letterbox(box, size)
        for z, box in enumerate(boxes)
        if box is not None and (with_lesion[z] or not lesion_slices_only)
    }
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
    cut_labels = [letterbox_labels(letterbox, labels[z]) for z, letterbox in letterboxes.items()]
    lungs = [lung_field.mask[z] | (labels[z] > 0) for z in letterboxes]
    second = None if case.second_mask is None else _second_mask(case.second_mask, axial)

    stored_labels = np.array(cut_labels, np.uint8).reshape(-1, *size)
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
            *_notes(int(with_lesion.sum()), int(stored_labels.any((1, 2)).sum())),
            *(() if isinstance(scan, ImageStack) else _lung_filled_note(shares)),
            *label_notes,
        ),
    )


def _check_labelled_share(case: Case, labels: NDArray[np.uint8]) -> None:
    """Refuse a mask that covers nearly everything.

    Raises:
        DatasetError: It is no lesion mask.
    """
    share = float((labels > 0).mean())
    if share > LARGEST_LABELLED_SHARE:
        raise DatasetError(
            f"{case.mask} marks {100 * share:.0f} % of all pixels: a mask is 0 where no lesion is; check its labels"
        )


def _notes(lesion_slices: int, lesion_slices_in_view: int) -> tuple[str, ...]:
    """Return the remarks on a case with this number of slices with lesion, in the file and after cutting."""
    if not lesion_slices:
        return ("the mask is empty",)
    out_of_view = lesion_slices - lesion_slices_in_view
    return (f"lesion out of view: {out_of_view} slice{'s' if out_of_view > 1 else ''}",) if out_of_view else ()


def lesion_shares(lung_field: LungField, lesion: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of the lung, of the right and of the left lung that lesion (z, y, x) fills; 0 of no lung."""
    shares = {}
    for name, side in (("lung", lung_field.mask), ("right lung", lung_field.right), ("left lung", lung_field.left)):
        inside = sum(int((plane & marked).sum()) for plane, marked in zip(side, lesion, strict=True))
        shares[name] = inside / max(1, int(voxels_per_slice(side).sum()))
    return shares


def _lung_filled_note(shares: dict[str, float]) -> tuple[str, ...]:
    """Remark that lesion fills most of the lungs of a volume, or of one of them, as a mask of the lungs does."""
    return tuple(
        f"{LUNG_FILLED} {100 * share:.0f} % of the {name}: check that the labels are of lesion and not of lung"
        for name, share in shares.items()
        if share > (LARGEST_SHARE_OF_LUNGS if name == "lung" else LARGEST_SHARE_OF_SIDE)
    )[:1]


def _second_mask(path: Path, axial: AxialView) -> NDArray[np.float32]:
    """Return a second reader's mask (z, y, x) on the upright slices of a scan: the share of lesion in each voxel.

    The slices have to be those of the scan; their pixels may be larger or smaller.

    Raises:
        FormatError: The file is damaged.
        DatasetError: Its slices are not those of the scan.
    """
    mask = read_scan(path)
    view, shape = AxialView(mask.geometry), axial.geometry.shape
    if view.geometry.shape[0] != shape[0]:
        raise DatasetError(
            f"{path} has {view.geometry.shape[0]} slices, its image {shape[0]}: expected the same slices"
        )
    return np.stack([resize_slice(plane > 0, *shape[1:]) for plane in view.to_axial(mask.values)])


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
