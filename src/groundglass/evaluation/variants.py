"""Changes of a volume that stand for scanners and exports which a model has not seen.

Kernels, noise, thickness and padding are made in HU and kept as whole HU; changes of the grid alone keep the file's own
kind of numbers. The same change of the same case is the same at every call.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from groundglass.data.slices import UNSTATED
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Window, recognise
from groundglass.scan.scan import Scan

PADDING_HU = -2000  # what some scanners write outside the circle that they reconstruct
SHIFT_HU = 1024
THICK_MM = 10.0
SHARP_MM, SHARP_NOISE_HU = 1.0, 15.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT and its reference.

    Attributes:
        scan: On any grid.
        labels: (z, y, x) uint8 on the same grid, 0 no lesion.
    """

    scan: Scan
    labels: NDArray[np.uint8]

    @property
    def hu(self) -> Volume:
        """In HU, float32; estimated where the file holds none."""
        return self.holding(recognise(self.scan).to_hu(self.scan.values))

    @property
    def upright(self) -> Volume:
        """The same voxels at the same places, as upright axial slices from feet to head."""
        view = AxialView(self.scan.geometry)
        return Volume(Scan(view.turn(self.scan.values), view.geometry), view.turn(self.labels))

    def holding(self, values: NDArray[Any]) -> Volume:
        """Other values (z, y, x) on the same grid."""
        return replace(self, scan=Scan(values, self.scan.geometry))


VolumeTransform = Callable[[Volume, np.random.Generator], Volume]


@dataclass(frozen=True)
class Variant:
    """A change of a volume.

    Attributes:
        name: Of the change.
        stands_for: What a reader may take it for.
        change: The volume, and random numbers of its own -> the volume as its file will hold it.
        repeat: Whether another scan of the same chest on the same day could differ so.
    """

    name: str
    stands_for: str
    change: VolumeTransform
    repeat: bool = False

    def __call__(self, volume: Volume, case: str) -> Volume:
        """Change the volume of a case: the same variant and case give the same volume.

        Raises:
            InputError: It cannot be changed so.
        """
        return self.change(volume, np.random.default_rng(zlib.crc32(f"{self.name}\n{case}".encode())))


def _as_hu(volume: Volume) -> Volume:
    """Whole HU, as a scanner stores them."""
    limits = np.iinfo(np.int16)
    return volume.holding(np.clip(np.rint(volume.scan.values), limits.min, limits.max).astype(np.int16))


def _shifted(volume: Volume, _: np.random.Generator) -> Volume:
    stored = np.clip(np.rint(volume.hu.scan.values) + SHIFT_HU, 0, np.iinfo(np.uint16).max)
    return volume.holding(stored.astype(np.uint16))


def _padded(volume: Volume, _: np.random.Generator) -> Volume:
    """Outside the circle (an ellipse, where slices are not square) that each slice holds."""
    volume = volume.hu.upright
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in volume.labels.shape[1:])
    return _as_hu(volume.holding(np.where(y[:, None] ** 2 + x**2 <= 1, volume.scan.values, PADDING_HU)))


def _windowed(low_hu: float, high_hu: float) -> VolumeTransform:
    def change(volume: Volume, _: np.random.Generator) -> Volume:
        levels = 255 * Window(low_hu, high_hu).scale(volume.hu.scan.values)
        return volume.holding(np.rint(levels).astype(np.uint8))

    return change


def _blur(volume: Volume, mm: float) -> NDArray[np.float32]:
    """(z, y, x) HU of an upright volume, each slice blurred by a Gaussian of `mm` standard deviation."""
    _, dy, dx = volume.scan.geometry.spacing
    return np.asarray(ndimage.gaussian_filter(volume.scan.values, (0, mm / dy, mm / dx), mode="nearest"))


def _soft(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.hu.upright
    return _as_hu(volume.holding(_blur(volume, 1.0)))


def _softer(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.hu.upright
    return _as_hu(volume.holding(ndimage.gaussian_filter(volume.scan.values, (0, 2, 2), mode="nearest")))


def _sharp(volume: Volume, rng: np.random.Generator) -> Volume:
    volume = volume.hu.upright
    sharpened = 2 * volume.scan.values - _blur(volume, SHARP_MM)
    return _as_hu(volume.holding(sharpened + SHARP_NOISE_HU * rng.standard_normal(sharpened.shape, np.float32)))


def _thick(volume: Volume, _: np.random.Generator) -> Volume:
    """The mean over `THICK_MM` around each slice, the slices taken as thick as they are apart."""
    volume = volume.hu.upright
    dz = volume.scan.geometry.spacing[0]
    reach = int(np.ceil(max(THICK_MM / dz - 1, 0) / 2))
    distance = np.abs(np.arange(-reach, reach + 1)) * dz
    weights = np.clip((THICK_MM + dz) / 2 - distance, 0, min(dz, THICK_MM))
    return _as_hu(volume.holding(ndimage.correlate1d(volume.scan.values, weights / weights.sum(), 0, mode="nearest")))


def _noisy(sigma_hu: float) -> VolumeTransform:
    def change(volume: Volume, rng: np.random.Generator) -> Volume:
        hu = volume.hu.scan.values
        return _as_hu(volume.holding(hu + sigma_hu * rng.standard_normal(hu.shape, np.float32)))

    return change


def _rescaled(share: float) -> VolumeTransform:
    """`share` x the pixels along each side of a slice; a pixel is lesion, of an unstated class, where half of it is."""

    def change(volume: Volume, _: np.random.Generator) -> Volume:
        volume = volume.upright
        values, affine = volume.scan.values, volume.scan.geometry.affine_lps
        height, width = (round(share * n) for n in values.shape[1:])
        grey, lesion = (_resized(each, height, width) for each in (values, volume.labels > 0))
        stored = np.rint(grey).astype(values.dtype) if values.dtype.kind in "iu" else grey
        step = np.diag([1.0, values.shape[1] / height, values.shape[2] / width, 1.0])
        step[1:3, 3] = (np.diag(step)[1:3] - 1) / 2  # outer edges, not the centres of the outer pixels, stay in place
        geometry = Geometry((len(values), height, width), affine @ step)
        return Volume(Scan(stored, geometry), np.where(lesion >= 0.5, UNSTATED, 0).astype(np.uint8))

    return change


def _resized(values: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """(z, height, width), bilinear; what shrinks is averaged."""
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in values)
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes])


def _flipped(*axes: int) -> VolumeTransform:
    """Voxels the other way round along some axes of (z, y, x), on a grid that does not tell so."""

    def change(volume: Volume, _: np.random.Generator) -> Volume:
        volume = volume.upright
        return Volume(volume.holding(np.flip(volume.scan.values, axes)).scan, np.flip(volume.labels, axes))

    return change


def _permuted(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.upright
    order = (2, 0, 1)
    geometry = volume.scan.geometry
    z, y, x = (geometry.shape[axis] for axis in order)
    turned = Geometry((z, y, x), geometry.affine_lps[:, [*order, 3]])
    return Volume(Scan(volume.scan.values.transpose(order), turned), volume.labels.transpose(order))


VARIANTS = (
    Variant("as it is", "The file itself: what the others are compared with.", lambda volume, _: volume),
    Variant("HU", "A scanner's own HU.", lambda volume, _: _as_hu(volume.hu)),
    Variant("HU, padded", "HU of a scanner that writes -2000 outside the circle it reconstructs.", _padded),
    Variant("HU + 1024", "Unsigned HU, as some converters leave them.", _shifted),
    *(
        Variant(f"8-bit, {low} to {high} HU", f"A picture of {what}.", _windowed(low, high))
        for low, high, what in (
            (-1000, 400, "a narrow lung window, air cut off"),
            (-1350, 150, "a common lung window"),
            (-1200, 600, "a wide lung window"),
            (-1500, 500, "a very wide lung window"),
        )
    ),
    Variant("soft, 1 mm", "A softer reconstruction kernel.", _soft, repeat=True),
    Variant("soft, 2 pixels", "A very soft kernel, or a picture that was enlarged.", _softer),
    Variant("thick slices", "Slices of 10 mm, at the same distances.", _thick),
    Variant("sharp", "A sharp (bone or lung) kernel and its noise.", _sharp, repeat=True),
    Variant("noise, 25 HU", "A low dose.", _noisy(25), repeat=True),
    Variant("noise, 50 HU", "A very low dose.", _noisy(50), repeat=True),
    Variant("0.75 x the pixels", "A smaller matrix: larger pixels.", _rescaled(0.75), repeat=True),
    Variant("1.33 x the pixels", "A larger matrix: smaller pixels.", _rescaled(4 / 3), repeat=True),
    Variant("mirrored", "Left and right exchanged: a wrong mark of orientation.", _flipped(2)),
    Variant("turned by 180 degrees", "Upside down: a wrong mark, or a patient who lies prone.", _flipped(1, 2)),
    Variant("slices reversed", "Head and feet exchanged: a wrong mark.", _flipped(0)),
    Variant("axes permuted", "The same voxels at the same places, stored as sagittal planes.", _permuted),
)
