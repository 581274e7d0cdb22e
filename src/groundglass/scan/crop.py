"""Scale a box of an axial slice to the network's input and back, in training and inference alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.scan.lung_field import Box


def slices_apart(neighbours_mm: float, spacing_mm: float | None) -> int:
    """Return the number of slices between a slice and the neighbour that the network sees with it.

    Args:
        neighbours_mm: Distance of the neighbour that the network was trained with; 0 if it sees no neighbours.
        spacing_mm: Distance between slices; None if they are unrelated pictures.

    Returns:
        At least 1; 0 if there is no neighbour.
    """
    if not neighbours_mm or spacing_mm is None:
        return 0
    return max(1, round(neighbours_mm / spacing_mm))


def resize_slice(plane: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize a slice (y, x) to (height, width) bilinearly, averaging over the covered pixels where it shrinks."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


@dataclass(frozen=True)
class Letterbox:
    """A box of a slice, with what is mirrored beside it, scaled without distortion into the middle of a fixed size.

    Attributes:
        box: The part of the slice, in pixels of the slice.
        size: (height, width) of the network's input.
        pixel_aspect: Height of a pixel of the slice as a multiple of its width; those of the input are square.
    """

    box: Box
    size: tuple[int, int]
    pixel_aspect: float = 1.0

    @property
    def _seen(self) -> tuple[int, int]:
        """(height, width) in pixels of the slice, with what is mirrored."""
        above, below, left, right = self.box.mirrored
        return self.box.bottom - self.box.top + above + below, self.box.right - self.box.left + left + right

    @property
    def _inside(self) -> tuple[slice, slice]:
        """The rows and columns of the fixed size that the box fills."""
        height, width = self._seen
        in_proportion = height * self.pixel_aspect, width
        scale = min(full / n for n, full in zip(in_proportion, self.size, strict=True))
        inner = [max(1, min(full, round(n * scale))) for n, full in zip(in_proportion, self.size, strict=True)]
        top, left = ((full - n) // 2 for n, full in zip(inner, self.size, strict=True))
        return slice(top, top + inner[0]), slice(left, left + inner[1])

    def apply(self, plane: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
        """Crop and scale a slice (H, W) to (height, width), with `fill` around the box's content."""
        box, (rows, columns) = self.box, self._inside
        out = np.full(self.size, fill, dtype=np.float32)
        above, below, left, right = box.mirrored
        content = plane[box.top : box.bottom, box.left : box.right]
        if any(box.mirrored):
            content = np.pad(content, ((above, below), (left, right)), mode="symmetric")
        out[rows, columns] = resize_slice(content, rows.stop - rows.start, columns.stop - columns.start)
        return out

    def invert(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale an output of the network (height, width) back to the pixels of the box."""
        above, _, left, _ = self.box.mirrored
        seen = resize_slice(plane[self._inside], *self._seen)
        return seen[above : above + self.box.bottom - self.box.top, left : left + self.box.right - self.box.left]
