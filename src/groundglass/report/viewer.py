"""The slices of the report's viewer: each as a picture, with its contour as a layer of its own."""

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
from groundglass.report.preview import LESION_COLOUR, outline, shown_part
from groundglass.scan.intensity import LUNG_WINDOW

SIDE = 512  # longest side of a drawn slice, in pixels
JPEG_QUALITY = 72


def viewer_slices(segmented: SegmentedScan, findings: Findings, chart: Chart) -> list[dict[str, Any]]:
    """What the viewer shows: every slice with lung, from feet to head.

    Args:
        segmented: The scan with its lungs and lesions.
        findings: Its findings.
        chart: The profile, on which a line follows the slice that is shown.
    """
    geometry, profile = segmented.view.geometry, findings.profile
    slices = []
    for z, box in enumerate(segmented.lung_field.boxes):
        if box is None:
            continue
        rows, columns = shown_part(segmented, z)
        _, dy, dx = geometry.spacing
        height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
        scale = min(SIDE, max(rows.stop - rows.start, columns.stop - columns.start)) / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = Image.fromarray(LUNG_WINDOW.to_grey(segmented.hu[z, rows, columns]))
        number = int(segmented.view.slice_numbers[z])
        lesion, lung = profile.lesion[number], profile.lung[number]
        position = f", {geometry.position((z, 0, 0))[2]:.0f} mm" if geometry.in_mm else ""
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
    """A picture as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _contour(lesion: NDArray[np.bool_], size: tuple[int, int]) -> str | None:
    """The lesion's rim as a transparent PNG in a data URI; None without lesion."""
    if not lesion.any():
        return None
    rim = Image.fromarray((outline(lesion, size) > 0.4).astype(np.uint8), "P")
    rim.putpalette([0, 0, 0, *LESION_COLOUR])
    buffer = io.BytesIO()
    rim.save(buffer, "PNG", transparency=0, bits=1, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
