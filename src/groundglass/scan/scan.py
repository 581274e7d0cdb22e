"""A CT scan, a stack of unrelated images and a mask, each on its grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.geometry import Geometry

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """The DICOM instances that a scan's slices come from: what a segmentation must name, and what dates a scan.

    Attributes:
        headers: Every instance without its pixels: one for each slice, in the order of the scan's z axis, or a single
            multi-frame one.
        frames: Of a multi-frame instance, for each slice the number of its frame, from 0; None otherwise.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...] | None = None

    @property
    def taken(self) -> datetime | None:
        """When the patient was scanned, as exactly as it is stated; None: no date that can be read."""
        header = self.headers[0]
        for kind in ("Acquisition", "Series", "Study"):
            day, time = (str(header.get(f"{kind}{what}") or "") for what in ("Date", "Time"))
            stated = str(header.get("AcquisitionDateTime") or "") if kind == "Acquisition" else ""
            for text, form in ((stated[:14] or day + time[:6], "%Y%m%d%H%M%S"), (stated[:8] or day, "%Y%m%d")):
                try:
                    return datetime.strptime(text, form)
                except ValueError:
                    continue
        return None

    def __repr__(self) -> str:
        return f"DicomSeries({len(self.headers)} instances)"


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT scan as its file states it: nothing is scaled yet (see `intensity`).

    Attributes:
        values: (z, y, x), the file's numbers after its own slope and intercept; any integer or float type.
        geometry: The grid, of the same shape.
        source: The file or folder it was read from; None for an array made in memory.
        notes: Sentences for the user about what was found while reading: a gap, a tilt, other series.
        series: The DICOM series that it was read from.
    """

    values: NDArray[Any]
    geometry: Geometry
    source: Path | None = None
    notes: tuple[str, ...] = ()
    series: DicomSeries | None = None

    def __post_init__(self) -> None:
        if self.values.shape != self.geometry.shape:
            raise ValueError(f"values are {self.values.shape}, the geometry {self.geometry.shape}: they must agree")

    def __repr__(self) -> str:
        name = self.source.name if self.source else "in memory"
        return f"Scan({name}: {self.values.dtype} on {self.geometry})"


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack(Scan):
    """Single slices without spacing, such as PNG or JPEG files: neighbours in the array may be of different patients.

    Attributes:
        sizes: (height, width) of each slice. Its pixels lie at the top left of `values`; the rest is padding.
        names: File name of each slice; None if the slices come from one file.
    """

    sizes: tuple[tuple[int, int], ...] = field(kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Mask:
    """Which voxels belong to something.

    Attributes:
        voxels: (z, y, x) bool.
        geometry: The grid, of the same shape.
    """

    voxels: NDArray[np.bool_]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels.shape != self.geometry.shape or self.voxels.dtype != np.bool_:
            raise ValueError(f"voxels are {self.voxels.dtype} {self.voxels.shape}, not bool {self.geometry.shape}")

    def __repr__(self) -> str:
        volume = self.volume_ml
        amount = f"{int(self.voxels.sum())} voxels" if volume is None else f"{volume:.1f} ml"
        return f"Mask({amount} on {self.geometry})"

    @property
    def volume_ml(self) -> float | None:
        """Millilitres inside, or None where the spacing is unknown."""
        voxel_ml = self.geometry.voxel_ml
        return None if voxel_ml is None else float(self.voxels.sum()) * voxel_ml
