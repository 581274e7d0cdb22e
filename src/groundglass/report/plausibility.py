"""Whether lungs can be as they were found: warnings where a wrong spacing or wrong regions are more likely.

The limits are wide: a healthy or ill lung of any age stays within them, so that a warning means something. Total lung
capacity of adults is about 4 to 8 l by the reference values of Quanjer et al. (1993, Eur Respir J 6 Suppl 16:5, for
heights of 1.55 to 1.95 m); lungs at CT, lying and with breath held, measure 2 to 8 l, and stiff lungs of severely ill
adults 1 to 2 l. A newborn's measure about 0.1 l. Fifteen good scans of the tests lie between 1.8 and 8.0 l, with lungs
224 to 361 mm wide that fill 18 to 39 % of the body in the slices that show them; the smaller lung has 43 % or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import LungError
from groundglass.inference.lungs.finding import ScanWithLungs
from groundglass.scan.morphology import fill_holes, label_parts
from groundglass.scan.packed_mask import Voxels, voxels_per_slice
from groundglass.scan.scan import ImageStack

LARGEST_LUNGS_ML = 10_000.0
SMALLEST_ADULT_LUNGS_ML = 1000.0
ADULT_WIDTH_MM = 200.0  # lungs that are wider are an adult's or a youth's
LARGEST_SIDE_MM, SMALLEST_WIDTH_MM = 450.0, 50.0  # height or width of both lungs together; a newborn's are 70 mm wide
# Programs write pixels of exactly 1 x 1 mm where they know no spacing. Lungs take up 300 to 400 of 512 pixels then, or
# 150 to 200 of 256; an adult's are as wide as this in mm.
PLACEHOLDER_MM, ADULT_WIDTHS_MM = 1.0, (220.0, 350.0)
LEAST_BODY_PERCENT = 8.0  # share of the body that lungs fill; with less, they are found in part
NO_LUNG_PERCENT = 1.0  # share of the body that is no lung at all
LEAST_SIDE_PERCENT = 10.0  # share of the smaller lung in both; below 2 % the lung counts as not found
MOST_GAPS = 0.1  # share of the slices between the lowest and the highest lung that show no lung
CUT = 0.05  # share of the largest slice's lung: with more in the first or the last slice, the scan does not cover all
# Height of lungs as a share of their width; 12 real scans have 0.47 to 1.01.
FLATTEST, TALLEST = 0.35, 2.5
BODY_HU = -300.0
SAMPLED_SLICES, STEP = 40, 4  # slices and pixels from which the size of the body is estimated


def check_plausibility(segmented: ScanWithLungs, step: float = 1) -> tuple[str, ...]:
    """Return a warning for each property of the lungs that real lungs do not have; pictures are not judged.

    Args:
        segmented: The scan, or evenly distributed slices of it on a grid of their own.
        step: Slices of the scan from one of these to the next.

    Raises:
        LungError: What was found is far too small for lungs, so that no volume or share of it can be right.
    """
    if isinstance(segmented.scan, ImageStack):
        return ()
    lungs = _measure(segmented, step)
    if lungs is None:
        return ()
    if lungs.is_whole and lungs.body_percent < NO_LUNG_PERCENT:
        raise LungError(
            f"no lung was found: the only air inside the body fills {lungs.body_percent:.1f} % of it, expected lungs "
            f"that fill {LEAST_BODY_PERCENT:.0f} % or more; check that it is a chest CT"
        )
    return (*_size_warnings(lungs), *_share_warnings(lungs))


@dataclass(frozen=True)
class _Lungs:
    """What is judged of both lungs together.

    Attributes:
        volume_ml: Their volume; None if the spacing is unknown.
        spacing_mm: Spacing along (z, y, x) of the axial view.
        width_mm: From the right end to the left one.
        height_mm: From the lowest slice to the highest.
        slices: Number of slices with lung.
        span: Number of slices from the lowest with lung to the highest.
        is_whole: Whether the scan covers them to both ends and all sides.
        body_percent: Their share of the body in the slices that show them.
        right_percent: Share of the right lung in both; None if the sides are unknown.
    """

    volume_ml: float | None
    spacing_mm: tuple[float, float, float]
    width_mm: float
    height_mm: float
    slices: int
    span: int
    is_whole: bool
    body_percent: float
    right_percent: float | None


def _measure(segmented: ScanWithLungs, step: float) -> _Lungs | None:
    """Measure the lungs; None if there are none."""
    field, geometry = segmented.lung_field, segmented.view.geometry
    areas = voxels_per_slice(field.mask)
    shown = np.flatnonzero(areas)
    if not len(shown):
        return None
    sides_known = geometry.has_directions and field.sides_known
    total, span = int(areas.sum()), int(shown[-1] - shown[0]) + 1
    outline = field.outline
    columns = np.flatnonzero(outline.any(0))
    reaches_side = bool(_rim(outline).any())
    return _Lungs(
        volume_ml=None if geometry.voxel_ml is None else total * geometry.voxel_ml,
        spacing_mm=(geometry.spacing[0] / step, *geometry.spacing[1:]),
        width_mm=float(np.ptp(columns) + 1) * geometry.spacing[2],
        height_mm=span * geometry.spacing[0],
        slices=round(len(shown) * step),
        span=round(span * step),
        is_whole=len(areas) > 1 and max(areas[0], areas[-1]) <= CUT * areas.max() and not reaches_side,
        body_percent=_body_percent(segmented, shown[:: max(1, len(shown) // SAMPLED_SLICES)]),
        right_percent=100 * int(voxels_per_slice(field.right).sum()) / total if sides_known else None,
    )


def _rim(plane: Voxels) -> Voxels:
    """Return the pixels at the four sides of a slice."""
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _body_percent(segmented: ScanWithLungs, slices: NDArray[np.int64]) -> float:
    """Estimate the share of the body that is lung, from some slices; lungs without a body around them fill it."""
    every = slice(None, None, STEP)
    body = lung = 0
    for z in slices:
        in_lung = segmented.lung_field.mask[int(z), every, every]
        regions = label_parts((segmented.hu[int(z), every, every] > BODY_HU) | in_lung, diagonal=False)
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        body += int(fill_holes(regions == sizes.argmax()).sum()) if sizes.any() else 0
        lung += int(in_lung.sum())
    return 100.0 * lung / max(1, body)


def _size_warnings(lungs: _Lungs) -> list[str]:
    """Return the first warning about the size of the lungs in mm and ml, which depends on the spacing."""
    if lungs.volume_ml is None:
        return []
    z, y, x = lungs.spacing_mm
    check = (
        f"check the spacing, {z:.3g} mm between slices and {y:.3g} x {x:.3g} mm in them: volumes are probably wrong, "
        "shares of the lung are not affected"
    )
    size = f"{lungs.width_mm:.0f} mm wide and {lungs.height_mm:.0f} mm high"
    if max(lungs.width_mm, lungs.height_mm) > LARGEST_SIDE_MM:
        return [f"the lungs are {size}, and no lungs are more than {LARGEST_SIDE_MM:.0f} mm: {check}"]
    if lungs.volume_ml > LARGEST_LUNGS_ML:
        return [f"the lungs measure {lungs.volume_ml:.0f} ml, and the largest hold about 8000 ml: {check}"]
    if lungs.is_whole and lungs.width_mm < SMALLEST_WIDTH_MM:
        return [f"the lungs are {size}, smaller than a newborn's: {check}"]
    if lungs.is_whole and lungs.width_mm >= ADULT_WIDTH_MM and lungs.volume_ml < SMALLEST_ADULT_LUNGS_ML:
        return [
            f"the lungs measure {lungs.volume_ml:.0f} ml in {lungs.slices} slices, {size}: those of an adult hold "
            "2000 to 8000 ml, and stiff ones 1000 ml; check the slice distance "
            f"({z:.3g} mm), and in the preview that whole lungs were found"
        ]
    if lungs.is_whole and not FLATTEST <= lungs.height_mm / lungs.width_mm <= TALLEST:
        return [f"the lungs are {size}, and lungs are about as high as wide: {check}"]
    narrowest, widest = ADULT_WIDTHS_MM
    is_common = lungs.width_mm <= widest and (lungs.width_mm >= narrowest or not lungs.is_whole)
    if np.allclose((y, x), PLACEHOLDER_MM, rtol=0, atol=1e-6) and not is_common:
        return [
            f"the lungs are {size}, and an adult's are {narrowest:.0f} to {widest:.0f} mm wide: the pixels are exactly "
            f"1 x 1 mm, as programs write where they know no spacing; {check}"
        ]
    return []


def _share_warnings(lungs: _Lungs) -> list[str]:
    """Return the warnings that hold for any spacing."""
    warnings = []
    if lungs.is_whole and lungs.body_percent < LEAST_BODY_PERCENT:
        warnings.append(
            f"the lungs fill {lungs.body_percent:.1f} % of the body in the {lungs.slices} slices that show them, "
            "expected 15 to 40 %: they were probably found in part, so that volumes and shares are wrong; look at the "
            "preview"
        )
    gaps = lungs.span - lungs.slices
    if gaps > MOST_GAPS * lungs.span:
        warnings.append(
            f"{gaps} of the {lungs.span} slices between the lowest and the highest lung show no lung: the slices are "
            "in a wrong order, or lung was missed; look at the preview"
        )
    if lungs.right_percent is not None:
        name = "right" if lungs.right_percent < 50 else "left"
        percent = min(lungs.right_percent, 100 - lungs.right_percent)
        if 2 <= percent < LEAST_SIDE_PERCENT:
            warnings.append(
                f"the {name} lung has {percent:.0f} % of both lungs, expected 40 to 60 %: it is missing, collapsed or "
                "was found in part, or the sides were told apart wrongly"
            )
    return warnings
