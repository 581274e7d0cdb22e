"""From a scan to its lungs and lesions: intensities, lungs, network. Other modules measure and draw the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import FormatError, InputError
from groundglass.inference.lungs.finding import ScanWithLungs, find_lungs
from groundglass.inference.lungs.network import open_lung_network
from groundglass.inference.model_card import ModelCard
from groundglass.inference.segmenter import Segmenter, SlicePrediction
from groundglass.scan.components import CONNECTIVITY_8_IN_SLICE, CONNECTIVITY_26
from groundglass.scan.geometry import AxialView
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.scan import ImageStack, Mask, Scan

Progress = Callable[[int, int], None]


class StageTimer:
    """Measures how many seconds each stage takes; `seconds` is in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block inside `with`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True, eq=False)
class SegmentedScan(ScanWithLungs):
    """A scan with its lungs and lesions in upright axial slices; findings measure it and `evaluate` scores it.

    Attributes:
        class_map: (z, y, x) uint8: 0 without lesion; otherwise 1, or the number of the lesion's class.
    """

    class_map: PackedMask

    @cached_property
    def lesions(self) -> PackedMask:
        """(z, y, x) bool: lesion of any class."""
        return foreground(self.class_map)

    def slice_size(self, z: int) -> tuple[int, int]:
        """Return (height, width) of slice `z` of the view, without the padding of an image stack."""
        return self.scan.sizes[z] if isinstance(self.scan, ImageStack) else (self.hu.shape[1], self.hu.shape[2])

    def mask(self, voxels: NDArray[np.bool_]) -> Mask:
        """Return a mask on the scan's own grid from (z, y, x) voxels of the view."""
        return Mask(self.view.from_axial(voxels), self.view.source)


def segment_scan(
    scan: Scan,
    segmenter: Segmenter,
    intensity: IntensityKind | None = None,
    progress: Progress = lambda *_: None,
    timer: StageTimer | None = None,
) -> SegmentedScan:
    """Find the lungs of a scan and the lesions in them.

    Args:
        scan: Any orientation; image stacks too.
        segmenter: A loaded model.
        intensity: Meaning of the scan's intensities; None: recognise it from the values.
        progress: Called with the number of slices done and the number of all.
        timer: Gets the seconds of each stage.

    Raises:
        IntensityError: The numbers are not recognised as CT.
        LungError: No slice shows lung.
    """
    timer = timer or StageTimer()
    threads = segmenter.engine.card.threads
    return segment_lesions(segment_lungs(scan, segmenter.card, intensity, timer, threads), segmenter, progress, timer)


def segment_lungs(
    scan: Scan,
    card: ModelCard,
    intensity: IntensityKind | None = None,
    timer: StageTimer | None = None,
    threads: int | None = None,
    progress: Progress = lambda *_: None,
) -> SegmentedScan:
    """Find the lungs of a scan, and what its numbers are in HU; the result holds no lesions yet.

    Args:
        scan: Any orientation; image stacks too.
        card: The card of the model that will find the lesions.
        intensity: Meaning of the scan's intensities; None: recognise it from the values.
        timer: Gets the seconds of the stage.
        threads: Number of threads; None: one for each core.
        progress: Called with the number of slices that were looked at and the number of all that will be.

    Raises:
        IntensityError: The numbers are not recognised as CT.
        LungError: No slice shows lung.
    """
    with (timer or StageTimer()).stage("lungs"), _naming_the_series(scan):
        found = find_lungs(scan, card.field_of_view, intensity, open_lung_network(threads), progress)
    empty = np.zeros(found.hu.shape[1:], dtype=np.uint8)
    class_map = PackedMask.from_slices([empty] * len(found.hu))
    return SegmentedScan(found.scan, found.view, found.intensity, found.hu, found.lung_field, class_map)


@contextmanager
def _naming_the_series(scan: Scan) -> Iterator[None]:
    """Add to a refusal which DICOM series was chosen, if there are others."""
    try:
        yield
    except InputError as error:
        raise (type(error)(f"{error}; {scan.choice}") if scan.choice else error) from None


def segment_lesions(
    segmented: SegmentedScan,
    segmenter: Segmenter,
    progress: Progress = lambda *_: None,
    timer: StageTimer | None = None,
    on_prediction: Callable[[SlicePrediction], None] = lambda _: None,
) -> SegmentedScan:
    """Find the lesions of a scan whose lungs are known, and include them in the lungs.

    Args:
        segmented: The result of `segment_lungs`.
        segmenter: A loaded model.
        progress: Called with the number of slices done and the number of all.
        timer: Gets the seconds of the stage.
        on_prediction: Called with the prediction of each slice before it is thresholded.
    """
    with (timer or StageTimer()).stage("lesions"):
        class_map = segmenter.class_map(segmented.hu, segmented.lung_field, progress, on_prediction)
        voxel_ml = segmented.view.geometry.voxel_ml
        smallest = 0.0 if voxel_ml is None else segmenter.card.smallest_ml / voxel_ml
        connectivity = CONNECTIVITY_8_IN_SLICE if isinstance(segmented.scan, ImageStack) else CONNECTIVITY_26
        kept = segmented.lung_field.remove_extrapulmonary(foreground(class_map), smallest, connectivity)
        class_map = PackedMask.from_slices(classes * near for classes, near in zip(class_map, kept, strict=True))
        return _with_lesions(segmented, class_map)


def segment_by_mask(
    scan: Scan, mask: Scan, card: ModelCard, timer: StageTimer | None = None, progress: Progress = lambda *_: None
) -> SegmentedScan:
    """Find the lungs of a scan and take its lesions from a mask that a person has corrected.

    Args:
        scan: The scan.
        mask: A mask on the scan's grid, its axes in any order and direction: 0 without lesion; otherwise 1, or for a
            model with class maps the number of the class.
        card: The card of the model whose mask was corrected.
        timer: Gets the seconds of each stage.
        progress: Called while the lungs are found: see `segment_lungs`.

    Raises:
        FormatError: The mask lies on another grid, or has values that are not the number of a class.
        IntensityError: The scan's numbers are not recognised as CT.
        LungError: No slice of the scan shows lung.
    """
    segmented = segment_lungs(scan, card, None, timer, progress=progress)
    view = AxialView(mask.geometry, segmented.view.transposed)
    if not view.geometry.matches(segmented.view.geometry, tolerance_mm=0.01):
        is_like = str(mask.geometry) == str(scan.geometry)
        where = "in another place or direction" if is_like else f"on {mask.geometry}"
        raise FormatError(
            f"the corrected mask lies {where}, expected the scan's grid, {scan.geometry}: draw on the scan itself"
        )
    values, classes = view.to_axial(mask.values), max(1, len(card.classes) - 1)
    if not np.isin(np.unique(values), np.arange(classes + 1)).all():
        raise FormatError(f"the corrected mask has values other than 0 to {classes}: draw with these alone")
    return _with_lesions(segmented, PackedMask.from_slices(plane.astype(np.uint8) for plane in values))


def foreground(class_map: PackedMask) -> PackedMask:
    """Return (z, y, x) bool: True where a class map is not 0."""
    return PackedMask(tuple(packed.foreground for packed in class_map.slices))


def _with_lesions(segmented: SegmentedScan, class_map: PackedMask) -> SegmentedScan:
    lung_field = segmented.lung_field.including_lesions(foreground(class_map))
    return replace(segmented, class_map=class_map, lung_field=lung_field)
