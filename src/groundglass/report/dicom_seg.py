"""What a PACS reads: the lesions as a DICOM Segmentation, the burden as a Structured Report that refers to it.

Both belong to the study of the series that was segmented, so they name its patient as the series does. Their UIDs
follow from the series, the model and the mask: made again from the same, they are the same instances, and a PACS keeps
one of each.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DA, TM

from groundglass.errors import OutputError
from groundglass.report.findings import Findings
from groundglass.scan.scan import DicomSeries

SEGMENT_TYPES = {
    "lesion": codes.SCT.Lesion,
    "ground-glass": codes.DCM.GroundGlassOpacity,
    "consolidation": Code("9656002", "SCT", "Consolidation"),
    "effusion": Code("60046008", "SCT", "Pleural effusion"),
}
_COLOURS = {
    "lesion": (255, 110, 30),
    "ground-glass": (70, 190, 200),
    "consolidation": (220, 60, 90),
    "effusion": (90, 110, 230),
}
# Present in every composite instance, but possibly empty (type 2), or missing in an anonymised source (type 1: a UID).
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
)
_TYPE_1 = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_SERIES_NUMBER = 9000  # far behind the scanner's own
_ML = Code("ml", "UCUM", "milliliter")
_SHARE = Code("lesion-share", "99GROUNDGLASS", "Lesion share of lung volume")
_LUNG = Code("lung-volume", "99GROUNDGLASS", "Lung volume, lesions included")


def segmentation(series: DicomSeries, masks: Mapping[str, NDArray[np.bool_]], findings: Findings) -> Dataset:
    """A DICOM Segmentation (PS3.3 A.51), binary, uncompressed, one segment for each mask; empty frames are left out.

    Args:
        series: The series that the scan was read from.
        masks: {`lesion`, `ground-glass`, ...: (z, y, x) bool in the order of the scan}. An empty one is legal.
        findings: Of the scan: model and version.
    """
    sources = _whole_headers(series)
    order = np.argsort(series.frames) if series.frames else slice(None)
    stack = np.stack([mask[order] for mask in masks.values()], axis=-1).astype(np.uint8)
    uid = _uids(sources[0], findings, hashlib.sha256(stack.tobytes()).hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in the source's own header
        return hd.seg.Segmentation(
            source_images=sources,
            pixel_array=stack,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            omit_empty_frames=bool(stack.any()),
            segment_descriptions=[_segment(number, name, findings, uid) for number, name in enumerate(masks, start=1)],
            series_instance_uid=uid("segmentation series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid("segmentation"),
            instance_number=1,
            series_description="groundglass lesions",
            content_label="LESIONS",
            content_description="COVID-19 lesions, research use only",
            manufacturer="groundglass",
            manufacturer_model_name=findings.model.name,
            software_versions=findings.version,
            device_serial_number=findings.model.sha256[:16],
        )


def structured_report(series: DicomSeries, segments: Dataset, findings: Findings) -> Dataset:
    """Lesion and lung volume and the lesion's share, for both lungs and each, as TID 1500 (PS3.16).

    What is unknown is left out, as it is null in the findings.

    Args:
        series: The series that the scan was read from.
        segments: Its segmentation, of which segment 1 is the lesions.
        findings: Of the scan.
    """
    sources = _whole_headers(series)
    uid = _uids(sources[0], findings, segments.SOPInstanceUID)
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid("device"),
            name="groundglass",
            model_name=findings.model.name,
            serial_number=findings.model.sha256[:16],
        ),
    )
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid("lesions"), "COVID-19 lesions"),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segments.SOPClassUID,
            sop_instance_uid=segments.SOPInstanceUID,
            segment_number=1,
            source_series=hd.sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
        ),
        finding_type=SEGMENT_TYPES["lesion"],
        finding_sites=[hd.sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=findings.model.name, version=_model_version(findings), parameters=["research use only"]
        ),
        measurements=_measurements(findings) or None,
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hd.sr.Comprehensive3DSR(
            evidence=[*sources, segments],
            content=content,
            series_instance_uid=uid("report series"),
            series_number=_SERIES_NUMBER + 1,
            sop_instance_uid=uid("report"),
            instance_number=1,
            manufacturer="groundglass",
            is_complete=True,
            series_description="groundglass findings",
        )


def write_dicom(dataset: Dataset, path: Path) -> None:
    """Write an instance as a DICOM file, in Explicit VR Little Endian.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcmwrite(path, dataset, enforce_file_format=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; name another folder") from error


def _whole_headers(series: DicomSeries) -> list[Dataset]:
    """Copies of the headers with what an anonymised source may lack or have spoilt: empty text, and UIDs of our own."""
    spare = {name: _uid("missing", name, series.headers[0].SOPInstanceUID) for name in _TYPE_1}
    sources = []
    for header in series.headers:
        whole = Dataset()
        whole.update(header)
        whole.file_meta = header.file_meta if hasattr(header, "file_meta") else FileMetaDataset()
        for name in _TYPE_2:
            if name not in whole or not _is_legal(name, whole[name].value):
                setattr(whole, name, None)
        for name, value in spare.items():
            if not whole.get(name):
                setattr(whole, name, value)
        sources.append(whole)
    return sources


def _is_legal(name: str, value: object) -> bool:
    """Whether highdicom takes a value; scanners and anonymisers leave dates such as `00000000`."""
    kinds = {"Date": DA, "Time": TM}
    try:
        kinds.get(name[-4:], str)(value or "")
    except (ValueError, TypeError):
        return False
    return name != "PatientSex" or value in ("M", "F", "O", "", None)


def _segment(number: int, name: str, findings: Findings, uid: Callable[[str], hd.UID]) -> Any:
    kinds = hd.seg.SegmentAlgorithmTypeValues
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=SEGMENT_TYPES[name],
        algorithm_type=kinds.SEMIAUTOMATIC if findings.corrected_by_hand else kinds.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=findings.model.name, family=codes.DCM.ArtificialIntelligence, version=_model_version(findings)
        ),
        tracking_id=f"COVID-19 {name}",
        tracking_uid=uid(name),
        anatomic_regions=[codes.SCT.Lung],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[name]),
    )


def _measurements(findings: Findings) -> list[Any]:
    sides = ((findings.both_lungs, None), (findings.right_lung, codes.SCT.Right), (findings.left_lung, codes.SCT.Left))
    return [
        hd.sr.Measurement(name, value, unit, finding_sites=[hd.sr.FindingSite(codes.SCT.Lung, side)])
        for burden, side in sides
        for name, value, unit in (
            (codes.SCT.Volume, burden.lesion_volume_ml, _ML),
            (_SHARE, burden.lesion_share_of_lung_percent, codes.UCUM.Percent),
            (_LUNG, burden.lung_volume_ml, _ML),
        )
        if value is not None
    ]


def _model_version(findings: Findings) -> str:
    return f"{findings.version}, model {findings.model.sha256[:12]}"


def _uids(source: Dataset, findings: Findings, content: str) -> Callable[[str], hd.UID]:
    """For each thing that is said of a series by a model with this content, its UID."""
    made_from = source.SeriesInstanceUID, findings.model.sha256, findings.version, content
    return lambda what: _uid(*made_from, what)


def _uid(*parts: object) -> hd.UID:
    """A UID under 2.25 (PS3.5 B.2) that the same parts always give."""
    digest = hashlib.sha256("/".join(map(str, ("groundglass", *parts))).encode()).digest()
    return hd.UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}")
