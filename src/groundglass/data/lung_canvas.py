"""The lungs of one slice on a canvas of fixed size: slices of any size, position and window become comparable.

    locate_lungs     find the lungs of a slice; scale its grey levels so that lung is 0 and soft tissue is 1
    draw_outlines    outlines of the lungs, fissures and hila, on a small canvas
    draw_vessels     vessels inside the lungs, on a larger canvas

A canvas shows the lungs at a fixed size around their centre, and its contrast is evened out. Grey levels need not be
calibrated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.scan.crop import resize_slice

FloatImage = NDArray[np.float32]

# Every slice is resampled to this width before its lungs are located. Pixel counts below refer to it.
WORKING_WIDTH = 192
# Grey levels within the margin around a picture differ by at most this much.
FLAT_HU = 10
# Pictures with fewer rows or columns than this inside their margin are not compared.
SMALLEST_CONTENT_PIXELS = 8
# A region of air that covers a smaller share of the slice is no lung.
SMALLEST_REGION_SHARE = 0.004
# A region of air at a corner is a lung cut by the picture's edge only if it covers more than this share of the slice.
SMALLEST_CORNER_REGION_SHARE = 0.05
# A region of air along more than this share of the top or bottom edge is air outside the body.
LARGEST_EDGE_SHARE = 0.5
# A slice is compared only if its lungs cover this share of it ...
SMALLEST_LUNG_SHARE = 0.07
# ... and soft tissue is brighter than lung by this many HU.
SMALLEST_CONTRAST_HU = 200
# Scaled grey levels are clipped to this range: neither airways nor bones may outweigh the vessels.
GREY_RANGE = (-0.3, 1.05)
# A canvas is this many radii of gyration of the lungs wide: the lungs fill it with a margin.
CANVAS_WIDTH_RADII = 4.4
# Rows and columns of the canvas of outlines.
OUTLINE_CANVAS = (40, 48)
# The canvas of vessels consists of square cells of this many pixels a side, in these numbers of rows and columns.
CELL = 9
CELLS = (11, 13)
VESSEL_CANVAS = (CELL * CELLS[0], CELL * CELLS[1])
# Outlines are structures up to the second of these sizes, vessels are those between the two (Gaussian sigma in pixels).
OUTLINE_SIGMAS = (0, 3)
VESSEL_SIGMAS = (0.8, 3.2)
# Where the local contrast is far below this level, it is noise and is not raised to that of vessels.
NOISE_LEVEL = 0.06


class LungPicture(NamedTuple):
    """A slice at the working width, without the margin around its content.

    Attributes:
        picture: (height, width) grey levels, scaled so that lung is about 0 and soft tissue about 1.
        mask: (height, width) 1 inside the lungs, vessels included, else 0.
        centre: (y, x) mean position of the lungs' pixels.
        radius: Radius of gyration of the lungs in pixels.
    """

    picture: FloatImage
    mask: FloatImage
    centre: NDArray[np.float64]
    radius: float


class Alignment(NamedTuple):
    """How a slice is laid on another one: scaled, then mirrored, then shifted.

    Attributes:
        scale: Enlargement of its lungs beyond the size at which a canvas shows them.
        mirrored: Whether left and right are exchanged.
        shift: (y, x) in pixels of the canvas of outlines.
    """

    scale: float = 1.0
    mirrored: bool = False
    shift: tuple[int, int] = (0, 0)


def locate_lungs(hu: NDArray[np.int16]) -> LungPicture | None:
    """Find the lungs of a slice.

    Args:
        hu: (height, width) in approximate HU.

    Returns:
        The scaled slice and its lungs; None if it shows too little lung, or too coarsely, to be compared.
    """
    margin = _margin(hu)
    rows, columns = np.flatnonzero(~margin.all(1)), np.flatnonzero(~margin.all(0))
    if len(rows) < SMALLEST_CONTENT_PIXELS or len(columns) < SMALLEST_CONTENT_PIXELS:
        return None
    content = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    plane, in_picture = _resample(hu[content]), _resample(~margin[content]) > 0.99
    threshold = _isodata_threshold(plane[in_picture])
    smooth = ndimage.gaussian_filter(plane, WORKING_WIDTH / 128)
    air = (smooth < threshold) & ndimage.binary_erosion(in_picture, iterations=2, border_value=1)
    mask = _lung_mask(air)
    if mask.mean() < SMALLEST_LUNG_SHARE:
        return None
    lung, tissue = np.median(plane[mask]), np.median(plane[plane >= threshold])
    positions = np.array(np.nonzero(mask), dtype=np.float64)
    radius = float(np.sqrt(positions.var(1).sum()))
    too_coarse = CANVAS_WIDTH_RADII * radius / VESSEL_CANVAS[1] * len(columns) < WORKING_WIDTH
    if too_coarse or tissue - lung < SMALLEST_CONTRAST_HU:
        return None
    picture = np.clip((plane - lung) / (tissue - lung), *GREY_RANGE)
    return LungPicture(picture, mask.astype(np.float32), positions.mean(1), radius)


def _margin(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(height, width) the flat regions at the corners, which a letterbox, a viewer or the scanner put there."""
    margin = np.zeros(hu.shape, dtype=np.bool_)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        regions, _ = ndimage.label(np.abs(hu.astype(np.int32) - hu[corner]) <= FLAT_HU)
        margin |= regions == regions[corner]
    return np.asarray(ndimage.binary_dilation(margin))


def _resample(plane: NDArray[Any]) -> FloatImage:
    """Resample a slice to the working width."""
    height, width = plane.shape
    return resize_slice(plane, max(8, round(height * WORKING_WIDTH / width)), WORKING_WIDTH)


def _isodata_threshold(levels: FloatImage) -> float:
    """Return the threshold between air and tissue: halfway between the means of the darker and the brighter levels."""
    threshold = float(levels.mean())
    for _ in range(10):
        threshold = float(levels[levels <= threshold].mean() + levels[levels >= threshold].mean()) / 2
    return threshold


def _lung_mask(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x) the regions of air inside the body, with their vessels."""
    regions, count = ndimage.label(air)
    share = np.bincount(regions.ravel(), minlength=count + 1) / air.size
    keep = share > SMALLEST_REGION_SHARE
    for edge in (regions[0], regions[-1]):  # air outside runs along an edge or fills a corner; an edge may cut a lung
        keep &= np.bincount(edge, minlength=count + 1) < LARGEST_EDGE_SHARE * len(edge)
        keep[edge[[0, -1]]] &= share[edge[[0, -1]]] > SMALLEST_CORNER_REGION_SHARE
    keep[0] = False
    reach = WORKING_WIDTH // 32  # pixels: the closing includes vessels up to twice as wide
    inner = slice(2 * reach, -2 * reach)
    closed = ndimage.binary_closing(np.pad(keep[regions], 2 * reach), iterations=reach)[inner, inner]
    return np.asarray(ndimage.binary_opening(ndimage.binary_fill_holes(closed), iterations=3))


def draw_outlines(lungs: LungPicture, scale: float) -> FloatImage:
    """Draw the outlines of the lungs, fissures and hila on the small canvas.

    Returns:
        (y, x) `OUTLINE_CANVAS` of unit norm: the product of two such canvases is their correlation.
    """
    picture, mask = _draw(lungs, OUTLINE_CANVAS, scale)
    outlines = _even_out(picture, ndimage.grey_dilation(mask, (3, 3)), *OUTLINE_SIGMAS)
    return outlines / max(float(np.linalg.norm(outlines)), 1e-6)


def draw_vessels(lungs: LungPicture, alignment: Alignment) -> tuple[FloatImage, FloatImage]:
    """Draw the vessels inside the lungs on the large canvas.

    Returns:
        (y, x) `VESSEL_CANVAS` of vessels, aligned, and of the lungs without their rim: 1 inside (scaled and mirrored,
        but not shifted).
    """
    picture, mask = _draw(lungs, VESSEL_CANVAS, alignment.scale)
    inside = ndimage.binary_erosion(mask > 0.5).astype(np.float32)
    vessels = _even_out(picture, inside, *VESSEL_SIGMAS)
    if alignment.mirrored:
        vessels, inside = vessels[:, ::-1], inside[:, ::-1]
    if alignment.shift != (0, 0):
        pixels = VESSEL_CANVAS[1] / OUTLINE_CANVAS[1]
        vessels = ndimage.shift(vessels, [-step * pixels for step in alignment.shift], order=1)
    return vessels, inside


def _draw(lungs: LungPicture, canvas: tuple[int, int], scale: float) -> tuple[FloatImage, FloatImage]:
    """Resample picture and mask to a canvas that the lungs fill."""
    step = CANVAS_WIDTH_RADII * lungs.radius / canvas[1] / scale
    corner = lungs.centre - step * (np.array(canvas) - 1) / 2
    smooth = ndimage.gaussian_filter(lungs.picture, 0.5 * np.sqrt(max(0.0, step**2 - 1)), mode="nearest")
    picture, mask = (
        ndimage.affine_transform(plane, [step] * 2, corner, canvas, order=1) for plane in (smooth, lungs.mask)
    )
    return picture, mask


def _even_out(picture: FloatImage, weight: FloatImage, finest: float, coarsest: float) -> FloatImage:
    """Return the structures between two sizes (Gaussian sigmas in pixels) at about equal contrast everywhere."""

    def mean(plane: FloatImage, sigma: float) -> FloatImage:
        near = ndimage.gaussian_filter(weight, sigma, mode="constant")
        return np.asarray(ndimage.gaussian_filter(plane * weight, sigma, mode="constant") / np.maximum(near, 1e-3))

    detail = (mean(picture, finest) - mean(picture, coarsest)) * weight
    contrast = np.sqrt(np.maximum(mean(detail**2, coarsest), 0))
    return np.asarray(detail / (contrast + NOISE_LEVEL), dtype=np.float32)
