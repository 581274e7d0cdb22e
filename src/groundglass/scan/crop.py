"""From a box of an axial slice to the network's input and back: the same for training and inference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.scan.lung_field import Box


def slices_apart(neighbours_mm: float, spacing_mm: float | None) -> int:
    """How many slices on a neighbour at that distance lies: one at least; 0 where there is none, as of a picture."""
    if not neighbours_mm or spacing_mm is None:
        return 0
    return max(1, round(neighbours_mm / spacing_mm))


def _resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear, averaging over the covered pixels when it shrinks."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


@dataclass(frozen=True)
class Letterbox:
    """A box of a slice, scaled without distortion into the middle of a fixed size.

    Attributes:
        box: The part of the slice, in its pixels.
        size: (height, width) of the network's input.
    """

    box: Box
    size: tuple[int, int]

    @property
    def _inside(self) -> tuple[slice, slice]:
        """Where the box's content lies in the fixed size."""
        height, width = self.box.bottom - self.box.top, self.box.right - self.box.left
        scale = min(self.size[0] / height, self.size[1] / width)
        inner = [max(1, min(full, round(n * scale))) for n, full in zip((height, width), self.size, strict=True)]
        top, left = ((full - n) // 2 for n, full in zip(inner, self.size, strict=True))
        return slice(top, top + inner[0]), slice(left, left + inner[1])

    def apply(self, plane: NDArray[np.float32], fill: float) -> NDArray[np.float32]:
        """(H, W) of a slice -> (height, width), with `fill` around the box's content."""
        box, (rows, columns) = self.box, self._inside
        out = np.full(self.size, fill, dtype=np.float32)
        content = plane[box.top : box.bottom, box.left : box.right]
        out[rows, columns] = _resize(content, rows.stop - rows.start, columns.stop - columns.start)
        return out

    def invert(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """(height, width) of the network -> the box's own pixels."""
        return _resize(plane[self._inside], self.box.bottom - self.box.top, self.box.right - self.box.left)
