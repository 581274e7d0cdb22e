"""The slices of the report: each as a picture, its contour as a layer of its own."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.report.charts import Chart
from groundglass.report.findings import Findings
from groundglass.report.preview import LESION_COLOUR, LUNG_WINDOW, outline, shown_part
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import HuVolume
from groundglass.scan.lungs import LungField
from groundglass.scan.packed import MaskSlices

SIDE = 512  # pixels of a drawn slice, at most
QUALITY = 72  # of its JPEG


def viewer(lungs: LungField) -> str:
    """The elements that `page.js` fills."""
    count = sum(box is not None for box in lungs.boxes)
    left_out = len(lungs.boxes) - count
    note = f" {left_out} slices without lung are left out." if left_out else ""
    return f"""<div class="viewer">
<div class="stage" id="stage" tabindex="0" role="group" aria-label="Slice viewer: arrow keys move, C hides the contour">
<img id="slice" alt=""><img id="contour" class="contour" alt="">
<span class="side r" aria-hidden="true">R</span><span class="side l" aria-hidden="true">L</span></div>
<div class="controls">
<input type="range" id="slider" min="0" max="{max(0, count - 1)}" value="0" aria-label="Slice, from feet to head">
<label><input type="checkbox" id="shown" checked> contour</label>
<button type="button" id="most">most lesion</button></div>
<p id="words" aria-live="polite"></p>
<p class="note">Lung window. The patient's right is on the left.{note} Wheel, slider, arrow and page keys move.</p>
</div>"""


def viewer_slices(
    findings: Findings,
    hu: HuVolume,
    view: AxialView,
    lungs: LungField,
    lesions: MaskSlices,
    sizes: tuple[tuple[int, int], ...] | None,
    chart: Chart,
) -> list[dict[str, Any]]:
    """What the viewer shows: every slice with lung, from feet to head."""
    _, dy, dx = view.geometry.spacing
    shown = []
    for z, box in enumerate(lungs.boxes):
        if box is None:
            continue
        rows, columns = shown_part(lungs, z, hu.shape[1:] if sizes is None else sizes[z])
        height, width = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
        scale = min(SIDE, max(rows.stop - rows.start, columns.stop - columns.start)) / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = Image.fromarray((LUNG_WINDOW.scale(hu[z, rows, columns]) * 255).astype(np.uint8))
        number = int(view.slice_numbers[z])
        lesion, lung = findings.profile.lesion[number], findings.profile.lung[number]
        place = f", {view.geometry.position((z, 0, 0))[2]:.0f} mm" if view.geometry.in_mm else ""
        share = f"{100 * min(1.0, lesion / lung):.0f} % of the lung" if lung else "no lung"
        shown.append(
            {
                "number": number,
                "image": jpeg(grey.resize(size, Image.Resampling.BICUBIC)),
                "contour": _contour(lesions[z, rows, columns], size),
                "lesion": lesion,
                "words": f"slice {number}{place}: {'no lesion' if not lesion else f'lesion on {share}'}",
                "x": f"{chart.x(number + 0.5):.1f}",
            }
        )
    return shown


def jpeg(image: Image.Image) -> str:
    """A picture as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _contour(lesion: NDArray[np.bool_], size: tuple[int, int]) -> str | None:
    """A see-through PNG with the lesion's rim; None where there is none."""
    if not lesion.any():
        return None
    rim = Image.fromarray((outline(lesion, size) > 0.4).astype(np.uint8), "P")
    rim.putpalette([0, 0, 0, *LESION_COLOUR])
    buffer = io.BytesIO()
    rim.save(buffer, "PNG", transparency=0, bits=1, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
