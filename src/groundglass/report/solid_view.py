"""Lungs and lesions in three dimensions, drawn without a graphics library.

Lungs are translucent: the more a surface turns away from the viewer, the less one sees through it, as with glass.
Lesions are opaque and lit from the upper left of the viewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.colours import LUNG, Rgb
from groundglass.scan.packed_mask import PackedMask, bounding_box

Direction = Literal["front", "back", "left"]
Floats = NDArray[np.floating]

BACKGROUND = (255, 255, 255)
VOXELS = 176  # of the grid along the longest side of the lungs
RIM_CELLS = 3  # empty cells around the lungs
LIGHT = np.array([0.45, -0.55, -0.7], dtype=np.float32)  # from the picture towards the light: right, down, into it
AMBIENT, DEPTH_SHADE = 0.4, 0.35  # light without direction; darkening of what lies deepest
HIDDEN = 0.6  # how much less the lung's surface covers lesions that lie at it
GLASS, RIM = 0.1, 0.75  # opacity of a lung's surface that faces the viewer, and what is added at its rim


@dataclass(frozen=True, eq=False)
class SolidModel:
    """Lungs and lesions on a grid of equal steps, from feet to head, front to back, right to left.

    Attributes:
        lung: (z, y, x) share of each cell that is lung.
        lesions: For each class (z, y, x) the share that is lesion of it.
    """

    lung: Floats
    lesions: tuple[Floats, ...]

    def draw(self, direction: Direction, size: tuple[int, int], colours: Sequence[Rgb]) -> Image.Image:
        """Draw the model.

        Args:
            direction: Where the viewer stands: in front of the patient, behind, or at the left side.
            size: (width, height) of the picture in pixels.
            colours: Those of the classes.
        """
        body = _seen_from(self.lung, direction)
        scale = min(size[0] / max(self.lung.shape[1:]), size[1] / len(self.lung))  # the same from every side
        drawn = (round(body.shape[2] * scale), round(body.shape[1] * scale))
        near, far = _Surface.find(body, drawn), _Surface.find(body[::-1], drawn)
        colour = np.broadcast_to(np.array(BACKGROUND, np.float32), (*near.depth.shape, 3))
        colour = _blend(colour, LUNG, 0.5 * far.glass, far.light)
        nearest = np.full(near.depth.shape, len(body), np.float32)
        for lesion, lesion_colour in zip(self.lesions, colours, strict=False):
            surface = _Surface.find(_seen_from(lesion, direction), drawn)
            in_front = surface.cover * (surface.depth < nearest)
            shade = surface.light * (1 - DEPTH_SHADE * surface.depth / len(body))
            colour = _blend(colour, lesion_colour, in_front, shade)
            nearest = np.where(in_front > 0.5, surface.depth, nearest)
        at_the_surface = nearest < near.depth + 3
        colour = _blend(colour, LUNG, near.glass * (1 - HIDDEN * at_the_surface.astype(np.float32)), near.light)
        sheet = Image.new("RGB", size, BACKGROUND)
        image = Image.fromarray(colour.clip(0, 255).astype(np.uint8))
        sheet.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
        return sheet


@dataclass(frozen=True, eq=False)
class _Surface:
    """The surface of a body that a viewer sees, each (height, width) of the picture.

    Attributes:
        cover: 1 where the body is, 0 where it is not, between them at its rim.
        depth: Distance from the viewer in cells.
        light: How bright a surface of this slope is.
        glass: Opacity of the surface if it is of glass.
    """

    cover: Floats
    depth: Floats
    light: Floats
    glass: Floats

    @classmethod
    def find(cls, body: Floats, size: tuple[int, int]) -> _Surface:
        """Find where a (depth, rows, columns) body is first met; `size` is (width, height) of the picture."""
        inside = body > 0.5
        densest = body.argmax(0)
        first = np.where(inside.any(0), inside.argmax(0), densest)  # beside the body: where it is nearly met
        highest = np.take_along_axis(body, densest[None], 0)[0]
        here = np.take_along_axis(body, first[None], 0)[0]
        before = np.take_along_axis(body, np.maximum(first - 1, 0)[None], 0)[0]
        step_back = np.where((here > 0.5) & (first > 0), (here - 0.5) / np.maximum(here - before, 1e-3), 0)
        normal = np.stack([_enlarge(part, size) for part in _normals(body, first)], axis=-1)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        pixels_a_cell = size[0] / body.shape[2]
        cover = np.clip((_enlarge(highest, size) - 0.5) * 3 * pixels_a_cell + 0.5, 0, 1)
        light = AMBIENT + (1 - AMBIENT) * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
        glass = cover * (GLASS + RIM * (1 - np.abs(normal[..., 2])) ** 2)
        return cls(cover, _enlarge(first - step_back, size), light, glass)


def _enlarge(field: NDArray[np.floating], size: tuple[int, int]) -> Floats:
    """Return a (rows, columns) field at another (width, height)."""
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _normals(body: Floats, first: NDArray[np.intp]) -> Floats:
    """Return (3, rows, columns) the outward normal (right, down, into the picture) where a body is first met."""
    rows, columns = np.mgrid[: first.shape[0], : first.shape[1]]
    deepest, lowest, last = (n - 1 for n in body.shape)

    def value(dz: int, dy: int, dx: int) -> Floats:
        z, y, x = (np.clip(i + d, 0, n) for i, d, n in ((first, dz, deepest), (rows, dy, lowest), (columns, dx, last)))
        return np.asarray(body[z, y, x])

    slopes = [
        value(0, 0, -2) + value(0, 0, -1) - value(0, 0, 1) - value(0, 0, 2),
        value(0, -2, 0) + value(0, -1, 0) - value(0, 1, 0) - value(0, 2, 0),
        value(-2, 0, 0) + value(-1, 0, 0) - value(1, 0, 0) - value(2, 0, 0),
    ]
    normal = np.stack(slopes)
    return np.asarray(normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-6))


def _blend(picture: Floats, colour: Rgb, opacity: Floats, light: Floats) -> Floats:
    alpha = np.clip(opacity, 0, 1)[..., None]
    return np.asarray(picture * (1 - alpha) + np.array(colour, np.float32) * light[..., None] * alpha, np.float32)


def _seen_from(volume: Floats, direction: Direction) -> Floats:
    """Return (depth, rows, columns) a (z, y, x) volume as a viewer sees it, head up."""
    upright = volume[::-1]
    if direction == "front":
        return upright.transpose(1, 0, 2)
    if direction == "back":
        return upright.transpose(1, 0, 2)[::-1, :, ::-1]
    return upright.transpose(2, 0, 1)[::-1]


def make_solid_model(segmented: SegmentedScan) -> SolidModel | None:
    """Make a model of a volume with a spacing; None where no lung is found.

    Args:
        segmented: A volume of any number of slices.
    """
    lung = segmented.lung_field.mask
    shown = [z for z, packed in enumerate(lung.slices) if packed.box is not None]
    if not shown:
        return None
    outline = bounding_box(segmented.lung_field.outline) or ()
    classes = max((int(packed.unpacked().max()) for packed in segmented.class_map.slices if packed.box), default=1)
    extent = np.array([shown[-1] - shown[0] + 1, *(side.stop - side.start for side in outline)])
    extent_mm = extent * segmented.view.geometry.spacing
    depth, rows, columns = np.maximum(1, np.round(extent_mm * VOXELS / extent_mm.max())).astype(int).tolist()
    heights = slice(shown[0], shown[-1] + 1)

    def fine(mask: PackedMask, number: int) -> Floats:
        planes = (packed.unpacked()[outline] == number if packed.box else None for packed in mask.slices[heights])
        return _resample(planes, heights.stop - heights.start, (depth, rows, columns))

    lesions = (fine(segmented.class_map, number + 1) for number in range(classes))
    return SolidModel(fine(lung, 1), tuple(lesions))


def _resample(planes: Iterable[NDArray[np.bool_] | None], count: int, size: tuple[int, int, int]) -> Floats:
    """Return (z, y, x) a mask on a grid of `size` cells, smoothed, in a rim of empty cells.

    Args:
        planes: Its slices (y, x); None: an empty one.
        count: Number of slices.
        size: Number of cells along (z, y, x).
    """
    depth, rows, columns = size
    at = np.clip((np.arange(depth) + 0.5) * count / depth - 0.5, 0, count - 1)
    low = at.astype(int)
    high, weight = np.minimum(low + 1, count - 1), (at - low).astype(np.float32)
    stacked = np.zeros(size, np.float32)
    for z, plane in enumerate(planes):
        if plane is None or not plane.any():
            continue
        small = np.asarray(Image.fromarray(plane.astype(np.float32)).resize((columns, rows), Image.Resampling.BOX))
        for slices, shares in ((low, 1 - weight), (high, weight)):
            stacked[slices == z] += shares[slices == z, None, None] * small
    return _smooth(np.pad(stacked, RIM_CELLS))


def _smooth(volume: Floats) -> Floats:
    """Return a (z, y, x) volume smoothed by a Gaussian of 0.9 cells."""
    planes = np.stack([cv2.GaussianBlur(plane, (9, 9), 0.9, borderType=cv2.BORDER_REFLECT) for plane in volume])
    columns = planes.reshape(len(planes), -1)
    smoothed = cv2.GaussianBlur(columns, (1, 9), 0.9, borderType=cv2.BORDER_REFLECT)
    return np.asarray(np.reshape(smoothed, volume.shape), dtype=np.float32)
