"""Recognise what a scan's numbers mean, and convert them to HU.

A CT is stored in Hounsfield units (HU), in HU shifted by 1000 or 1024 so that nothing is negative, or as grey levels of
a window, 8-bit or from 0 to 1. The first two convert exactly. The window of the last two is not stated: it is estimated
from the lungs and what lies around them, by `groundglass.inference.lungs.window`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import IntensityError
from groundglass.scan.geometry import AxialView
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.packed_mask import PackedMask
from groundglass.scan.scan import ImageStack, Scan

AIR_HU = -1000.0
SOFT_TISSUE_HU = 40.0
SHIFTS_HU = (1024.0, 1000.0)
# Also those of DeepLesion's pictures, of raw data, and of a rescale to HU that was applied twice.
OTHER_SHIFTS_HU = (32768.0, 8192.0, -1024.0)
MOST_CT = 5000.0  # HU and shifted HU end below, but for some voxels of metal
LEAST_CT = -3100.0  # padding may have it
# After a histogram was equalised, equal parts of the range of grey levels hold about as many pixels each. The numbers
# of pixels between the two ends vary by this part of their mean or less; those of 122 real pictures by 0.34 or more,
# and of nine in ten of these after equalisation by 0.19 or less.
BANDS, MOST_EVEN = 16, 0.22
SAMPLES = 500_000  # voxels from which the kind is recognised
TISSUE_HU, BRIGHT_HU = (-200.0, 200.0), 350.0  # more of a chest is soft tissue than is bone, contrast medium and metal
CUT_LUNG_HU = -850.0  # lungs that are cut off at a higher number look denser than they are
BELOW_AIR_HU, MOST_BELOW_AIR = -1200.0, 0.03  # noise of air reaches below that in a smaller share of a scan
PADDING_SPREAD_HU, PADDING_SHADE = 150.0, 0.1  # how far noise spreads padding; share of the numbers of a shade of it
LEAST_OF_LUNG = 0.03  # share of the numbers of lung that lie apart from the commonest ones
SPARSE = 16  # pixels: of a slice in which these differ, the others need no look
PILED, TISSUE_PILED = 0.02, 0.1  # shares of all values that are the lowest and highest one if HU were cut off there


@dataclass(frozen=True)
class StoredNumbers:
    """What a scan's numbers are, before any of them is converted.

    Attributes:
        kind: Their meaning.
        shift_hu: What was added to HU; 0 but for shifted HU.
        reason: A sentence about what was recognised, and from what.
    """

    kind: IntensityKind
    shift_hu: float
    reason: str

    @property
    def exact(self) -> Intensity:
        """The conversion of HU or shifted HU."""
        return Intensity(self.kind, np.ones(1), np.array([-self.shift_hu]), self.reason, calibrated=True)


@dataclass(frozen=True, eq=False)
class Intensity:
    """The conversion of a scan's numbers to HU.

    Attributes:
        kind: Meaning of the numbers.
        slope: (1,) or, for pictures, (slices,): HU = slope * value + intercept.
        intercept: The same shape, in HU.
        reason: A sentence about what was recognised, and from what.
        calibrated: True if the result is HU as measured by the scanner; False if it is estimated from tissues.
    """

    kind: IntensityKind
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    reason: str
    calibrated: bool

    def to_hu(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Convert (z, y, x) values of the whole scan to HU."""
        slope, intercept = (line.astype(np.float32)[:, None, None] for line in (self.slope, self.intercept))
        hu: NDArray[np.float32] = np.multiply(values, slope, dtype=np.float32)
        hu += intercept
        return hu

    def slices(self, values: NDArray[Any]) -> HuSlices:
        """Convert (z, y, x) values of the whole scan to HU one slice at a time, whenever a slice is accessed."""
        slope, intercept = (
            np.broadcast_to(line.astype(np.float32), len(values)) for line in (self.slope, self.intercept)
        )
        return HuSlices(values, slope, intercept)


@dataclass(frozen=True, eq=False)
class HuSlices:
    """A scan in HU, converted slice by slice: as float32, the volume would need twice the memory of the scan.

    Attributes:
        values: (z, y, x) the scan's numbers.
        slope: (z,) HU = slope * value + intercept.
        intercept: (z,) in HU.
        blanked: (z, y, x) what is given as soft tissue, because its numbers were replaced; None: nothing.
    """

    values: NDArray[Any]
    slope: NDArray[np.float32]
    intercept: NDArray[np.float32]
    blanked: PackedMask | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along (z, y, x)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[z] for z in range(len(self)))

    def __getitem__(self, index: int | tuple[int, slice, slice]) -> NDArray[np.float32]:
        """Return (y, x) HU of a slice, or of the part of it that `hu[z, rows, columns]` names."""
        z = index[0] if isinstance(index, tuple) else index
        hu: NDArray[np.float32] = np.multiply(self.values[index], self.slope[z], dtype=np.float32)
        hu += self.intercept[z]
        if self.blanked is not None:
            hu[self.blanked[index]] = SOFT_TISSUE_HU
        return hu


HuVolume: TypeAlias = NDArray[np.float32] | HuSlices


@dataclass(frozen=True)
class Window:
    """An intensity window in HU."""

    low_hu: float
    high_hu: float

    def scale(self, hu: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map HU to [0, 1]; values outside the window are clipped."""
        scaled = (hu - np.float32(self.low_hu)) / np.float32(self.high_hu - self.low_hu)
        return np.clip(scaled, 0, 1, out=scaled)

    def to_hu(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map [0, 1] back to HU."""
        return np.float32(self.low_hu) + scaled * np.float32(self.high_hu - self.low_hu)

    def to_grey(self, hu: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Map HU to grey levels 0 to 255 for display."""
        return (self.scale(hu) * 255).astype(np.uint8)


LUNG_WINDOW = Window(-1350, 150)  # the window of every image that is drawn of a scan


def recognise_numbers(scan: Scan, kind: IntensityKind | None = None) -> StoredNumbers:
    """Recognise what a scan's numbers mean.

    Args:
        scan: The scan as read from its file.
        kind: The kind if it is known; None: recognise it from the values.

    Raises:
        IntensityError: The numbers are not recognised as CT.
    """
    values = scan.values
    sample = _some_of(values)
    low, high = float(values.min()), float(values.max())
    requested = kind is not None
    kind = kind or _kind_of(sample, low, high)
    if kind is None:
        if low >= 0 and ((sample < MOST_CT) | (sample >= 2**16 + LEAST_CT)).all() and (sample > 2**15).any():
            raise IntensityError(
                f"the values run from {low:g} to {high:g} with none between {MOST_CT:g} and {2**16 + LEAST_CT:g}: HU "
                "below 0 were stored without their sign: convert the numbers to int16"
            )
        raise IntensityError(
            f"the values run from {low:g} to {high:g}, {_shades(sample)} different ones: not a CT "
            "in HU, shifted HU, or a window in 8 bits or from 0 to 1; if it is one, name its kind with "
            f"--intensity {'|'.join(IntensityKind)}, of which the last estimates HU from the lungs for numbers of any "
            "range that rise evenly with HU"
        )
    shift = _shift(sample) if kind is IntensityKind.SHIFTED_HU else 0.0
    if not requested:
        _check_no_slice_is_lost(scan, kind)
        if kind.is_window:
            _check_not_equalised(sample, kind)
        else:
            _check_not_cut_off(sample - shift, low - shift)
            _check_not_stretched(sample - shift, kind)
    names = {
        IntensityKind.HU: "HU",
        IntensityKind.SHIFTED_HU: f"HU shifted by {shift:.0f}",
        IntensityKind.WINDOW_8BIT: "grey levels of a window in 8 bits",
        IntensityKind.WINDOW_UNIT: "grey levels of a window from 0 to 1",
    }
    recognised = "taken on request as" if requested else "recognised as"
    return StoredNumbers(kind, shift, f"{recognised} {names[kind]}: values run from {low:g} to {high:g}")


def _some_of(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return voxels spread over a volume (z, y, x), from all of its columns."""
    step = max(1, values.size // SAMPLES)
    while math.gcd(step, values.shape[-1]) > 1:  # it would come back to the same columns in every row
        step += 1
    return values.reshape(-1)[::step].astype(np.float32)


def _share(sample: NDArray[np.float32], low: float, high: float) -> float:
    """Return the share of values within [low, high]."""
    return float(((sample >= low) & (sample <= high)).mean())


def _kind_of(sample: NDArray[np.float32], low: float, high: float) -> IntensityKind | None:
    """Return the kind of numbers whose whole range is [low, high]; None if it is not recognised."""
    shades = _shades(sample)
    if _other_shift(sample) is not None:
        return IntensityKind.SHIFTED_HU
    is_ct = float(np.percentile(sample, 99.5)) < MOST_CT
    if is_ct and low < -300 < high and _has_lung_or_air(sample) and not _is_too_bright(sample):
        return IntensityKind.HU
    hu = sample - _shift(sample)
    if is_ct and low >= -100 and _has_lung_or_air(hu) and _has_tissue(hu):
        return IntensityKind.SHIFTED_HU
    if low >= 0 and 1 < high <= 255 and high - low > 60 and shades >= 32:
        return IntensityKind.WINDOW_8BIT
    if low >= 0 and 0.4 < high <= 1 and shades >= 32:
        return IntensityKind.WINDOW_UNIT
    return None


def _share_apart_from_padding(values: NDArray[np.float32]) -> float:
    """Return the share of numbers that are no padding: one shade, or with noise or lossy compression those near one."""
    tens, count = np.unique(np.rint(values / 10), return_counts=True)
    apart = values[abs(values - 10 * tens[count.argmax()]) > PADDING_SPREAD_HU]
    _, count = np.unique(apart, return_counts=True)
    return float(count[count < PADDING_SHADE * len(values)].sum() / len(values))


def _shades(sample: NDArray[np.float32]) -> int:
    """Count the different values in a part of them, spread over all."""
    return len(set(sample[:: max(1, len(sample) // 100_000)].tolist()))


def _has_lung_or_air(hu: NDArray[np.float32]) -> bool:
    """Return whether a part of the values is as dark as lung or air."""
    return _share(hu, -1100, -400) > 0.01


def _has_tissue(hu: NDArray[np.float32]) -> bool:
    """Return whether soft tissue is where HU have it: grey levels from 0 to 1000 or 4095 have it lower or higher.

    Nothing above water is right only where HU were cut off there.
    """
    is_piled = float((hu == hu.max()).mean()) > TISSUE_PILED
    return _share(hu, -200, 300) > 0.005 and not _is_too_bright(hu) and (float(hu.max()) > 0 or is_piled)


def _is_too_bright(hu: NDArray[np.float32]) -> bool:
    """Return whether twice as much is as bright as bone as is soft tissue, but for one number that blanks the rest."""
    bright = hu > BRIGHT_HU
    is_blanked = float((hu == hu.max()).mean()) > 0.5 * float(bright.mean())
    return float(bright.mean()) > 2 * _share(hu, *TISSUE_HU) and not is_blanked


def _check_no_slice_is_lost(scan: Scan, kind: IntensityKind) -> None:
    """Refuse a volume with a slice of a single number between slices that show something.

    Raises:
        IntensityError: There is one.
    """
    if isinstance(scan, ImageStack):
        return
    view = AxialView(scan.geometry)
    axial = view.to_axial(scan.values)
    shown = np.flatnonzero([not (_is_flat(plane[::SPARSE, ::SPARSE]) and _is_flat(plane)) for plane in axial])
    lost = np.setdiff1d(np.arange(shown[0], shown[-1]), shown) if len(shown) else shown
    if len(lost):
        z, more = int(lost[0]), f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise IntensityError(
            f"slice {view.slice_numbers[z] + 1} of {len(axial)}{more} holds {axial[z, 0, 0]:g} alone, between slices "
            f"with an image: lesions there are lost; give the scan with all of its slices (--intensity {kind} reads it "
            "all the same)"
        )


def _is_flat(plane: NDArray[Any]) -> bool:
    return bool(plane.min() == plane.max())


def _check_not_equalised(levels: NDArray[np.float32], kind: IntensityKind) -> None:
    """Refuse grey levels that are spread evenly over their range, which no window of a CT does.

    Raises:
        IntensityError: They are.
    """
    counts = np.histogram(levels, bins=BANDS)[0][1:-1]
    if counts.std() < MOST_EVEN * counts.mean():
        raise IntensityError(
            "the grey levels are spread evenly over their range, as by an equalised histogram, so that they do not "
            f"tell HU: give the picture as it was before (--intensity {kind} reads it all the same)"
        )


def _check_not_cut_off(hu: NDArray[np.float32], low: float) -> None:
    """Refuse HU that end above those of lung.

    Raises:
        IntensityError: They do.
    """
    share = float((hu <= low).mean())
    if low > CUT_LUNG_HU and share > PILED:
        raise IntensityError(
            f"HU were cut off at {low:g}, which {100 * share:.0f} % of all values have, so that lungs of -870 look as "
            "dense as lesions: give the scan as it was before, or in a window that shows the lungs (--intensity hu "
            "reads it all the same)"
        )


def _check_not_stretched(hu: NDArray[np.float32], kind: IntensityKind) -> None:
    """Refuse HU that were multiplied by a slope once more, so that lungs are darker than air; padding may be as dark.

    Raises:
        IntensityError: They were.
    """
    below = hu[hu < BELOW_AIR_HU]
    if len(below) and _share_apart_from_padding(below) * len(below) > MOST_BELOW_AIR * len(hu):
        raise IntensityError(
            f"{100 * len(below) / len(hu):.0f} % of the values lie below {BELOW_AIR_HU:g} HU, darker than air: "
            "HU were multiplied, as by a slope in the header that had been applied before; give the scan in HU, such "
            f"as with the slope 1 (--intensity {kind} reads it all the same)"
        )


def _shift(sample: NDArray[np.float32]) -> float:
    """Return the shift that fits the air: its values lie around 24 with 1024; with 1000 they are cut off at 0."""
    other = _other_shift(sample)
    if other is not None:
        return other
    around_24, near_0 = _share(sample, 12.5, 24), _share(sample, 0.5, 12)
    return SHIFTS_HU[1] if near_0 > around_24 else SHIFTS_HU[0]


def _other_shift(sample: NDArray[np.float32]) -> float | None:
    """Return the unusual shift with which the values show aerated lung of many shades, and soft tissue; else None."""
    low, high = np.percentile(sample, (1, 99.5))
    for shift in OTHER_SHIFTS_HU:
        if low - shift < LEAST_CT or high - shift > MOST_CT or _share(sample, shift - 200, shift + 300) < 0.005:
            continue
        lung = sample[(sample > shift - 950) & (sample < shift - 450)]  # padding of plain HU may lie here
        if (
            len(lung) > 0.01 * len(sample)
            and _share_apart_from_padding(lung) > LEAST_OF_LUNG
            and not _is_too_bright(sample - shift)
        ):
            return shift
    return None
