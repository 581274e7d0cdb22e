"""Memory that segmenting needs for each slice of a scan, besides the scan itself."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from groundglass.inference.engine import OnnxRuntimeEngine
from groundglass.inference.lungs import network as lung_network
from groundglass.inference.segmenter import Segmenter
from groundglass.report.analysis import segment
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan

pytestmark = pytest.mark.thorough

PLANE = (240, 320)  # the lung network's grid has one size: it would outweigh small slices
BYTES_PER_VOXEL = 0.6  # a mask of bytes would be 1, and the scan itself is 2


@pytest.fixture
def forgotten_lungs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the lung network remember no slice: what it remembers would be counted."""
    monkeypatch.setattr(lung_network, "OnnxRuntimeEngine", OnnxRuntimeEngine)
    lung_network.open_lung_network.cache_clear()
    yield
    lung_network.open_lung_network.cache_clear()


def peak_bytes(scan: Scan, segmenter: Segmenter, folder: Path) -> int:
    tracemalloc.start()
    try:
        analysis = segment(scan, segmenter)
        analysis.save(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.any(analysis.lesions.voxels)
    return peak


@pytest.mark.usefixtures("forgotten_lungs")
def test_memory_besides_the_scan_hardly_grows_with_the_number_of_slices(
    grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One thread for each stage: else chance decides what meets at the peak.
    monkeypatch.setattr("groundglass.report.preview.available_cores", lambda: 1)
    monkeypatch.setattr("groundglass.report.viewer.available_cores", lambda: 1)
    monkeypatch.setattr("groundglass.inference.segmenter.AT_ONCE", 1)
    monkeypatch.setattr("groundglass.scan.intensity.SAMPLES", 100_000)  # fewer than the voxels of either scan
    scans = [chest_phantom(shape=(slices, *PLANE)).scan for slices in (10, 30)]
    segment(scans[0], grey_band).save(tmp_path)  # modules are loaded on first use
    short, long = (peak_bytes(scan, grey_band, tmp_path) for scan in scans)
    assert (long - short) / (scans[1].values.size - scans[0].values.size) < BYTES_PER_VOXEL
