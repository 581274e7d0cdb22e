"""The slices of the report's viewer: an image of each, and its lesion contour as a separate image."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.charts import Chart
from groundglass.report.findings import Findings
from groundglass.report.preview import LESION_COLOUR, displayed_region, draw_outline
from groundglass.scan.intensity import LUNG_WINDOW

SIDE = 512  # longest side of a drawn slice in pixels
JPEG_QUALITY = 72


def draw_viewer_slices(segmented: SegmentedScan, findings: Findings, chart: Chart) -> list[dict[str, Any]]:
    """Draw every slice with lung for the viewer, from feet to head.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        chart: The profile, in which a line marks the slice that is shown.

    Returns:
        One entry for each slice, as `report.js` reads it: data URIs of image and contour, `words` that describe the
        slice, and the position `x` of its line in the chart.
    """
    geometry, profile = segmented.view.geometry, findings.profile
    slices = []
    for z, box in enumerate(segmented.lung_field.boxes):
        if box is None:
            continue
        rows, columns = displayed_region(segmented, z)
        _, dy, dx = geometry.spacing
        height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
        scale = min(SIDE, max(rows.stop - rows.start, columns.stop - columns.start)) / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = Image.fromarray(LUNG_WINDOW.to_grey(segmented.hu[z, rows, columns]))
        number = int(segmented.view.slice_numbers[z])
        lesion, lung = profile.lesion[number], profile.lung[number]
        has_position = geometry.in_mm and geometry.has_directions
        position = f", {geometry.position((z, 0, 0))[2]:.0f} mm" if has_position else ""
        share = f"{100 * min(1.0, lesion / lung):.0f} % of the lung" if lung else "no lung"
        slices.append(
            {
                "number": number,
                "image": jpeg_uri(grey.resize(size, Image.Resampling.BICUBIC)),
                "contour": _contour(segmented.lesions[z, rows, columns], size),
                "lesion": lesion,
                "words": f"slice {number}{position}: {'no lesion' if not lesion else f'lesion on {share}'}",
                "x": f"{chart.x(number + 0.5):.1f}",
            }
        )
    return slices


def jpeg_uri(image: Image.Image) -> str:
    """Encode an image as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _contour(lesion: NDArray[np.bool_], size: tuple[int, int]) -> str | None:
    """Draw the rim of the lesion as a transparent PNG in a data URI; None without lesion."""
    if not lesion.any():
        return None
    rim = Image.fromarray((draw_outline(lesion, size) > 0.4).astype(np.uint8), "P")
    rim.putpalette([0, 0, 0, *LESION_COLOUR])
    buffer = io.BytesIO()
    rim.save(buffer, "PNG", transparency=0, bits=1, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
