"""The slices of the report's viewer: an image of each, and its lesion contour as a separate image."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.inference.pipeline import SegmentedScan
from groundglass.parallel import map_in_threads
from groundglass.report.charts import Chart
from groundglass.report.colours import Rgb, named_colours
from groundglass.report.findings import Findings
from groundglass.report.image_numbers import describe_share, place_image
from groundglass.report.preview import displayed_region, draw_outline
from groundglass.scan.intensity import LUNG_WINDOW
from groundglass.workers import available_cores

SIDE = 512  # longest side of a drawn slice in pixels
JPEG_QUALITY = 72
RIM = 0.4  # opacity of a contour from which it is drawn
BITS = 4  # of a pixel of the contours
PNG_LEVEL = 6  # of zlib; the highest one takes seven times as long for a tenth less


def draw_viewer_slices(segmented: SegmentedScan, findings: Findings, chart: Chart) -> list[dict[str, Any]]:
    """Draw every slice with lung or lesion for the viewer, from feet to head.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        chart: The profile, in which a line marks the slice that is shown.

    Returns:
        One entry for each slice, as `report.js` reads it: data URIs of image and contour, `words` that describe the
        slice, and the position `x` of its line in the chart.
    """
    shown = [z for z, box in enumerate(segmented.lung_field.boxes) if box is not None or segmented.lesions[z].any()]
    return list(map_in_threads(partial(_draw_slice, segmented, findings, chart), shown, available_cores()))


def _draw_slice(segmented: SegmentedScan, findings: Findings, chart: Chart, z: int) -> dict[str, Any]:
    """Draw slice `z` of the view; see `draw_viewer_slices`."""
    rows, columns = displayed_region(segmented, z)
    _, dy, dx = segmented.view.geometry.spacing
    height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
    scale = min(SIDE, max(rows.stop - rows.start, columns.stop - columns.start)) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = Image.fromarray(LUNG_WINDOW.to_grey(segmented.hu[z, rows, columns]))
    number = int(segmented.view.slice_numbers[z])
    lesion, lung = findings.profile.lesion[number], findings.profile.lung[number]
    return {
        "number": number,
        "image": jpeg_uri(grey.resize(size, Image.Resampling.BICUBIC)),
        "contour": _contour(segmented.class_map[z, rows, columns], size, tuple(named_colours(findings).values())),
        "lesion": lesion,
        "words": f"{place_image(findings, number)}: {describe_share(lesion, lung)}",
        "x": f"{chart.x(number + 0.5):.1f}",
    }


def jpeg_uri(image: Image.Image) -> str:
    """Encode an image as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _contour(classes: NDArray[np.uint8], size: tuple[int, int], colours: Sequence[Rgb]) -> str | None:
    """Draw the rim of each class of lesions as a transparent PNG in a data URI; None without lesion."""
    if not classes.any():
        return None
    rims = np.zeros(size[::-1], np.uint8)
    for number in range(1, len(colours) + 1):
        rims[draw_outline(classes == number, size) > RIM] = number
    image = Image.fromarray(rims, "P")
    image.putpalette([0, 0, 0, *(level for colour in colours for level in colour)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0, bits=BITS, compress_level=PNG_LEVEL)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
