"""How dense lung and lesions are: a histogram, mean HU, and the shares of the lung in bands of HU.

The bands are those of quantitative CT: hyperinflated, normally, poorly and not aerated (Vieira et al. 1998, Am J Respir
Crit Care Med 158:1571; Gattinoni et al. 2001, Am J Respir Crit Care Med 164:1701), as papers on COVID-19 give them
(Lanza et al. 2020, Eur Radiol 30:6770, doi 10.1007/s00330-020-07013-2). Vessels within the lungs count too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundglass.inference.pipeline import SegmentedScan
from groundglass.strict_model import StrictModel
from groundglass.unknown import Unknown

HISTOGRAM_HU = (-1100, 200, 20)  # start, stop, and the width of a bin
BANDS_HU = (
    (-1000, -900, "hyperinflated"),
    (-900, -500, "normally aerated"),
    (-500, -100, "poorly aerated"),
    (-100, 100, "not aerated"),
)
NO_HU = "the file holds no HU, only a lung window"


class Histogram(StrictModel):
    """Numbers of voxels by HU; the first and the last bin include all values below and above.

    Attributes:
        start_hu: Lower end of the first bin.
        width_hu: Width of every bin.
        lung: Voxels of the lung without lesion in each bin.
        lesion: Voxels of the lesions in each bin.
        estimated: Whether HU are estimated from a lung window.
    """

    start_hu: int
    width_hu: int
    lung: tuple[int, ...]
    lesion: tuple[int, ...]
    estimated: bool


class MeanIntensity(StrictModel):
    """Mean HU of the lesions, and of the lung without them.

    Attributes:
        lesion_hu: Mean HU of the lesions.
        lung_hu: Mean HU of the lung without lesions.
    """

    lesion_hu: float | None
    lung_hu: float | None


class DensityBand(StrictModel):
    """The part of both lungs, lesions included, from `low_hu` up to but without `high_hu`.

    Attributes:
        name: Name of the band.
        low_hu: Lower end of the band.
        high_hu: Upper end of the band, which does not belong to it.
        volume_ml: Volume of the lung in the band.
        share_of_lung_percent: Its share of the lung.
    """

    name: str
    low_hu: int
    high_hu: int
    volume_ml: float | None
    share_of_lung_percent: float


@dataclass(frozen=True, eq=False)
class Density:
    """What is counted in one pass through a scan.

    Attributes:
        lung: (bins,) voxels of the lung without lesion by HU.
        lesion: (bins,) voxels of the lesions, also of those outside the lung field.
        lesion_in_lung: (bins,) voxels of the lesions inside the lung field.
        lung_sum: Sum of the HU of the lung without lesion.
        lesion_sum: Sum of the HU of the lesions.
    """

    lung: NDArray[np.int64]
    lesion: NDArray[np.int64]
    lesion_in_lung: NDArray[np.int64]
    lung_sum: float
    lesion_sum: float

    def histogram(self, estimated: bool) -> Histogram:
        """Return the histogram of lung and lesions."""
        start, _, width = HISTOGRAM_HU
        counts = {"lung": tuple(self.lung.tolist()), "lesion": tuple(self.lesion.tolist())}
        return Histogram(start_hu=start, width_hu=width, estimated=estimated, **counts)

    def means(self, calibrated: bool) -> dict[str, float | Unknown]:
        """Return the fields of a `MeanIntensity`."""
        if not calibrated:
            return dict.fromkeys(MeanIntensity.model_fields, Unknown(NO_HU))
        found: dict[str, float | Unknown] = {}
        for key, name, total, voxels in (
            ("lesion_hu", "lesion", self.lesion_sum, int(self.lesion.sum())),
            ("lung_hu", "lung without lesion", self.lung_sum, int(self.lung.sum())),
        ):
            found[key] = round(total / voxels, 1) if voxels else Unknown(f"no {name} was found")
        return found

    def bands(self, calibrated: bool, voxel_ml: float | None, no_volume: str) -> list[dict[str, object]] | Unknown:
        """Return the fields of each `DensityBand`; `no_volume` is why volumes are unknown."""
        voxels = self.lung + self.lesion_in_lung
        whole = int(voxels.sum())
        if not calibrated:
            return Unknown(NO_HU)
        if not whole:
            return Unknown("no lung was found in the scan")
        start, _, width = HISTOGRAM_HU
        found: list[dict[str, object]] = []
        for low, high, name in BANDS_HU:
            count = int(voxels[(low - start) // width : (high - start) // width].sum())
            volume = Unknown(no_volume) if voxel_ml is None else round(count * voxel_ml, 3)
            share = round(100 * count / whole, 2)
            found.append(
                {"name": name, "low_hu": low, "high_hu": high, "volume_ml": volume, "share_of_lung_percent": share}
            )
        return found


def measure_density(segmented: SegmentedScan) -> Density:
    """Count the voxels of lung and lesions by their HU, slice by slice to save memory."""
    start, stop, width = HISTOGRAM_HU
    bins = (stop - start) // width
    counts, sums = np.zeros((3, bins), dtype=np.int64), np.zeros(2)
    for hu, lung, lesion in zip(segmented.hu, segmented.lung_field.mask, segmented.lesions, strict=True):
        if not (lung.any() or lesion.any()):
            continue
        for i, mask in enumerate((lung & ~lesion, lesion, lesion & lung)):
            values = hu[mask]
            indices = np.clip((values - start) / width, 0, bins - 1).astype(np.int64)  # rounded down
            counts[i] += np.bincount(indices, minlength=bins)
            if i < 2:
                sums[i] += values.sum(dtype=np.float64)
    return Density(counts[0], counts[1], counts[2], float(sums[0]), float(sums[1]))
