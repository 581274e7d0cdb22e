"""Masks and probability maps as users get them: with the axes of what they gave, to be saved or converted."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from groundglass.errors import ConfigError
from groundglass.files import write_atomic
from groundglass.io import nifti
from groundglass.io.array_scan import ArrayScan
from groundglass.scan.geometry import LPS_RAS, Geometry
from groundglass.scan.scan import ImageStack, Mask, Scan

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_VOLUMES, _PICTURE = (".nii", ".nii.gz"), ".png"


@dataclass(frozen=True, eq=False, repr=False)
class ScanMask(Mask):
    """A mask of a scan, such as its lesions or its lungs.

    Attributes:
        voxels: True inside. The axes are those of the array or nibabel image that the scan was given as; for every
            other source they are (z, y, x).
        geometry: The grid, with the same axes.
        scan: The scan.
    """

    scan: Scan

    @property
    def affine(self) -> NDArray[np.float64]:
        """The (4, 4) matrix that maps the indices (i, j, k, 1) of `voxels` to (R, A, S, 1) in mm, as in NIfTI."""
        return np.asarray(LPS_RAS @ self.geometry.affine_lps)

    def to_nibabel(self) -> Nifti1Image:
        """Return a nibabel image of 0 and 1 (uint8), on the grid of the scan's own file or image."""
        return _to_nibabel(self.voxels.astype(np.uint8), self.scan)

    def to_simpleitk(self) -> Any:
        """Return a SimpleITK image of 0 and 1 (uint8); its axes are perpendicular, unlike those of a tilted gantry.

        Raises:
            ModuleNotFoundError: SimpleITK is not installed.
        """
        return _to_simpleitk(self.voxels.astype(np.uint8), self.scan)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a NIfTI file of 0 and 1 (.nii, .nii.gz) on exactly the scan's grid, or a PNG of 0 and 255 of a picture.

        Raises:
            ConfigError: The name ends in something else, or a PNG is asked for of several slices.
            OutputError: The file cannot be written.
        """
        return _save(self.voxels.astype(np.uint8), self.scan, Path(path), "mask")


@dataclass(frozen=True, eq=False, repr=False)
class ProbabilityMap:
    """Probability of lesion of each voxel, smoothed as the model's card says, before threshold and removal of regions.

    Attributes:
        voxels: float32 from 0 to 1, 0 wherever the network did not look. The axes are those of `ScanMask.voxels`.
        geometry: The grid, with the same axes.
        scan: The scan.
    """

    voxels: NDArray[np.float32]
    geometry: Geometry
    scan: Scan

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.voxels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"ProbabilityMap(up to {self.voxels.max():.2f} on {self.geometry})"

    @property
    def affine(self) -> NDArray[np.float64]:
        """The (4, 4) matrix that maps the indices (i, j, k, 1) of `voxels` to (R, A, S, 1) in mm, as in NIfTI."""
        return np.asarray(LPS_RAS @ self.geometry.affine_lps)

    @property
    def volume_ml(self) -> float | None:
        """Expected volume of lesion, the sum of the probabilities, in millilitres; None if the spacing is unknown."""
        voxel_ml = self.geometry.voxel_ml
        return None if voxel_ml is None else float(self.voxels.sum(dtype=np.float64)) * voxel_ml

    def to_nibabel(self) -> Nifti1Image:
        """Return a nibabel image (float32), on the grid of the scan's own file or image."""
        return _to_nibabel(self.voxels, self.scan)

    def to_simpleitk(self) -> Any:
        """Return a SimpleITK image (float32); see `ScanMask.to_simpleitk`."""
        return _to_simpleitk(self.voxels, self.scan)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a NIfTI file (float32) on exactly the scan's grid, or a PNG of a picture, 255 for a probability of 1.

        Raises:
            ConfigError: The name ends in something else, or a PNG is asked for of several slices.
            OutputError: The file cannot be written.
        """
        return _save(self.voxels, self.scan, Path(path), "probability of lesion")


def is_single_picture(scan: Scan) -> bool:
    """Return whether a scan is one PNG or JPEG slice."""
    return isinstance(scan, ImageStack) and len(scan.sizes) == 1


def in_given_order(array: NDArray[Any], scan: Scan) -> tuple[NDArray[Any], Geometry]:
    """Return an array (z, y, x) of a scan, and its grid, with the axes that the scan was given with."""
    geometry = scan.geometry
    if not isinstance(scan, ArrayScan):
        return array, geometry
    z, y, x = geometry.shape
    reversed_lps = geometry.affine_lps[:, [2, 1, 0, 3]]
    return array.T, Geometry((x, y, z), reversed_lps, geometry.in_mm, geometry.has_directions)


def _as_stored(voxels: NDArray[Any], scan: Scan) -> NDArray[Any]:
    """Return (z, y, x) voxels that have the axes which the scan was given with."""
    return voxels.T if isinstance(scan, ArrayScan) else voxels


def _to_nibabel(voxels: NDArray[Any], scan: Scan) -> Nifti1Image:
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(np.ascontiguousarray(_as_stored(voxels, scan).T), scan.geometry.affine_ras)
    image.header.set_xyzt_units("mm" if scan.geometry.in_mm else "unknown")
    return image


def _to_simpleitk(voxels: NDArray[Any], scan: Scan) -> Any:
    import SimpleITK

    geometry = scan.geometry
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(_as_stored(voxels, scan)))
    steps = geometry.affine_lps[:3, [2, 1, 0]]
    lengths = np.linalg.norm(steps, axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetDirection((steps / lengths).ravel().tolist())
    image.SetOrigin(geometry.affine_lps[:3, 3].tolist())
    return image


def _save(voxels: NDArray[Any], scan: Scan, path: Path, content: str) -> Path:
    planes: Iterable[NDArray[Any]] = _as_stored(voxels, scan)
    name = path.name.lower()
    if name.endswith(_VOLUMES):
        nifti.write_slices(planes, voxels.dtype, scan.geometry, path, scan.source, content)
    elif name.endswith(_PICTURE) and isinstance(scan, ImageStack) and is_single_picture(scan):
        height, width = scan.sizes[0]
        buffer = io.BytesIO()
        Image.fromarray(np.rint(voxels[0, :height, :width] * 255.0).astype(np.uint8)).save(buffer, "PNG")
        write_atomic(path, buffer.getvalue())
    else:
        raise ConfigError(
            f"{path.name}: expected a name that ends in .nii.gz or .nii, or in .png for a single picture; "
            "to_simpleitk() gives an image that SimpleITK writes in other formats"
        )
    return path
