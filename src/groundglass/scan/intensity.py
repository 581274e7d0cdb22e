"""What a scan's numbers mean: the only place that scales intensities.

A CT is stored in Hounsfield units (HU), or in HU shifted by 1000 or 1024 so that nothing is negative, or as an 8-bit or
0..1 picture of a lung window. The first two are exact. A picture is brought back to approximate HU by two tissues: air
(-1000 HU) and soft tissue (about 50 HU).
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
NOMINAL_WINDOW_HU = (-1250.0, 250.0)  # of a lung-window picture, where no tissue can be told
SHIFTS_HU = (1024.0, 1000.0)
NEARLY_BLACK = 8  # grey levels up to here: the corners outside a reconstruction's circle, and what a resampling smears
SAMPLES = 2_000_000  # voxels looked at to recognise a kind


@dataclass(frozen=True, eq=False)
class Intensity:
    """How to bring a scan's numbers to HU.

    Attributes:
        kind: What they are.
        slope: (1,) or, for pictures, (slices,): HU = slope * value + intercept.
        intercept: The same shape, in HU.
        reason: One sentence: what was recognised, and why.
        calibrated: True where the result is HU as the scanner meant it; False where it is estimated from tissues.
    """

    kind: IntensityKind
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    reason: str
    calibrated: bool

    def to_hu(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(z, y, x) values of the whole scan -> (z, y, x) HU."""
        slope, intercept = (line.astype(np.float32)[:, None, None] for line in (self.slope, self.intercept))
        hu: NDArray[np.float32] = np.multiply(values, slope, dtype=np.float32)
        hu += intercept
        return hu

    def slices(self, values: NDArray[Any]) -> HuSlices:
        """(z, y, x) values of the whole scan -> its slices in HU, each made when it is looked at."""
        slope, intercept = (
            np.broadcast_to(line.astype(np.float32), len(values)) for line in (self.slope, self.intercept)
        )
        return HuSlices(values, slope, intercept)


@dataclass(frozen=True, eq=False)
class HuSlices:
    """A scan in HU, slice by slice: all of it in float32 would be twice the scan itself.

    Attributes:
        values: (z, y, x) the scan's own numbers.
        slope: (z,) HU = slope * value + intercept.
        intercept: (z,) in HU.
    """

    values: NDArray[Any]
    slope: NDArray[np.float32]
    intercept: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[z] for z in range(len(self)))

    def __getitem__(self, place: int | tuple[int, slice, slice]) -> NDArray[np.float32]:
        """(y, x) HU of a slice, or of a part of it."""
        z = place[0] if isinstance(place, tuple) else place
        hu: NDArray[np.float32] = np.multiply(self.values[place], self.slope[z], dtype=np.float32)
        hu += self.intercept[z]
        return hu


HuVolume: TypeAlias = NDArray[np.float32] | HuSlices


@dataclass(frozen=True)
class Window:
    """An intensity window in HU."""

    low_hu: float
    high_hu: float

    def scale(self, hu: NDArray[np.float32]) -> NDArray[np.float32]:
        """HU -> [0, 1]; what lies outside the window is clipped."""
        scaled = (hu - np.float32(self.low_hu)) / np.float32(self.high_hu - self.low_hu)
        return np.clip(scaled, 0, 1, out=scaled)

    def to_grey(self, hu: NDArray[np.float32]) -> NDArray[np.uint8]:
        """HU -> grey levels 0 to 255 for display."""
        return (self.scale(hu) * 255).astype(np.uint8)


LUNG_WINDOW = Window(-1350, 150)  # in which every picture of a scan is drawn


def recognise(scan: Scan, kind: IntensityKind | None = None) -> Intensity:
    """Tell what a scan's numbers are.

    Args:
        scan: The scan, as its file states it.
        kind: Take them for this kind, whatever they look like.

    Raises:
        IntensityError: They are no CT intensities that are known.
    """
    values = scan.values
    sample = values.reshape(-1)[:: max(1, values.size // SAMPLES)].astype(np.float32)
    low, high = float(values.min()), float(values.max())
    forced = kind is not None
    kind = kind or _kind_of(sample, low, high)
    if kind is None:
        raise IntensityError(
            f"the values run from {low:g} to {high:g} with {len(np.unique(sample[:100_000]))} different ones: no CT in "
            "HU, shifted HU, 8-bit or 0..1 lung window; if it is one, say which with "
            f"--intensity {'|'.join(IntensityKind)}"
        )
    why = f"{'taken as told for' if forced else 'recognised as'} {{}}: values run from {low:g} to {high:g}"
    if kind is IntensityKind.HU:
        return Intensity(kind, np.ones(1), np.zeros(1), why.format("HU"), calibrated=True)
    if kind is IntensityKind.SHIFTED_HU:
        shift = _shift(sample)
        reason = why.format(f"HU shifted by {shift:.0f}")
        return Intensity(kind, np.ones(1), np.array([-shift]), reason, calibrated=True)
    levels = 255.0 if kind is IntensityKind.LUNG_WINDOW_8BIT else 1.0
    lines, anchored = zip(*[_line_of_tissues(part * (255.0 / levels), cut) for part, cut in _parts(scan)], strict=True)
    slope, intercept = np.array(lines).T
    name = "an 8-bit lung window" if kind is IntensityKind.LUNG_WINDOW_8BIT else "a lung window scaled to 0..1"
    how = (
        "by air and soft tissue" if all(anchored) else f"by a nominal window of {NOMINAL_WINDOW_HU} HU, no tissue told"
    )
    return Intensity(
        kind, slope * (255.0 / levels), intercept, f"{why.format(name)}; HU are estimated {how}", calibrated=False
    )


def _share(sample: NDArray[np.float32], low: float, high: float) -> float:
    return float(((sample >= low) & (sample <= high)).mean())


def _looks_like_ct(hu: NDArray[np.float32]) -> bool:
    """Whether there are both air or lung, and soft tissue."""
    return _share(hu, -1100, -400) > 0.02 and _share(hu, -200, 300) > 0.02


def _kind_of(sample: NDArray[np.float32], low: float, high: float) -> IntensityKind | None:
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
    """Which of the usual shifts it is, by the air: around 24 for 1024; for 1000 falling off from 0, where it is cut."""
    around_24, near_0 = _share(sample, 12.5, 24), _share(sample, 0.5, 12)
    return SHIFTS_HU[1] if near_0 > around_24 else SHIFTS_HU[0]


def _parts(scan: Scan) -> list[tuple[NDArray[np.float32], bool]]:
    """What shares one window: each picture on its own, or the volume; and whether it may be cut to the lungs."""
    if isinstance(scan, ImageStack):
        return [(scan.values[z : z + 1, :h, :w].astype(np.float32), True) for z, (h, w) in enumerate(scan.sizes)]
    step = max(1, len(scan.values) // 40)
    return [(scan.values[::step].astype(np.float32), False)]


def _line_of_tissues(levels: NDArray[np.float32], cut: bool) -> tuple[tuple[float, float], bool]:
    """(slope, intercept) from grey level 0..255 to HU, and whether two tissues told it."""
    soft = _mode(levels[(levels > 128) & (levels < 254)], 128)
    rim = max(1, min(levels.shape[1:]) // 12)
    sides = (levels[:, :rim], levels[:, -rim:], levels[..., :rim], levels[..., -rim:])
    frame = np.concatenate([side.ravel() for side in sides])
    lit = frame[frame > NEARLY_BLACK]
    outside = lit[lit < 128]
    dark: float | None
    if not cut and len(outside) > max(0.35 * len(lit), 0.02 * len(frame)):
        dark, dark_hu = _mode(outside, NEARLY_BLACK), AIR_HU
    else:
        dark, dark_hu = float(np.percentile(levels, 1)), DARKEST_LUNG_HU
    if soft is None or dark is None or soft - dark < 60:
        slope = (NOMINAL_WINDOW_HU[1] - NOMINAL_WINDOW_HU[0]) / 255
        return (slope, NOMINAL_WINDOW_HU[0]), False
    slope = (SOFT_TISSUE_HU - dark_hu) / (soft - dark)
    return (slope, dark_hu - slope * dark), True


def _mode(levels: NDArray[np.float32], start: int) -> float | None:
    """The most frequent grey level from `start` on, over five levels."""
    if len(levels) < 100:
        return None
    counts = np.convolve(np.bincount(levels.astype(np.int64), minlength=256)[start:], np.ones(5), "same")
    return float(start + counts.argmax())
