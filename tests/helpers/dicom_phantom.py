"""Write a scan as DICOM: a CT instance for each slice, or one Enhanced CT; with an invented patient."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from groundglass.scan.scan import Scan

NAME, NUMBER, BIRTH = "PLANTED^NAME", "PLANTED-ID", "19010203"
INTERCEPT = -1024


def write_series(scan: Scan, folder: Path, **changes: Any) -> list[Path]:
    """Write each slice of a scan in HU as a file of its own.

    Args:
        scan: (z, y, x) on any grid without a shear in plane; values of at least -1024 HU.
        folder: Output folder; created if it does not exist.
        **changes: Attributes of every instance, such as `Modality="MR"`; None removes one.

    Returns:
        The files in the order of the slices, which is not the order of their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = str(changes.pop("SeriesInstanceUID", generate_uid(entropy_srcs=[str(folder)])))
    study = generate_uid(entropy_srcs=[str(folder.parent)])
    count = len(scan.values)
    paths = []
    for z, plane in enumerate(scan.values):
        data = _common(CTImageStorage, generate_uid(entropy_srcs=[uid, str(z)]), study, uid)
        data.InstanceNumber = z + 1
        data.ImagePositionPatient = _decimals(scan.geometry.position((z, 0, 0)))
        data.ImageOrientationPatient = _orientation(scan)
        data.PixelSpacing = _decimals(np.array(scan.geometry.spacing[1:]))
        data.SliceThickness = _decimals(np.array(scan.geometry.spacing[:1]))[0]
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.KVP, data.AcquisitionNumber = "120", "1"
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = str(INTERCEPT), "1", "HU"
        _pixels(data, plane)
        _change(data, changes)
        paths.append(folder / f"IM{(z * 7 + 3) % count if count % 7 else count - 1 - z:04d}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(scan: Scan, path: Path, **changes: Any) -> Path:
    """Write a scan in HU as one multi-frame instance; its frames are in the order of the slices."""
    data = _common(EnhancedCTImageStorage, generate_uid(entropy_srcs=[str(path)]), generate_uid(), generate_uid())
    data.InstanceNumber = 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.ContentDate, data.ContentTime = "20200301", "101500"
    data.AcquisitionDateTime = "20200301101500"
    data.NumberOfFrames = len(scan.values)
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing = _decimals(np.array(scan.geometry.spacing[1:]))
    measures.SliceThickness = _decimals(np.array(scan.geometry.spacing[:1]))[0]
    orientation = Dataset()
    orientation.ImageOrientationPatient = _orientation(scan)
    rescale = Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = str(INTERCEPT), "1", "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for z in range(len(scan.values)):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _decimals(scan.geometry.position((z, 0, 0)))
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    _pixels(data, scan.values)
    _change(data, changes)
    data.save_as(path, enforce_file_format=True)
    return path


def _common(sop_class: str, instance: str, study: str, series: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(sop_class)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(instance)
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = NAME, NUMBER, BIRTH, "O"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=[study, "frame"])
    data.PositionReferenceIndicator = ""
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = "20200301"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = "101500"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.SeriesNumber, data.Modality, data.Manufacturer = 2, "CT", "made up"
    data.BodyPartExamined, data.PatientPosition = "CHEST", "HFS"
    return data


def _pixels(data: Dataset, values: NDArray[Any]) -> None:
    stored = np.round(values).astype(np.int32) - INTERCEPT
    assert stored.min() >= 0
    data.Rows, data.Columns = stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"


def _orientation(scan: Scan) -> list[str]:
    """Return the direction of a row (along x), then that of a column (along y)."""
    affine = scan.geometry.affine_lps
    return _decimals(np.concatenate([affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (2, 1)]))


def _decimals(values: NDArray[np.float64]) -> list[str]:
    """Return decimal strings of at most 16 characters each."""
    return [f"{value:.10g}"[:16] for value in values]


def _change(data: Dataset, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            if name in data:
                delattr(data, name)
        else:
            setattr(data, name, value)
