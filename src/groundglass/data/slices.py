"""Cases as slices of the network's size, with their labels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundglass.scan.crop import slices_apart
from groundglass.scan.intensity import Window

GreyLevels: TypeAlias = NDArray[Any]  # uint8 or uint16
OFFSET_HU = 2048  # added to HU so that they can be stored as unsigned numbers
NOT_READ = 255  # in the mask of a second reader: the reader did not see the case


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices ready for training.

    Attributes:
        hu: (n, height, width) int16, approximate HU.
        labels: (n, height, width) uint8: 0 no lesion, `CLASS_LABELS`, or `UNSTATED`.
        case: (n,) name of the case of each slice.
        number: (n,) number of each slice in its case, from 0 at the feet (pictures: in their order).
        patient: (n,) patient group of each slice.
        spacing_mm: (n,) distance from slice to slice of its case; NaN for pictures.
        lungs: (n, height, width) where lung is, lesions included; None where it is not needed.
        second_reader: (n, height, width) uint8: a second reader's 0 no lesion or 1 lesion, or `NOT_READ`; None if no
            case has a second reader.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    case: NDArray[np.str_]
    number: NDArray[np.int64]
    patient: NDArray[np.str_]
    spacing_mm: NDArray[np.float64]
    lungs: NDArray[np.bool_] | None = None
    second_reader: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.hu)

    def __repr__(self) -> str:
        n, height, width = self.hu.shape
        return (
            f"Slices({n} of {height} x {width}, {int(self.has_lesion.sum())} with lesion, {len(set(self.case))} cases)"
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) whether any pixel of a slice is lesion."""
        return np.asarray(self.labels.any((1, 2)))

    @property
    def source(self) -> NDArray[np.str_]:
        """(n,) source of each slice, such as `volumes`."""
        return np.array([name.split("/")[0] for name in self.case])

    @property
    def name(self) -> NDArray[np.str_]:
        """(n,) name of each slice: CASE:NUMBER."""
        return np.array([f"{case}:{number}" for case, number in zip(self.case, self.number, strict=True)])

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """Return the slices for which `keep` (n,) is true, or those at these indices."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        kept: dict[str, Any] = {name: None if value is None else value[keep] for name, value in values}
        return Slices(**kept)

    def neighbour_indices(self, neighbours_mm: float) -> NDArray[np.int64]:
        """Find the neighbours of each slice.

        Args:
            neighbours_mm: Distance of the neighbours; 0 for none.

        Returns:
            (n, 3) indices of the slice that far below, of the slice itself, and of the slice that far above, or (n, 1)
            of the slice itself. Where there is no neighbour, as at the end of a scan, the slice takes its place.
        """
        if not neighbours_mm:
            return np.arange(len(self))[:, None]
        index_of = {key: index for index, key in enumerate(zip(self.case.tolist(), self.number.tolist(), strict=True))}

        def neighbour(index: int, direction: int) -> int:
            spacing = float(self.spacing_mm[index])
            step = slices_apart(neighbours_mm, None if np.isnan(spacing) else spacing)
            return index_of.get((str(self.case[index]), int(self.number[index]) + direction * step), index)

        return np.array([(neighbour(i, -1), i, neighbour(i, 1)) for i in range(len(self))]).reshape(-1, 3)

    def network_inputs(
        self, window: Window, neighbours_mm: float, indices: slice | NDArray[np.int64] = slice(None)
    ) -> NDArray[np.float32]:
        """Return the network's input for the slices at `indices`: (n, 1 or 3, height, width) in [0, 1]."""
        return window.scale(self.hu[self.neighbour_indices(neighbours_mm)[indices]].astype(np.float32))


def levels_to_hu(levels: GreyLevels, slope: NDArray[np.float64], intercept: NDArray[np.float64]) -> NDArray[np.int16]:
    """Convert (n, height, width) grey levels to whole HU by the (n,) slopes and intercepts of the slices."""
    slope32, intercept32 = (values.astype(np.float32)[:, None, None] for values in (slope, intercept))
    hu = levels * slope32 + intercept32
    return np.asarray(np.clip(np.rint(hu), -OFFSET_HU, 3 * OFFSET_HU), dtype=np.int16)
