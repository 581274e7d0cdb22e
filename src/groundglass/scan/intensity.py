"""Recognise what a scan's numbers mean, and convert them to HU.

A CT is stored in Hounsfield units (HU), in HU shifted by 1000 or 1024 so that nothing is negative, or as an 8-bit or
0..1 picture of a lung window. The first two convert exactly. HU of a picture are estimated from the grey levels of two
tissues: air (-1000 HU) and soft tissue (about 50 HU).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import IntensityError
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.scan import ImageStack, Scan

AIR_HU, SOFT_TISSUE_HU = -1000.0, 50.0
DARKEST_LUNG_HU = -960.0  # airways and emphysema: the darkest hundredth of a picture that is cut to the lungs
NOMINAL_WINDOW_HU = (-1250.0, 250.0)  # assumed for a lung-window picture without recognisable tissue
SHIFTS_HU = (1024.0, 1000.0)
NEARLY_BLACK = 8  # grey levels up to here: the corners outside the circle of reconstruction, blurred by resampling
SAMPLES = 2_000_000  # voxels from which the kind is recognised


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
    """

    values: NDArray[Any]
    slope: NDArray[np.float32]
    intercept: NDArray[np.float32]

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

    def to_grey(self, hu: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Map HU to grey levels 0 to 255 for display."""
        return (self.scale(hu) * 255).astype(np.uint8)


LUNG_WINDOW = Window(-1350, 150)  # the window of every image that is drawn of a scan


def recognise_intensity(scan: Scan, kind: IntensityKind | None = None) -> Intensity:
    """Recognise what a scan's numbers mean.

    Args:
        scan: The scan as read from its file.
        kind: The kind if it is known; None: recognise it from the values.

    Raises:
        IntensityError: The numbers are not recognised as CT.
    """
    values = scan.values
    sample = values.reshape(-1)[:: max(1, values.size // SAMPLES)].astype(np.float32)
    low, high = float(values.min()), float(values.max())
    forced = kind is not None
    kind = kind or _kind_of(sample, low, high)
    if kind is None:
        raise IntensityError(
            f"the values run from {low:g} to {high:g}, {len(np.unique(sample[:100_000]))} different ones: not a CT "
            "in HU, shifted HU, 8-bit or 0..1 lung window; if it is one, name its kind with "
            f"--intensity {'|'.join(IntensityKind)}"
        )
    sentence = f"{'taken on request as' if forced else 'recognised as'} {{}}: values run from {low:g} to {high:g}"
    if kind is IntensityKind.HU:
        return Intensity(kind, np.ones(1), np.zeros(1), sentence.format("HU"), calibrated=True)
    if kind is IntensityKind.SHIFTED_HU:
        shift = _shift(sample)
        reason = sentence.format(f"HU shifted by {shift:.0f}")
        return Intensity(kind, np.ones(1), np.array([-shift]), reason, calibrated=True)
    levels = 255.0 if kind is IntensityKind.LUNG_WINDOW_8BIT else 1.0
    lines, from_tissues = zip(
        *(_fit_to_tissues(part * (255.0 / levels), cropped) for part, cropped in _parts(scan)), strict=True
    )
    slope, intercept = np.array(lines).T
    name = "an 8-bit lung window" if kind is IntensityKind.LUNG_WINDOW_8BIT else "a lung window scaled to 0..1"
    method = (
        "by air and soft tissue"
        if all(from_tissues)
        else f"by a nominal window of {NOMINAL_WINDOW_HU} HU, no tissue was recognised"
    )
    reason = f"{sentence.format(name)}; HU are estimated {method}"
    return Intensity(kind, slope * (255.0 / levels), intercept, reason, calibrated=False)


def _share(sample: NDArray[np.float32], low: float, high: float) -> float:
    """Return the share of values within [low, high]."""
    return float(((sample >= low) & (sample <= high)).mean())


def _looks_like_ct(hu: NDArray[np.float32]) -> bool:
    """Return whether there is both air or lung, and soft tissue."""
    return _share(hu, -1100, -400) > 0.02 and _share(hu, -200, 300) > 0.02


def _kind_of(sample: NDArray[np.float32], low: float, high: float) -> IntensityKind | None:
    """Return the kind of numbers whose whole range is [low, high]; None if it is not recognised."""
    if low < -300 and high > 0 and _looks_like_ct(sample):
        return IntensityKind.HU
    if low >= -100 and high > 700 and _looks_like_ct(sample - _shift(sample)):
        return IntensityKind.SHIFTED_HU
    shades = len(np.unique(sample[:100_000]))
    if low >= 0 and 1 < high <= 255 and high - low > 100 and shades >= 32:
        return IntensityKind.LUNG_WINDOW_8BIT
    if low >= 0 and 0.4 < high <= 1 and shades >= 32:
        return IntensityKind.UNIT
    return None


def _shift(sample: NDArray[np.float32]) -> float:
    """Return the usual shift that fits the air: its values lie around 24 with 1024; with 1000 they are cut off at 0."""
    around_24, near_0 = _share(sample, 12.5, 24), _share(sample, 0.5, 12)
    return SHIFTS_HU[1] if near_0 > around_24 else SHIFTS_HU[0]


def _parts(scan: Scan) -> list[tuple[NDArray[np.float32], bool]]:
    """Return what shares one window, each picture or the whole volume, and whether it may be cropped to the lungs."""
    if isinstance(scan, ImageStack):
        return [(scan.values[z : z + 1, :h, :w].astype(np.float32), True) for z, (h, w) in enumerate(scan.sizes)]
    step = max(1, len(scan.values) // 40)
    return [(scan.values[::step].astype(np.float32), False)]


def _fit_to_tissues(levels: NDArray[np.float32], cropped: bool) -> tuple[tuple[float, float], bool]:
    """Return (slope, intercept) from grey level 0..255 to HU, and whether they follow from two tissues.

    A volume shows air around the body. A picture that may be cropped to the lungs has the darkest lung instead.
    """
    soft = _mode(levels[(levels > 128) & (levels < 254)], 128)
    rim = max(1, min(levels.shape[1:]) // 12)
    sides = (levels[:, :rim], levels[:, -rim:], levels[..., :rim], levels[..., -rim:])
    frame = np.concatenate([side.ravel() for side in sides])
    lit = frame[frame > NEARLY_BLACK]
    outside = lit[lit < 128]
    dark: float | None
    if not cropped and len(outside) > max(0.35 * len(lit), 0.02 * len(frame)):
        dark, dark_hu = _mode(outside, NEARLY_BLACK), AIR_HU
    else:
        dark, dark_hu = float(np.percentile(levels, 1)), DARKEST_LUNG_HU
    if soft is None or dark is None or soft - dark < 60:
        slope = (NOMINAL_WINDOW_HU[1] - NOMINAL_WINDOW_HU[0]) / 255
        return (slope, NOMINAL_WINDOW_HU[0]), False
    slope = (SOFT_TISSUE_HU - dark_hu) / (soft - dark)
    return (slope, dark_hu - slope * dark), True


def _mode(levels: NDArray[np.float32], start: int) -> float | None:
    """Return the most frequent grey level from `start` on, smoothed over five levels; None of too few pixels."""
    if len(levels) < 100:
        return None
    counts = np.convolve(np.bincount(levels.astype(np.int64), minlength=256)[start:], np.ones(5), "same")
    return float(start + counts.argmax())
