"""Images of a scan at fixed shares of its lungs' height, so that scans of one patient can be laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.inference.pipeline import SegmentedScan
from groundglass.report.colours import named_colours
from groundglass.report.findings import Findings
from groundglass.report.image_numbers import describe_share, place_image
from groundglass.report.preview import draw_slice
from groundglass.report.viewer import jpeg_uri
from groundglass.scan.packed_mask import voxels_per_slice

LEVELS, SHOWN = 20, 5  # levels that are drawn, and that are shown
SIDE = 400  # longest side of an image in pixels


@dataclass(frozen=True)
class LevelImage:
    """A slice of a scan.

    Attributes:
        height_percent: Share of the lungs' height, from their lowest slice.
        image: JPEG with the contours of lungs and lesions, as a data URI.
        name: Number and position of the slice, and how much of its lung is lesion.
        lesion_percent: Share of the slice's lung that is lesion.
    """

    height_percent: float
    image: str
    name: str
    lesion_percent: float


def draw_levels(segmented: SegmentedScan, findings: Findings) -> tuple[LevelImage, ...]:
    """Draw `LEVELS` slices from the lowest to the highest with lung, evenly apart; none without lung."""
    lung, lesion = voxels_per_slice(segmented.lung_field.mask), voxels_per_slice(segmented.lesions)
    shown = np.flatnonzero(lung)
    if not len(shown):
        return ()
    colours = tuple(named_colours(findings).values())
    drawn = []
    for share in (np.arange(LEVELS) + 0.5) / LEVELS:
        z = int(shown[0] + share * (shown[-1] - shown[0] + 1))
        drawn.append(
            LevelImage(
                100 * float(share),
                jpeg_uri(draw_slice(segmented, z, SIDE, colours)),
                f"{place_image(findings, int(segmented.view.slice_numbers[z]))}: "
                f"{describe_share(int(lesion[z]), int(lung[z]))}",
                100 * min(1.0, int(lesion[z]) / max(1, int(lung[z]))),
            )
        )
    return tuple(drawn)


def choose_levels(scans: Sequence[Sequence[LevelImage]]) -> list[int]:
    """Choose `SHOWN` levels, from head to feet: of each part of the height the one with most lesion in any scan.

    The parts with most lesion choose first; no level stands beside one that was chosen.
    """
    worst = [max(images[level].lesion_percent for images in scans) for level in range(LEVELS)]
    parts = np.array_split(np.arange(LEVELS), SHOWN)
    middle_first = [sorted(part.tolist(), key=lambda level: abs(level - part.mean())) for part in parts]
    chosen: list[int] = []
    for part in sorted(middle_first, key=lambda part: -max(worst[level] for level in part)):
        apart = [level for level in part if all(abs(level - other) > 1 for other in chosen)]
        chosen.append(max(apart, key=lambda level: worst[level]))
    return sorted(chosen, reverse=True)
