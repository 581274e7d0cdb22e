"""Finding the lungs, in scans and pictures alike, whatever their numbers mean.

The lungs define where lesions are searched for, and the volume that their share refers to. A network finds them, dense
lesions included, on a small grid; what is left here is geometry. The window of grey levels follows from them.

    parts, search      what the network is shown, and what is kept of its answer
    polarity, window   whether grey levels are inverted, and what they are in HU
    picture_layout     whether pictures show one upright slice each
    outline, box       the lungs on the scan's own pixels, and where lesions are searched for
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from groundglass.errors import IntensityError, LungError
from groundglass.inference.lungs.blanked import blank_number, check_not_blanked, with_soft_tissue
from groundglass.inference.lungs.density import check_lung_density
from groundglass.inference.lungs.network import LungNetwork, open_lung_network
from groundglass.inference.lungs.outline import outline_lungs
from groundglass.inference.lungs.parts import (
    OUTLINE_MM,
    View,
    around_lungs,
    certain_pixels,
    middle_of_slices,
    parts_of,
    whole_slices,
)
from groundglass.inference.lungs.picture_layout import check_directions, check_layout
from groundglass.inference.lungs.polarity import is_inverted
from groundglass.inference.lungs.search import ShownSlices, look
from groundglass.inference.lungs.window import Line, estimate_window
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import HuSlices, Intensity, StoredNumbers, recognise_numbers
from groundglass.scan.kinds import FieldOfView, IntensityKind
from groundglass.scan.lung_field import LungField
from groundglass.scan.scan import ImageStack, Scan

LIMITS_HU = (-1350.0, 350.0)  # beyond these, HU all look alike to the network
INVERTED = "the grey levels seem to be inverted, air bright and bone dark: invert them, or export it in a lung window"
ESTIMATED = "HU are estimated from the lungs and what lies around them"
NO_LUNG = (
    "no lung was found: expected axial slices of a chest, in HU or a window that shows the lungs; check that it is a "
    f"chest CT, and what its numbers are (--intensity {'|'.join(IntensityKind)})"
)


@dataclass(frozen=True, eq=False)
class ScanWithLungs:
    """A scan in upright axial slices, with its lungs and its intensities.

    Attributes:
        scan: The scan as it was read.
        view: Transform from the scan's own grid to upright axial slices and back.
        intensity: How the scan's intensities were interpreted.
        hu: (z, y, x) HU or estimated HU, computed slice by slice; soft tissue where all outside the lungs was blanked.
        lung_field: The lungs.
    """

    scan: Scan
    view: AxialView
    intensity: Intensity
    hu: HuSlices
    lung_field: LungField


def find_lungs(
    scan: Scan,
    field_of_view: FieldOfView = FieldOfView.LUNGS,
    kind: IntensityKind | None = None,
    network: LungNetwork | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ScanWithLungs:
    """Find the lungs of a scan, or of each picture of a stack, and what its numbers are in HU.

    Args:
        scan: Any orientation; image stacks too.
        field_of_view: The part of a slice with lung that its box holds.
        kind: Meaning of the numbers; None: recognise it from the values.
        network: The lung network; None: the bundled one on all cores.
        progress: Called with the number of slices that were looked at and the number of all that will be.

    Raises:
        IntensityError: The numbers are not recognised as CT, make no lungs in HU, or a window clips lungs or tissue.
        FormatError: Pictures lie on their side, or show several slices each.
        LungError: No slice shows lung, or the slices of a volume lie on their side.
    """
    numbers = recognise_numbers(scan, kind)
    network, is_window = network or open_lung_network(), numbers.kind.is_window
    upright = _show(scan, AxialView(scan.geometry), numbers)
    turned = None if scan.geometry.has_directions else _show(scan, AxialView(scan.geometry, transposed=True), numbers)
    looked = _counter(progress, sum(len(seen.slices) + len(seen.part.every(OUTLINE_MM)) for seen in upright.whole))
    (view, slices, _), located = _locate(network, upright, turned, is_window, looked)
    if is_window:
        check_not_blanked(located)
        if is_inverted(network, slices, located):
            raise IntensityError(INVERTED)
    intensity = _estimate(numbers, located) if is_window else numbers.exact
    outlined = look(network, slices, [around_lungs(seen) for seen in located], looked=looked)
    # Of one slice, what was found in the whole of it stands where the network is less sure of the part around it.
    outlined = [
        near if near.maps.any() or len(near.slices) > 1 else seen for near, seen in zip(outlined, located, strict=True)
    ]
    is_volume = not isinstance(scan, ImageStack)
    lung_field = outline_lungs(outlined, view.geometry, is_volume, field_of_view, network.threads)
    if not any(lung_field.boxes):
        raise LungError(NO_LUNG)
    hu = intensity.slices(slices.values)
    check_lung_density(hu, lung_field.mask, intensity)
    if slices.blank is not None:
        hu, lung_field = with_soft_tissue(hu, slices.blank, lung_field)
    return ScanWithLungs(scan, view, intensity, hu, lung_field)


class _Shown(NamedTuple):
    """A scan in axial slices as the network is to see them, and the view of each part as a whole."""

    view: AxialView
    slices: ShownSlices
    whole: list[View]


def _show(scan: Scan, view: AxialView, numbers: StoredNumbers) -> _Shown:
    values = view.to_axial(scan.values)
    slices = ShownSlices(values, _limits(numbers), blank_number(values, numbers), numbers.shift_hu)
    return _Shown(view, slices, [whole_slices(part) for part in parts_of(scan, values, view.geometry)])


def _locate(
    network: LungNetwork, upright: _Shown, turned: _Shown | None, is_window: bool, looked: Callable[[], None]
) -> tuple[_Shown, list[View]]:
    """Look for the lungs, and return the scan as it shows them, and what the network says of it.

    Args:
        network: The lung network.
        upright: The scan.
        turned: The scan with rows and columns exchanged, which may have been stored so; None if its file states how
            its axes lie in the body.
        is_window: Whether the numbers are those of a window.
        looked: Called after each slice.

    Raises:
        FormatError: Pictures lie on their side, or show several slices each.
        LungError: No slice shows lung, or the slices of a volume lie on their side.
    """
    shown, located = upright, look(network, upright.slices, upright.whole, keep_levels=is_window, looked=looked)
    is_image = upright.whole[0].part.is_image
    if turned is not None:
        lying = look(network, turned.slices, turned.whole, keep_levels=is_window)
        if certain_pixels(lying) > certain_pixels(located):
            shown, located = turned, lying
    elif not is_image:
        check_directions(network, upright.slices, located[0])
    if is_image:
        check_layout(network, shown.slices, located)
    elif not _any_lung(located):
        located = look(network, shown.slices, [middle_of_slices(view) for view in shown.whole], keep_levels=is_window)
    if not _any_lung(located):
        raise LungError(NO_LUNG)
    return shown, located


def _any_lung(located: Sequence[View]) -> bool:
    return any(seen.maps.any() for seen in located)


def _counter(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Return a function that reports one more of all slices each time it is called."""
    done = count(1)
    return lambda: progress(next(done), total)


def find_intensity(scan: Scan) -> Intensity:
    """Find what a scan's numbers are in HU; only those of a window need the lungs for it.

    Raises:
        IntensityError: The numbers are not recognised as CT, or a window clips lungs or tissue.
        LungError: The numbers are those of a window, and no slice shows lung.
    """
    numbers = recognise_numbers(scan)
    return find_lungs(scan).intensity if numbers.kind.is_window else numbers.exact


def _limits(numbers: StoredNumbers) -> tuple[float, float] | None:
    """Return the numbers of `LIMITS_HU`; None where the window is not known."""
    low, high = LIMITS_HU
    return None if numbers.kind.is_window else (low + numbers.shift_hu, high + numbers.shift_hu)


def _estimate(numbers: StoredNumbers, located: Sequence[View]) -> Intensity:
    """Estimate the window of each part; an image without lung gets the mean of the others' windows."""
    lines: list[Line | None] = []
    for number, seen in enumerate(located, start=1):
        lungs = seen.lungs
        shown = lungs.any((1, 2))
        try:
            lines.append(estimate_window(seen.levels[shown], lungs[shown]) if shown.any() else None)
        except IntensityError as error:
            raise IntensityError(f"picture {number}: {error}" if len(located) > 1 else str(error)) from None
    mean = np.mean([line for line in lines if line is not None], axis=0)
    slope, intercept = np.array([mean if line is None else line for line in lines]).T
    reason = f"{numbers.reason}; {ESTIMATED}"
    return Intensity(numbers.kind, slope, intercept, reason, calibrated=False)
