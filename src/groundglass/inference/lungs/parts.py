"""The parts of a scan, a volume or each picture of a stack, and what the lung network is shown and says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.lungs.margins import without_margins
from groundglass.inference.lungs.network import INSIDE
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import bounding_box
from groundglass.scan.scan import ImageStack, Scan

LOCATE_MM = 15.0  # distance of the slices in which the lungs are looked for first
OUTLINE_MM = 2.5  # slices nearer to each other are not all outlined: the lungs between them are interpolated
FEWEST_SLICES = 8  # that are looked at in any case
AROUND = 0.12  # margin of the part of the slices in which the lungs are outlined, as a share of their extent
IMAGE_WIDTH_MM = 350.0  # assumed for an image, which states no spacing
HALF, CERTAIN = 128, 230  # probabilities of 0.5 and 0.9 in a map

# (n, 2, y, x) probabilities, 255 for 1: of the lung on the left of the image, and of the other.
Maps = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Part:
    """Slices that belong together: a whole volume, or one image of a stack.

    Attributes:
        slices: Indices of its slices.
        content: What of them shows the body: all but padding, and the margins around an image.
        spacing: (z, y, x) in mm; assumed for an image, and where it is not stated.
        is_image: Whether it is an image of a stack.
        spacing_stated: Whether the spacing was stated.
    """

    slices: range
    content: Box
    spacing: tuple[float, float, float]
    is_image: bool = False
    spacing_stated: bool = False

    def every(self, distance_mm: float) -> NDArray[np.int64]:
        """Return indices of slices at most this far apart, or next to each other, the first and the last among them.

        They are `FEWEST_SLICES` or more where there are as many: the spacing may be wrong.
        """
        step = max(1, min(int(distance_mm / self.spacing[0]), len(self.slices) // FEWEST_SLICES))
        return np.union1d(np.array(self.slices[::step]), np.array(self.slices[-1:]))


@dataclass(frozen=True, eq=False)
class View:
    """What the network sees of a part, and what it says.

    Attributes:
        part: The part.
        slices: Indices of the slices that are looked at.
        box: The part of each slice that is looked at; None: nothing, because no lung is there.
        levels: (n, y, x) the slices on the network's grid, where the window is to be estimated from them.
        maps: (n, 2, y, x) probabilities of both lungs, 0 in regions that are no lung.
    """

    part: Part
    slices: NDArray[np.int64]
    box: Box | None
    levels: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, INSIDE, INSIDE), np.float32))
    maps: Maps = field(default_factory=lambda: np.zeros((0, 2, INSIDE, INSIDE), np.uint8))

    @property
    def lungs(self) -> NDArray[np.bool_]:
        """(n, y, x) what is more likely lung than not."""
        return np.asarray(self.maps.max(1) >= HALF)


def parts_of(scan: Scan, values: NDArray[Any], geometry: Geometry) -> list[Part]:
    """Return the parts of a scan whose upright axial slices (z, y, x) lie on `geometry`."""
    count, height, width = geometry.shape
    if isinstance(scan, ImageStack):
        contents = [
            without_margins(plane[:rows, :columns]) for plane, (rows, columns) in zip(values, scan.sizes, strict=True)
        ]
        return [
            Part(range(z, z + 1), content, _assumed_spacing(content.right - content.left), is_image=True)
            for z, content in enumerate(contents)
        ]
    spacing = geometry.spacing if geometry.in_mm else _assumed_spacing(width)
    return [Part(range(count), Box(0, height, 0, width), spacing, spacing_stated=geometry.in_mm)]


def _assumed_spacing(width: int) -> tuple[float, float, float]:
    return LOCATE_MM, IMAGE_WIDTH_MM / width, IMAGE_WIDTH_MM / width


def whole_slices(part: Part) -> View:
    """Return the view in which the lungs of a part are looked for first."""
    return View(part, part.every(LOCATE_MM), part.content)


def middle_of_slices(whole: View) -> View:
    """Return the view in which the lungs of a small patient in a wide field of view are looked for."""
    (top, bottom), (left, right) = whole.part.content.spans
    dy, dx = (bottom - top) // 4, (right - left) // 4
    return replace(whole, box=Box(top + dy, bottom - dy, left + dx, right - dx))


def around_lungs(located: View) -> View:
    """Return the view of the lungs with a margin in which they are outlined."""
    return View(located.part, located.part.every(OUTLINE_MM), _box_around(located))


def _box_around(located: View) -> Box | None:
    bounds = bounding_box(np.asarray(located.lungs.any(0)))
    if bounds is None or located.box is None:
        return None
    ends = []
    for side, (first, end) in zip(bounds, located.box.spans, strict=True):
        margin, size = AROUND * (side.stop - side.start), end - first
        start = max(0, min(size - 1, round((side.start - margin) / INSIDE * size)))
        ends += [first + start, first + min(size, max(start + 1, round((side.stop + margin) / INSIDE * size)))]
    return Box(*ends)


def mean_certainty(maps: Maps) -> float:
    """Return the mean probability, from 0 to 1, of what is more likely lung than not; 0 without any."""
    lung = maps.max(1)
    return float(lung[lung >= HALF].mean()) / 255 if (lung >= HALF).any() else 0.0


def certain_pixels(views: Sequence[View]) -> int:
    """Count the pixels that are lung with a probability of 0.9 or more."""
    return sum(int(np.count_nonzero(plane.max(0) >= CERTAIN)) for view in views for plane in view.maps)
