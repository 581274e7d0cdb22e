"""The burden as a DICOM Structured Report (PS3.16, TID 1500) that refers to the Segmentation."""

from __future__ import annotations

from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from groundglass.io.dicom_completion import complete_series
from groundglass.io.dicom_header import silence_pydicom
from groundglass.report.dicom_references import evidence_of
from groundglass.report.dicom_seg import SEGMENT_TYPES, SERIES_NUMBER, make_uid_function, model_version
from groundglass.report.findings import Findings
from groundglass.scan.scan import DicomSeries

_ML = Code("ml", "UCUM", "milliliter")
_SHARE = Code("lesion-share", "99GROUNDGLASS", "Lesion share of lung volume")
_LUNG = Code("lung-volume", "99GROUNDGLASS", "Lung volume, lesions included")


@silence_pydicom()
def make_structured_report(series: DicomSeries, segmentation: Dataset, findings: Findings) -> Dataset:
    """Make a report of lesion volume, lung volume and the lesion's share, for both lungs together and for each lung.

    Values that are unknown (null in the findings) are left out.

    Args:
        series: The series that the scan was read from.
        segmentation: Its Segmentation, whose segment 1 holds the lesions.
        findings: The scan's findings.
    """
    sources = complete_series(series).series.headers
    uid = make_uid_function(sources[0], findings, segmentation.SOPInstanceUID)
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
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=1,
            source_series=hd.sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
        ),
        finding_type=SEGMENT_TYPES["lesion"],
        finding_sites=[hd.sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=findings.model.name, version=model_version(findings), parameters=["research use only"]
        ),
        measurements=_measurements(findings) or None,
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[*evidence_of(series, sources), segmentation],
        content=content,
        series_instance_uid=uid("report series"),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=uid("report"),
        instance_number=1,
        manufacturer="groundglass",
        is_complete=True,
        series_description="groundglass findings",
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
