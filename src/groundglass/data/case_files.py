"""The files of a case: the CT, and the labels that its mask states on the CT's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.data.case import MEDSEG_SOURCES, SLICER_SUFFIX, Case
from groundglass.data.labels import CLASS_LABELS, LAYER, UNSTATED
from groundglass.errors import DatasetError, FormatError
from groundglass.io.coloured_mask import ColouredMask, read_coloured_mask
from groundglass.io.image_slices import ColouredPictureError
from groundglass.io.nrrd import read_nrrd_layers
from groundglass.io.reader import file_kind, read_scan
from groundglass.scan.crop import resize_slice
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.scan import ImageStack, Scan

GRID_TOLERANCE_MM = 0.1  # by which the corners of a mask may differ from those of its image
SHARE_BLURRED = 0.3  # of the white pixels of a mask: as many grey ones are blurred edges
MOST_LABELS = 300  # different numbers in a mask; masks of all organs have some hundred
LARGEST_LABELLED_SHARE = 0.9  # of a case's pixels: a mask with more is no lesion mask


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
    mask, colour_notes = _read_mask(case)
    mask = _in_axes_of(scan, mask)
    mask, place_notes = _on_grid_of(scan, mask)
    if scan.values.shape != mask.values.shape:
        mask_size, image_size = (" x ".join(map(str, values.shape)) for values in (mask.values, scan.values))
        raise DatasetError(
            f"{case.mask} is {mask_size} voxels, its image {image_size}: expected the same grid; "
            + (
                "its axes are in another order than the image's: exchange them"
                if sorted(scan.values.shape) == sorted(mask.values.shape)
                else "resample the mask onto the image's grid, such as with 3D Slicer"
            )
        )
    if not scan.geometry.matches(mask.geometry, GRID_TOLERANCE_MM):
        raise DatasetError(
            f"{case.mask} lies elsewhere than its image ({_place(mask.geometry)} and {_place(scan.geometry)}, corners "
            "more than 0.1 mm apart): expected the same grid; resample the mask onto the image's grid or, if its "
            "voxels are in the image's order and only its affine is wrong, save it with the image's affine"
        )
    if case.unrelated_slices and not isinstance(scan, ImageStack):
        count, height, width = scan.geometry.shape
        scan = ImageStack(scan.values, scan.geometry, scan.source, scan.notes, sizes=((height, width),) * count)
    labels, notes = _to_labels(case, mask)
    return scan, labels, (*colour_notes, *place_notes, *notes)


def _place(geometry: Geometry) -> str:
    return f"{geometry} from {', '.join(f'{mm:.1f}' for mm in geometry.position((0, 0, 0)))} mm in LPS"


def _read_mask(case: Case) -> tuple[Scan, tuple[str, ...]]:
    """Read the file of a mask, and say what was assumed of colours.

    Raises:
        FormatError: It is damaged, or a picture of colours that stand for no numbers.
        DatasetError: Nothing tells which of its colours are lesion.
    """
    try:
        if case.mask.name.lower().endswith(SLICER_SUFFIX):
            return _without_layers(case, read_nrrd_layers(case.mask)), ()
        return read_scan(case.mask), ()
    except ColouredPictureError:
        if not case.mask.is_file():
            raise
        coloured = read_coloured_mask(case.mask)
    except FormatError as error:
        if case.mask.is_file() and file_kind(case.mask) == "DICOM":
            raise DatasetError(
                f"{case.mask} is DICOM that holds no image, as a Segmentation (SEG) or contours (RTSTRUCT), expected "
                "NIfTI, MHA, NRRD or PNG: 3D Slicer opens it and saves it as .seg.nrrd"
            ) from error
        raise
    numbers, note = _meaning_of_colours(case, coloured)
    values = numbers[np.newaxis]
    return Scan(values, Geometry.pixels(values.shape), case.mask), (note,)


def _without_layers(case: Case, layers: Sequence[Scan]) -> Scan:
    """Return layers of segments that may overlap as one mask: lesion holds over other segments, the later over others.

    The numbers of each further layer are raised by `LAYER`.
    """
    lesion = [value for value, label in case.labels.values if label] if case.labels else []
    numbers = [np.where(scan.values > 0, scan.values.astype(np.int32) + LAYER * i, 0) for i, scan in enumerate(layers)]
    flat = numbers[0].copy()
    for layer in numbers[1:]:
        chosen = (layer > 0) & (np.isin(layer, lesion) | ~np.isin(flat, lesion))
        flat[chosen] = layer[chosen]
    return replace(layers[0], values=flat) if len(layers) > 1 else layers[0]


def _meaning_of_colours(case: Case, mask: ColouredMask) -> tuple[NDArray[np.uint8], str]:
    """Return the numbers of a mask of colours, and a sentence on what they were taken for.

    Raises:
        DatasetError: Nothing tells which colours are lesion.
    """
    if not mask.names:
        return mask.numbers, "the numbers of the picture's palette are taken as labels"
    names = list(mask.names.values())
    numbered = ", ".join(f"{name} {number}" for number, name in mask.names.items())
    if case.labels is None and len(names) == 1:
        return np.where(mask.numbers > 0, 255, 0).astype(np.uint8), f"{names[0]} is taken as lesion, black as none"
    if case.labels is None or not case.labels.others_are_no_lesion or mask.has_other_colours:
        raise DatasetError(
            f"{case.mask} is coloured ({', '.join(names)}): state which colours are lesion by the numbers that are "
            f"given to them, {numbered}, such as --labels lesion={min(mask.names)}, or save it in grey"
        )
    return mask.numbers, f"colours have the numbers {numbered}"


def _in_axes_of(scan: Scan, mask: Scan) -> Scan:
    """Return a mask that lies where its image does, with its axes in the order and direction of the image's."""
    view, mask_view = AxialView(scan.geometry), AxialView(mask.geometry)
    if scan.values.shape == mask.values.shape and scan.geometry.matches(mask.geometry, GRID_TOLERANCE_MM):
        return mask
    if not view.geometry.matches(mask_view.geometry, GRID_TOLERANCE_MM):
        return mask
    values = view.from_axial(mask_view.to_axial(mask.values))
    return replace(mask, values=values, geometry=scan.geometry)


def _on_grid_of(scan: Scan, mask: Scan) -> tuple[Scan, tuple[str, ...]]:
    """Return a mask that was cut to a part of its image's grid on the whole of it, as 3D Slicer cuts segmentations.

    One of another size under the affine of its image is none: slices may be missing anywhere.
    """
    view, mask_view = AxialView(scan.geometry).geometry, AxialView(mask.geometry).geometry
    placed = all(grid.in_mm and grid.has_directions for grid in (scan.geometry, mask.geometry))
    cut = not np.allclose(scan.geometry.affine_lps, mask.geometry.affine_lps, atol=GRID_TOLERANCE_MM)
    if not placed or not cut or scan.values.shape == mask.values.shape:
        return mask, ()
    start = np.rint((np.linalg.inv(view.affine_lps) @ mask_view.affine_lps)[:3, 3]).astype(int)
    end = start + mask_view.shape
    affine = view.affine_lps.copy()
    affine[:3, 3] = view.position(start.astype(float))
    if (start < 0).any() or (end > view.shape).any():
        return mask, ()
    if not replace(view, shape=mask_view.shape, affine_lps=affine).matches(mask_view, GRID_TOLERANCE_MM):
        return mask, ()
    values = np.zeros(view.shape, mask.values.dtype)
    values[tuple(map(slice, start, end))] = AxialView(mask.geometry).to_axial(mask.values)
    whole = replace(mask, values=AxialView(scan.geometry).from_axial(values), geometry=scan.geometry)
    return whole, ("the mask covers a part of its image: outside that no lesion is taken",)


def _to_labels(case: Case, mask: Scan) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return 0, `CLASS_LABELS` or `UNSTATED`, and sentences on what was assumed.

    Where nothing states what the numbers mean, masks of 0 and 255, and but for MedSeg of 0 and 1, state no class.
    """
    values = np.rint(mask.values)
    found = tuple(map(int, np.unique(values)))
    shown = ", ".join(f"{value:g}" for value in np.unique(mask.values)[:8])
    is_whole = np.abs(values - mask.values).max() <= 0.01
    if case.labels is None and case.mask.suffix.lower() in (".jpg", ".jpeg") and _is_blurred(values):
        return np.where(values >= 128, UNSTATED, 0).astype(np.uint8), ("JPEG blurs a mask: from 128 on it is lesion",)
    _check_is_mask(case, found, is_whole)
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
            f"3 effusion, 4 lesion of an unstated class; state what others mean, such as --labels lesion={max(found)}"
        )
    is_medseg = case.source in MEDSEG_SOURCES
    if set(found) <= {0, 255} or (set(found) <= {0, 1} and not is_medseg):
        return np.where(values > 0, UNSTATED, 0).astype(np.uint8), ()
    names = {label: name for name, label in CLASS_LABELS.items()} | {UNSTATED: "lesion"}
    assumed = ", ".join(f"{value} as {names[value]}" for value in found if value)
    return np.asarray(values, dtype=np.uint8), () if is_medseg else (f"labels taken by default: {assumed}",)


def _is_blurred(values: NDArray[Any]) -> bool:
    """Return whether numbers from 0 to 255 are 0 and 255 but for few between them."""
    white, grey = (values >= 192).sum(), ((values > 63) & (values < 192)).sum()
    return bool(values.max() > 192 and grey < SHARE_BLURRED * white)


def _check_is_mask(case: Case, found: Sequence[int], is_whole: bool) -> None:
    """Refuse the numbers of an image, and of probabilities.

    Raises:
        DatasetError: They are such.
    """
    if len(found) > MOST_LABELS:
        raise DatasetError(
            f"{case.mask} holds {len(found)} different numbers, as an image does: check whether image and mask are "
            "exchanged"
        )
    if min(found) < 0:
        raise DatasetError(f"{case.mask} holds {min(found)}: labels are not negative, save those of lesion as 1")
    if not is_whole and set(found) <= {0, 1}:
        raise DatasetError(
            f"{case.mask} holds fractions, as probabilities are: save it as 0 and 1, such as 1 from 0.5 on"
        )


def check_labelled_share(case: Case, labels: NDArray[np.uint8]) -> None:
    """Refuse a mask that covers nearly everything.

    Raises:
        DatasetError: It is no lesion mask.
    """
    share = float((labels > 0).mean())
    if share > LARGEST_LABELLED_SHARE:
        raise DatasetError(
            f"{case.mask} marks {100 * share:.0f} % of all pixels: a mask is 0 where no lesion is; check its labels"
        )


def read_second_mask(path: Path, axial: AxialView) -> NDArray[np.float32]:
    """Return a second reader's mask (z, y, x) on the upright slices of a scan: the share of lesion in each voxel.

    The slices have to be those of the scan; their pixels may be larger or smaller.

    Raises:
        FormatError: The file is damaged.
        DatasetError: Its slices are not those of the scan.
    """
    mask = read_scan(path)
    view, shape = AxialView(mask.geometry, axial.transposed), axial.geometry.shape
    if view.geometry.shape[0] != shape[0]:
        raise DatasetError(
            f"{path} has {view.geometry.shape[0]} slices, its image {shape[0]}: expected the same slices"
        )
    return np.stack([resize_slice(plane > 0, *shape[1:]) for plane in view.to_axial(mask.values)])
