"""Changes of a volume that imitate scanners and exports which a model has not seen.

Kernels, noise, thickness and padding are computed in HU and stored as whole HU; changes of the grid alone keep the
file's own kind of numbers. The same variant of the same case is the same at every call.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.data.labels import UNSTATED
from groundglass.inference.lungs.finding import find_intensity
from groundglass.scan.crop import resize_slice
from groundglass.scan.geometry import AxialView, Geometry
from groundglass.scan.intensity import Intensity, Window
from groundglass.scan.scan import Scan

PADDING_HU = -2000  # some scanners write this outside the circle that they reconstruct
SHIFT_HU = 1024
THICK_MM = 10.0
SHARP_MM, SHARP_NOISE_HU = 1.0, 15.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT and its reference.

    Attributes:
        scan: The CT, on any grid.
        labels: (z, y, x) uint8 on the same grid, 0 without lesion.
    """

    scan: Scan
    labels: NDArray[np.uint8]

    def in_hu(self) -> Volume:
        """Convert the values to HU, float32; estimated HU if the file does not store HU."""
        return self.with_values(self._intensity.to_hu(self.scan.values))

    @cached_property
    def _intensity(self) -> Intensity:
        """What the values are in HU; every variant asks for it."""
        return find_intensity(self.scan)

    def upright(self) -> Volume:
        """Reorder the voxels as upright axial slices from feet to head; none of them moves in space."""
        view = AxialView(self.scan.geometry)
        return Volume(Scan(view.to_axial(self.scan.values), view.geometry), view.to_axial(self.labels))

    def with_values(self, values: NDArray[Any]) -> Volume:
        """Replace the values by others (z, y, x) on the same grid."""
        return replace(self, scan=Scan(values, self.scan.geometry))


VolumeTransform = Callable[[Volume, np.random.Generator], Volume]


@dataclass(frozen=True)
class Variant:
    """A change of a volume.

    Attributes:
        name: Name of the variant.
        stands_for: A sentence on what the variant imitates.
        transform: Function of the volume and a random generator of its own that returns the volume to be stored.
        repeat: True if another scan of the same chest on the same day could differ like this.
    """

    name: str
    stands_for: str
    transform: VolumeTransform
    repeat: bool = False

    def __call__(self, volume: Volume, case: str) -> Volume:
        """Change the volume of a case; the random numbers depend on the variant and the case alone.

        Raises:
            InputError: The volume cannot be changed like this.
        """
        return self.transform(volume, np.random.default_rng(zlib.crc32(f"{self.name}\n{case}".encode())))


def _store_hu(volume: Volume, hu: NDArray[Any]) -> Volume:
    """Round (z, y, x) HU to whole numbers, as a scanner stores them."""
    limits = np.iinfo(np.int16)
    return volume.with_values(np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16))


def _unchanged(volume: Volume, _: np.random.Generator) -> Volume:
    return volume


def _to_hu(volume: Volume, _: np.random.Generator) -> Volume:
    return _store_hu(volume, volume.in_hu().scan.values)


def _shift(volume: Volume, _: np.random.Generator) -> Volume:
    stored = np.clip(np.rint(volume.in_hu().scan.values) + SHIFT_HU, 0, np.iinfo(np.uint16).max)
    return volume.with_values(stored.astype(np.uint16))


def _pad(volume: Volume, _: np.random.Generator) -> Volume:
    """Set what lies outside the largest circle (an ellipse, if slices are not square) in each slice to `PADDING_HU`."""
    volume = volume.in_hu().upright()
    y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in volume.labels.shape[1:])
    return _store_hu(volume, np.where(y[:, None] ** 2 + x**2 <= 1, volume.scan.values, PADDING_HU))


def _window(low_hu: float, high_hu: float) -> VolumeTransform:
    def transform(volume: Volume, _: np.random.Generator) -> Volume:
        levels = 255 * Window(low_hu, high_hu).scale(volume.in_hu().scan.values)
        return volume.with_values(np.rint(levels).astype(np.uint8))

    return transform


def _blur(volume: Volume, sigma_mm: float) -> NDArray[np.float32]:
    """Blur each slice of an upright volume by a Gaussian: (z, y, x) HU."""
    _, dy, dx = volume.scan.geometry.spacing
    return np.asarray(ndimage.gaussian_filter(volume.scan.values, (0, sigma_mm / dy, sigma_mm / dx), mode="nearest"))


def _soften(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.in_hu().upright()
    return _store_hu(volume, _blur(volume, 1.0))


def _soften_pixels(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.in_hu().upright()
    return _store_hu(volume, ndimage.gaussian_filter(volume.scan.values, (0, 2, 2), mode="nearest"))


def _sharpen(volume: Volume, rng: np.random.Generator) -> Volume:
    volume = volume.in_hu().upright()
    sharpened = 2 * volume.scan.values - _blur(volume, SHARP_MM)
    return _store_hu(volume, sharpened + SHARP_NOISE_HU * rng.standard_normal(sharpened.shape, np.float32))


def _thicken(volume: Volume, _: np.random.Generator) -> Volume:
    """Average over `THICK_MM` around each slice, assuming that slices are as thick as they are apart."""
    volume = volume.in_hu().upright()
    dz = volume.scan.geometry.spacing[0]
    reach = int(np.ceil(max(THICK_MM / dz - 1, 0) / 2))
    distance = np.abs(np.arange(-reach, reach + 1)) * dz
    weights = np.clip((THICK_MM + dz) / 2 - distance, 0, min(dz, THICK_MM))
    return _store_hu(volume, ndimage.correlate1d(volume.scan.values, weights / weights.sum(), 0, mode="nearest"))


def _add_noise(sigma_hu: float) -> VolumeTransform:
    def transform(volume: Volume, rng: np.random.Generator) -> Volume:
        hu = volume.in_hu().scan.values
        return _store_hu(volume, hu + sigma_hu * rng.standard_normal(hu.shape, np.float32))

    return transform


def _resize(factor: float) -> VolumeTransform:
    """Resample each slice to `factor` x the pixels along each side; a pixel that is half lesion or more is lesion."""

    def transform(volume: Volume, _: np.random.Generator) -> Volume:
        volume = volume.upright()
        values, affine = volume.scan.values, volume.scan.geometry.affine_lps
        height, width = (round(factor * n) for n in values.shape[1:])
        grey, lesion = (_resize_slices(array, height, width) for array in (values, volume.labels > 0))
        stored = np.rint(grey).astype(values.dtype) if values.dtype.kind in "iu" else grey
        # New voxel indices to old ones: the outer edges stay in place, not the centres of the outer pixels.
        step = np.diag([1.0, values.shape[1] / height, values.shape[2] / width, 1.0])
        step[1:3, 3] = (np.diag(step)[1:3] - 1) / 2
        geometry = Geometry((len(values), height, width), affine @ step)
        return Volume(Scan(stored, geometry), np.where(lesion >= 0.5, UNSTATED, 0).astype(np.uint8))

    return transform


def _resize_slices(values: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Interpolate (z, y, x) bilinearly to (z, height, width), averaging where pixels become larger."""
    return np.stack([resize_slice(plane, height, width) for plane in values])


def _flip(*axes: int) -> VolumeTransform:
    """Reverse the voxels along some axes of (z, y, x) while the geometry stays, as a wrong mark of orientation does."""

    def transform(volume: Volume, _: np.random.Generator) -> Volume:
        volume = volume.upright()
        return Volume(volume.with_values(np.flip(volume.scan.values, axes)).scan, np.flip(volume.labels, axes))

    return transform


def _permute_axes(volume: Volume, _: np.random.Generator) -> Volume:
    volume = volume.upright()
    order = (2, 0, 1)
    geometry = volume.scan.geometry
    z, y, x = (geometry.shape[axis] for axis in order)
    permuted = Geometry((z, y, x), geometry.affine_lps[:, [*order, 3]])
    return Volume(Scan(volume.scan.values.transpose(order), permuted), volume.labels.transpose(order))


VARIANTS = (
    Variant("as it is", "The file itself, which the others are compared with.", _unchanged),
    Variant("HU", "A scanner's own HU.", _to_hu),
    Variant("HU, padded", "HU of a scanner that writes -2000 outside the circle that it reconstructs.", _pad),
    Variant("HU + 1024", "Unsigned HU, as some converters leave them.", _shift),
    *(
        Variant(f"8-bit, {low} to {high} HU", f"An 8-bit export in {window}.", _window(low, high))
        for low, high, window in (
            (-1000, 400, "a narrow lung window, air cut off"),
            (-1350, 150, "a common lung window"),
            (-1200, 600, "a wide lung window"),
            (-1500, 500, "a very wide lung window"),
        )
    ),
    Variant("soft, 1 mm", "A softer reconstruction kernel.", _soften, repeat=True),
    Variant("soft, 2 pixels", "A very soft kernel, or a picture that was enlarged.", _soften_pixels),
    Variant("thick slices", "Slices 10 mm thick, at the same distances.", _thicken),
    Variant("sharp", "A sharp (bone or lung) kernel and its noise.", _sharpen, repeat=True),
    Variant("noise, 25 HU", "A low dose.", _add_noise(25), repeat=True),
    Variant("noise, 50 HU", "A very low dose.", _add_noise(50), repeat=True),
    Variant("0.75 x the pixels", "A smaller matrix: larger pixels.", _resize(0.75), repeat=True),
    Variant("1.33 x the pixels", "A larger matrix: smaller pixels.", _resize(4 / 3), repeat=True),
    Variant("mirrored", "Left and right exchanged: a wrong mark of orientation.", _flip(2)),
    Variant("turned by 180 degrees", "Upside down: a wrong mark, or a patient who lies prone.", _flip(1, 2)),
    Variant("slices reversed", "Head and feet exchanged: a wrong mark.", _flip(0)),
    Variant("axes permuted", "The same voxels at the same positions, stored as sagittal slices.", _permute_axes),
)
