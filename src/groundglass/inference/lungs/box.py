"""The part of the slices that the lesion network sees.

It has learned from whole chests. So the box always has its margin; where the scan covers a part of the lungs alone, it
is no smaller than around whole ones; and where one lung is missing, it has the width of two. What of it lies beyond the
slice is seen as the slice's mirror image: with air in its place, healthy lung beside it is taken for lesion.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundglass.inference.lungs.incomplete import cut_ends, missing_sides
from groundglass.inference.lungs.parts import Part
from groundglass.scan.kinds import FieldOfView
from groundglass.scan.lung_field import Box
from groundglass.scan.packed_mask import BoundingBox, PackedMask, voxels_per_slice

MARGIN_MM = 8.0  # of the box around the lungs
LEAST_MM = (175.0, 235.0)  # (height, width) of the smallest box around whole lungs in 14 scans of adults
CROPPED_IMAGE = 0.6  # share of an image: a box that covers more shows that the image was cropped to the lungs

Span = tuple[int, int]  # the first row or column, and the one just outside; it may reach beyond the slice


def lung_boxes(right: PackedMask, left: PackedMask, part: Part, field_of_view: FieldOfView) -> list[Box | None]:
    """Return the box of each slice of a part; they are equal, so that the scale is constant.

    Args:
        right: (z, y, x) the part's right lung.
        left: (z, y, x) its left lung.
        part: The part.
        field_of_view: The part of a slice with lung that its box holds.
    """
    found = [(z, plane.box) for side in (right, left) for z, plane in enumerate(side.slices) if plane.box is not None]
    if not found:
        return [None] * len(part.slices)
    rows, columns = part.content.spans
    if field_of_view is FieldOfView.LUNGS:
        rows, columns = _around([box for _, box in found], part)
        if part.spacing_stated and cut_ends(voxels_per_slice(right) + voxels_per_slice(left)):
            _, dy, dx = part.spacing
            rows = _at_least(LEAST_MM[0] / dy, rows, part.content.spans[0])
            columns = _at_least(LEAST_MM[1] / dx, columns, part.content.spans[1])
        columns = _with_missing_lung(columns, right, left)
    box = _box_of(rows, columns, part.content)
    shown = [z for z, _ in found]
    return [box if min(shown) - 1 <= z <= max(shown) + 1 else None for z in range(len(part.slices))]


def _around(found: Sequence[BoundingBox], part: Part) -> tuple[Span, Span]:
    """Return rows and columns of the lungs with their margin.

    An image that the lungs fill was cropped to them: they are all of it, because its rim may then be lesion.
    """
    rows, columns = (
        (
            min(side.start for side in sides) - round(MARGIN_MM / mm),
            max(side.stop for side in sides) + round(MARGIN_MM / mm),
        )
        for sides, mm in zip(zip(*found, strict=True), part.spacing[1:], strict=True)
    )
    is_cropped = part.is_image and _box_of(rows, columns, part.content).pixels > CROPPED_IMAGE * part.content.pixels
    return part.content.spans if is_cropped else (rows, columns)


def _at_least(extent: float, span: Span, content: Span) -> Span:
    """Return a span that is as long as `extent` if the slice is; a longer one stays as it is."""
    length = min(round(extent), content[1] - content[0])
    missing = length - (span[1] - span[0])
    if missing <= 0:
        return span
    start = max(content[0], min(span[0] - missing // 2, content[1] - length))
    return start, start + length


def _with_missing_lung(columns: Span, right: PackedMask, left: PackedMask) -> Span:
    """Return columns for two lungs where one is missing: the right one lies at the left of a slice."""
    start, stop = columns
    missing = missing_sides(right, left)
    if "right" in missing:
        return 2 * start - stop, stop
    return (start, 2 * stop - start) if "left" in missing else columns


def _box_of(rows: Span, columns: Span, content: Box) -> Box:
    """Return the part of the slice that lies in rows and columns, and what of them lies beyond it."""
    (top, bottom), (left, right) = rows, columns
    beyond = (
        max(0, content.top - top),
        max(0, bottom - content.bottom),
        max(0, content.left - left),
        max(0, right - content.right),
    )
    inside = max(content.top, top), min(content.bottom, bottom), max(content.left, left), min(content.right, right)
    return Box(*inside, mirrored=beyond)
