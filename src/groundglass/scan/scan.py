"""A CT scan, a stack of unrelated images, and a mask, each on its grid."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from groundglass.scan.geometry import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

# Of a date with a time by their number of digits: DICOM may leave out seconds and minutes.
_LAYOUTS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The DICOM instances of a scan: a segmentation refers to them, and they date the scan.

    Attributes:
        headers: Every instance without its pixels: one for each slice, in the order of the scan's z axis, or a single
            multi-frame one.
        frames: The frame index of each slice, from 0, if the instance is a multi-frame one; None otherwise.
        origins: The SOP instance UID and the frame index there of each slice, if the multi-frame instance was joined
            from several; None otherwise.
        name: What people call the series: number, kernel, number and distance of slices; empty if it is not known.
        is_complete: Whether `io.dicom_completion` has filled in what instances that refer to the headers need.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...] | None = None
    origins: tuple[tuple[str, int], ...] | None = None
    name: str = ""
    is_complete: bool = False

    @property
    def acquired(self) -> datetime | None:
        """Date of the acquisition, series or study, the first that is stated, with its time if stated; None without."""
        header = self.headers[0]
        for level in ("Acquisition", "Series", "Study"):
            date, time = (str(header.get(f"{level}{part}") or "") for part in ("Date", "Time"))
            both = str(header.get("AcquisitionDateTime") or "") if level == "Acquisition" else ""
            digits = "".join(takewhile(str.isdecimal, both or date + time))
            for text in (digits[:14], digits[:8]):
                with suppress(KeyError, ValueError):
                    return datetime.strptime(text, _LAYOUTS[len(text)])
        return None

    def __repr__(self) -> str:
        return f"DicomSeries({len(self.headers)} instances)"


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT scan with the numbers of its file, which `scan.intensity` converts to HU.

    Attributes:
        values: (z, y, x) the file's numbers after its own slope and intercept; any integer or float type.
        geometry: The grid, of the same shape.
        source: The file or folder the scan was read from; None for an array made in memory.
        notes: Sentences for the user about the file: a tilted gantry, other series in the folder.
        series: The DICOM series the scan was read from; None for other formats.
        choice: A sentence that names the DICOM series and the others there; None if there are no others.
    """

    values: NDArray[Any]
    geometry: Geometry
    source: Path | None = None
    notes: tuple[str, ...] = ()
    series: DicomSeries | None = None
    choice: str | None = None

    def __post_init__(self) -> None:
        if self.values.shape != self.geometry.shape:
            raise ValueError(f"values are {self.values.shape}, the geometry {self.geometry.shape}: they must agree")

    def __repr__(self) -> str:
        name = self.source.name if self.source else "in memory"
        return f"Scan({name}: {self.values.dtype} on {self.geometry})"


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack(Scan):
    """Single slices without spacing, such as PNG or JPEG files; neighbours in the array may show different patients.

    Attributes:
        sizes: (height, width) of each slice. Its pixels lie at the top left of `values`; the rest is padding.
        names: File name of each slice; None if the slices come from one file.
    """

    sizes: tuple[tuple[int, int], ...] = field(kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Mask:
    """A set of voxels, such as the lesions of a scan.

    Attributes:
        voxels: (z, y, x) True inside.
        geometry: The grid, of the same shape.
    """

    voxels: NDArray[np.bool_]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels.shape != self.geometry.shape or self.voxels.dtype != np.bool_:
            raise ValueError(f"voxels are {self.voxels.dtype} {self.voxels.shape}, not bool {self.geometry.shape}")

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.voxels, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        volume = self.volume_ml
        amount = f"{int(self.voxels.sum())} voxels" if volume is None else f"{volume:.1f} ml"
        return f"Mask({amount} on {self.geometry})"

    @property
    def volume_ml(self) -> float | None:
        """Volume in millilitres; None if the spacing is unknown."""
        voxel_ml = self.geometry.voxel_ml
        return None if voxel_ml is None else float(self.voxels.sum()) * voxel_ml
