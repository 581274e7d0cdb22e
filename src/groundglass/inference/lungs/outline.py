"""From the lung network's maps to the lungs on the scan's own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.inference.lungs.box import lung_boxes
from groundglass.inference.lungs.incomplete import lung_warnings
from groundglass.inference.lungs.parts import HALF, View
from groundglass.parallel import map_in_threads
from groundglass.scan.geometry import Geometry
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask, PackedSlice, pack_slice

SMALLEST_SLICE_MM2 = 150.0  # a slice with less lung than this counts as a slice without lung
NEARLY_SQUARE = 0.02  # height and width of pixels that differ by a smaller share count as equal
CLEAR_SIDES = 0.8  # mean certainty about the sides, from 0 to 1, below which they are unknown


def outline_lungs(
    outlined: Sequence[View], geometry: Geometry, is_volume: bool, field_of_view: FieldOfView, threads: int
) -> LungField:
    """Return the lungs of a scan.

    Args:
        outlined: What the network says of each part around its lungs.
        geometry: The grid of the upright axial slices.
        is_volume: Whether these form one body.
        field_of_view: The part of a slice with lung that its box holds.
        threads: Number of threads.
    """
    rights: list[PackedSlice] = []
    lefts: list[PackedSlice] = []
    boxes: list[Box | None] = []
    for view in outlined:
        restored = _restore(view, geometry.shape[1:], threads)
        right, left = (PackedMask(tuple(side)) for side in zip(*restored, strict=True))
        rights += right.slices
        lefts += left.slices
        boxes += lung_boxes(right, left, view.part, field_of_view)
    lungs = LungField(
        PackedMask(tuple(rights)),
        PackedMask(tuple(lefts)),
        tuple(boxes),
        spacing_mm=geometry.spacing[0] if is_volume and geometry.in_mm else None,
        sides_known=_sides_are_clear(outlined),
        pixel_aspect=_pixel_aspect(geometry),
    )
    return replace(lungs, warnings=lung_warnings(lungs, geometry, is_volume))


def _pixel_aspect(geometry: Geometry) -> float:
    """Return the height of a pixel as a multiple of its width: 1 where they are nearly equal, as on rounded grids."""
    _, dy, dx = geometry.spacing
    return 1.0 if abs(dy / dx - 1) < NEARLY_SQUARE else max(0.01, dy / dx)


def _restore(view: View, shape: tuple[int, ...], threads: int) -> Iterator[tuple[PackedSlice, PackedSlice]]:
    """Yield the right and the left lung (y, x) of each slice of a part on the scan's own pixels."""
    _, dy, dx = view.part.spacing
    smallest, box = SMALLEST_SLICE_MM2 / (dy * dx), view.box or Box(0, 0, 0, 0)

    def restored(position: float) -> tuple[PackedSlice, PackedSlice]:
        below, share = int(position), position % 1
        between = view.maps[below] if share == 0 else (1 - share) * view.maps[below] + share * view.maps[below + 1]
        sides = np.zeros((2, *shape), dtype=np.bool_)
        if between.max() >= HALF:
            on_right, on_left = (_enlarge(side, box) for side in between)
            lung = np.maximum(on_right, on_left) >= HALF
            if np.count_nonzero(lung) >= smallest:
                inside = sides[:, box.top : box.bottom, box.left : box.right]
                inside[0], inside[1] = lung & (on_right >= on_left), lung & (on_right < on_left)
        return pack_slice(sides[0]), pack_slice(sides[1])

    positions = np.interp(view.part.slices, view.slices, np.arange(len(view.slices)))
    return map_in_threads(restored, positions, threads)


def _enlarge(probability: NDArray[np.floating | np.uint8], box: Box) -> NDArray[np.uint8]:
    """Scale a map of the network to the pixels of a box."""
    image = Image.fromarray(np.rint(probability).astype(np.uint8))
    return np.asarray(image.resize((box.right - box.left, box.bottom - box.top), Image.Resampling.BILINEAR))


def _sides_are_clear(outlined: Sequence[View]) -> bool:
    """Return whether the network tells the right lung from the left one with some certainty."""
    certainty = pixels = 0.0
    for right, left in (plane.astype(np.float32) for view in outlined for plane in view.maps):
        lung = np.maximum(right, left) >= HALF
        certainty += float((np.abs(right - left)[lung] / (right + left)[lung]).sum())
        pixels += float(lung.sum())
    return certainty >= CLEAR_SIDES * max(pixels, 1.0)
