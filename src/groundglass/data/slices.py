"""Cases as one array of slices, cut to the lungs and scaled to the network's size, in HU.

The way from a file to these slices is the one that `segment` takes: intensity, lung field, letterbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.data.catalogue import Case
from groundglass.errors import DatasetError
from groundglass.scan.crop import Letterbox
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import recognise
from groundglass.scan.lungs import find_lungs
from groundglass.scan.reader import read_scan
from groundglass.scan.scan import Scan

AIR_HU = -1000
FIELDS = ("hu", "labels", "case", "patient")  # of `Slices`, as the cache names them
FORMAT = 1  # of the cache: raise it when what is stored, or how it is cut, changes


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices ready for training.

    Attributes:
        hu: (n, height, width) int16, approximate HU.
        labels: (n, height, width) uint8, the reference's own labels; 0 is no lesion.
        case: (n,) name of the case that each comes from.
        patient: (n,) the patient group of each.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    case: NDArray[np.str_]
    patient: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.hu)

    def __repr__(self) -> str:
        n, height, width = self.hu.shape
        return (
            f"Slices({n} of {height} x {width}, {int(self.has_lesion.sum())} with lesion, {len(set(self.case))} cases)"
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """(n,) whether a slice holds any lesion pixel."""
        return np.asarray(self.labels.any((1, 2)))

    def where(self, keep: NDArray[np.bool_]) -> Slices:
        """The slices for which `keep` (n,) is true."""
        return Slices(self.hu[keep], self.labels[keep], self.case[keep], self.patient[keep])


def read_pair(case: Case) -> tuple[Scan, NDArray[np.uint8]]:
    """The CT of a case and its labels (z, y, x), both in the file's own order.

    Raises:
        DatasetError: The mask's grid is not the image's.
    """
    scan, mask = read_scan(case.image), read_scan(case.lesion)
    if not scan.geometry.matches(mask.geometry, tolerance_mm=0.1):
        raise DatasetError(f"{case.lesion} is on {mask.geometry}, its image on {scan.geometry}: expected the same grid")
    if case.strangers and not scan.is_picture:
        count, height, width = scan.geometry.shape
        scan = replace(scan, sizes=((height, width),) * count)
    return scan, mask.values.astype(np.uint8)


def cut_case(case: Case, size: tuple[int, int]) -> Slices:
    """All slices of a case that show lung, cut to its field and scaled to `size` (height, width)."""
    scan, labels = read_pair(case)
    view = AxialView(scan.geometry)
    intensity = recognise(scan)
    hu, labels = intensity.to_hu(view.turn(scan.values)), view.turn(labels)
    field = find_lungs(hu, view.geometry, scan.sizes)
    places = [(z, box) for z, box in enumerate(field.boxes) if box is not None]
    cut_hu = [Letterbox(box, size).take(hu[z], AIR_HU) for z, box in places]
    cut_labels = [take_labels(Letterbox(box, size), labels[z]) for z, box in places]
    count = len(places)
    patients = [f"{case.patient}-{z}" if case.strangers else case.patient for z, _ in places]
    return Slices(
        np.clip(np.round(cut_hu), -2000, 3000).astype(np.int16),
        np.array(cut_labels, dtype=np.uint8),
        np.array([case.name] * count),
        np.array(patients),
    )


def take_labels(letterbox: Letterbox, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A pixel is lesion where at least half of it is, and then of the label that covers most of it."""
    kinds = [int(label) for label in np.unique(labels) if label]
    if not kinds:
        return np.zeros(letterbox.size, dtype=np.uint8)
    share = np.stack([letterbox.take((labels == label).astype(np.float32), 0.0) for label in kinds])
    winner = np.array(kinds, dtype=np.uint8)[share.argmax(0)]
    return np.where(share.sum(0) >= 0.5, winner, 0).astype(np.uint8)


def _key(cases: Sequence[Case], size: tuple[int, int]) -> str:
    text = repr((FORMAT, size, [(c.name, c.patient, c.image.stat().st_size, c.lesion.stat().st_size) for c in cases]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_slices(
    cases: Sequence[Case],
    size: tuple[int, int],
    cache: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Slices:
    """Cut all cases, or read what an earlier call left in the folder `cache` for the same cases and size.

    `progress` is called with the cases done and their number.
    """
    path = cache / f"slices-{_key(cases, size)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return Slices(**{name: stored[name] for name in FIELDS})
    parts = []
    with ProcessPoolExecutor() as pool:
        for part in pool.map(partial(cut_case, size=size), cases):
            parts.append(part)
            progress(len(parts), len(cases))
    slices = Slices(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS})
    cache.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".part.npz")
    np.savez_compressed(partial_path, **{name: getattr(slices, name) for name in FIELDS})
    partial_path.replace(path)
    return slices
