"""Make the scans of docs/performance.md out of two coronacases.

    python bench/benchmark_scans.py DATA/coronacases/ct FOLDER

Writes `302-slices.nii.gz` (001 as an 8-bit lung window, slices of 1 mm made between its own), `151-slices.nii.gz` (the
same in HU, slices of 2 mm) and `148-slices/` (002 in HU as DICOM in JPEG lossless; needs DCMTK's dcmcjpeg). For times
alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.io.reader import read_scan

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.dicom_phantom import write_series

LUNG_WINDOW_HU = -1250.0, 250.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="Folder with 001.nii.gz and 002.nii.gz.")
    parser.add_argument("folder", type=Path, help="Folder for the three scans.")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image.from_filename(arguments.scans / "001.nii.gz")
    hu, affine = _with_slices(image, 302)
    start, end = LUNG_WINDOW_HU
    grey = np.clip((hu - start) / (end - start), 0, 1) * 255
    nibabel.save(nibabel.Nifti1Image(grey.round().astype(np.uint8), affine), arguments.folder / "302-slices.nii.gz")
    nibabel.save(nibabel.Nifti1Image(*_with_slices(image, 151)), arguments.folder / "151-slices.nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "148-slices.nii.gz"
        image = nibabel.Nifti1Image.from_filename(arguments.scans / "002.nii.gz")
        nibabel.save(nibabel.Nifti1Image(*_with_slices(image, 148)), file)
        for path in write_series(read_scan(file), arguments.folder / "148-slices"):
            subprocess.run(["dcmcjpeg", "+e1", path, path], check=True)


def _with_slices(image: nibabel.Nifti1Image, slices: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return HU (x, y, z) with a number of slices, interpolated between those of an image, and the affine in mm."""
    zoom = slices / image.shape[2]
    hu = ndimage.zoom(np.asarray(image.dataobj, dtype=np.float32), (1, 1, zoom), order=1)
    affine = image.affine.copy()
    affine[:3, 2] /= zoom
    return hu.round().astype(np.int16), affine


if __name__ == "__main__":
    main()
