"""What a scan's length costs besides the scan itself."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from groundglass.inference.segmenter import Segmenter
from groundglass.report.analysis import save, segment
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan

PLANE = (96, 128)
BYTES_A_VOXEL = 0.6  # of what grows; a mask of bytes is 1, the scan itself 2


def peak_bytes(scan: Scan, segmenter: Segmenter, folder: Path) -> int:
    tracemalloc.start()
    try:
        save(segment(scan, segmenter), folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_beyond_the_scan_is_flat_in_the_slices(
    grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.scan.intensity.SAMPLES", 100_000)  # of long scans no more are looked at either
    scans = [chest_phantom(shape=(slices, *PLANE)).scan for slices in (48, 144)]
    save(segment(scans[0], grey_band), tmp_path)  # what is loaded on first use
    short, long = (peak_bytes(scan, grey_band, tmp_path) for scan in scans)
    assert (long - short) / (scans[1].values.size - scans[0].values.size) < BYTES_A_VOXEL
    assert np.any(segment(scans[1], grey_band).lesions.voxels)
