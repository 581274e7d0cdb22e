"""Make the scans of docs/performance.md out of two coronacases.

    python bench/benchmark_scans.py DATA/coronacases/ct FOLDER

Writes `302-slices.nii.gz` (001 as an 8-bit lung window, slices of 1 mm made between its own), `151-slices.nii.gz` (the
same in HU, slices of 2 mm) and `148-slices/` (002 in HU as DICOM in JPEG lossless; needs DCMTK's dcmcjpeg). For times
alone.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

INTERCEPT = -1024
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
    hu, affine = _with_slices(nibabel.Nifti1Image.from_filename(arguments.scans / "002.nii.gz"), 148)
    _write_dicom(hu, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), arguments.folder / "148-slices")


def _with_slices(image: nibabel.Nifti1Image, slices: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return HU (x, y, z) with a number of slices, interpolated between those of an image, and the affine in mm."""
    zoom = slices / image.shape[2]
    hu = ndimage.zoom(np.asarray(image.dataobj, dtype=np.float32), (1, 1, zoom), order=1)
    affine = image.affine.copy()
    affine[:3, 2] /= zoom
    return hu.round().astype(np.int16), affine


def _write_dicom(hu: NDArray[np.int16], spacing: NDArray[np.float64], folder: Path) -> None:
    """Write (x, y, z) in HU as axial slices; spacing in mm."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = (generate_uid() for _ in range(3))
    for z in range(hu.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(CTImageStorage)
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "BENCH", "1", "", ""
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200301", "101500", "1", ""
        data.ReferringPhysicianName, data.PositionReferenceIndicator, data.Manufacturer = "", "", ""
        data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, z + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient = [0, 0, round(float(z * spacing[2]), 4)]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [round(float(spacing[1]), 6), round(float(spacing[0]), 6)]
        data.SliceThickness = round(float(spacing[2]), 6)
        data.RescaleIntercept, data.RescaleSlope = INTERCEPT, 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        plane = np.clip(hu[:, ::-1, z].T.astype(np.int32) - INTERCEPT, 0, 65535)
        data.Rows, data.Columns = plane.shape
        data.PixelData = plane.astype("<u2").tobytes()
        path = folder / f"{z:03d}.dcm"
        data.save_as(path, enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "+e1", path, path], check=True)


if __name__ == "__main__":
    main()
