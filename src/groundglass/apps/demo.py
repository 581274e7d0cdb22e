"""The demonstration: `segment` on a phantom with lesions of known volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.scan.phantom import chest_phantom


def run_demo(folder: Path, progress: Callable[[int, int], None] = lambda *_: None) -> list[str]:
    """Create a chest phantom, segment it with the bundled model, and compare the volumes.

    Args:
        folder: Folder for the phantom and the results; created if it does not exist.
        progress: Called with the number of slices done and the number of all.

    Returns:
        Lines of text: the paths of the files, and the volumes found and true.

    Raises:
        OutputError: The folder cannot be written.
    """
    phantom = chest_phantom()
    source = folder / "phantom.nii.gz"
    nifti.write_scan(phantom.scan, source)
    result = segment(read_scan(source), progress=progress)
    files = result.save(folder / "results")
    found = result.findings
    return [
        f"phantom   {source}",
        *(f"{file.name.partition('.')[0]:10}{file}" for file in files),
        f"lesion    {found.lesion_volume_ml:.1f} ml found, {phantom.lesions.volume_ml:.1f} ml true",
        f"lung      {found.lung_volume_ml:.0f} ml found, {phantom.lungs.volume_ml:.0f} ml true",
    ]
