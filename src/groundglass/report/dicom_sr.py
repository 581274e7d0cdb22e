"""The findings as a DICOM Structured Report (PS3.16, TID 1500) that refers to the Segmentation.

Codes of the scheme 99GROUNDGLASS are this program's own, where DICOM and SNOMED have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from groundglass.io.dicom_completion import complete_series
from groundglass.io.dicom_header import silence_pydicom
from groundglass.report.dicom_references import evidence_of
from groundglass.report.dicom_seg import SEGMENT_TYPES, SERIES_NUMBER, make_uid_function, model_version
from groundglass.report.distribution import THIRDS
from groundglass.report.findings import Findings, Interval
from groundglass.scan.scan import DicomSeries

_ML = Code("ml", "UCUM", "milliliter")
_OWN = "99GROUNDGLASS"
_SHARE = Code("lesion-share", _OWN, "Lesion share of lung volume")
_LUNG = Code("lung-volume", _OWN, "Lung volume, lesions included")
_ZONE_SHARE = Code("lesion-share-of-zone", _OWN, "Lesion share of the zone's lung volume")
_EXTENT = Code("extent", _OWN, "Extent of disease by share of lung volume")
_THIRDS: dict[str, Code] = {
    third: Code(f"{third}-third", _OWN, f"{third.capitalize()} third of the lung's height") for third in THIRDS
}
_SIDES = {"right": codes.SCT.Right, "left": codes.SCT.Left}
_DENSITY, _HU = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
_STATED = {  # the findings that a report states: another one is another report
    *("lesion_volume_ml", "lesion_volume_interval_ml", "lung_volume_ml", "lesion_share_of_lung_percent"),
    *("lesion_share_interval_percent", "extent", "classes", "right_lung", "left_lung", "zones", "density_bands"),
    "mean_intensity",
}


@silence_pydicom()
def make_structured_report(series: DicomSeries, segmentation: Dataset, findings: Findings) -> Dataset:
    """Make a report of the burden of both lungs, each lung and each zone, of densities, and of the extent in words.

    Values that are unknown (null in the findings) are left out.

    Args:
        series: The series that the scan was read from.
        segmentation: Its Segmentation, whose segment 1 holds the lesions, or which has a segment for each class.
        findings: The scan's findings.
    """
    sources = complete_series(series).series.headers
    stated = hashlib.sha256(findings.model_dump_json(include=_STATED).encode()).hexdigest()
    uid = make_uid_function(sources[0], findings, f"{segmentation.SOPInstanceUID} {stated}")
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid("device"),
            name="groundglass",
            model_name=findings.model.name,
            serial_number=findings.model.sha256[:16],
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=_groups(segmentation, sources[0].SeriesInstanceUID, findings, uid),
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


def _groups(segmentation: Dataset, series_uid: str, findings: Findings, uid: Callable[[str], hd.UID]) -> list[Any]:
    """Return the groups of measurements: of all lesions, and with classes one for each segment."""
    by_hand = ["lesions corrected by hand"] if findings.corrected_by_hand else []
    algorithm = hd.sr.AlgorithmIdentification(
        name=findings.model.name, version=model_version(findings), parameters=["research use only", *by_hand]
    )

    def group(name: str, segment: int | None, measurements: list[Any], evaluations: list[Any]) -> Any:
        """Make a group, which refers to a segment; None: to none, since no segment holds all classes together."""
        common = {
            "tracking_identifier": hd.sr.TrackingIdentifier(uid(f"{name} measured"), f"COVID-19 {name}"),
            "finding_type": SEGMENT_TYPES.get(name, SEGMENT_TYPES["lesion"]),
            "algorithm_id": algorithm,
            "measurements": measurements or None,
            "qualitative_evaluations": evaluations or None,
            "finding_sites": [hd.sr.FindingSite(codes.SCT.Lung)],
        }
        if segment is None:
            return hd.sr.MeasurementsAndQualitativeEvaluations(**common)
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=segment,
                source_series=hd.sr.SourceSeriesForSegmentation(series_uid),
            ),
            **common,
        )

    parts = [
        group(each.name, number, _burden_measurements(each.volume_ml, each.lesion_share_of_lung_percent, None), [])
        for number, each in enumerate(findings.classes, start=1)
    ]
    return [
        group(
            "lesions",
            None if len(segmentation.SegmentSequence) > 1 else 1,
            _measurements(findings),
            _evaluations(findings),
        ),
        *parts,
    ]


def _measurements(findings: Findings) -> list[Any]:
    both = findings.both_lungs
    found = _burden_measurements(
        both.lesion_volume_ml,
        both.lesion_share_of_lung_percent,
        both.lung_volume_ml,
        intervals=(findings.lesion_volume_interval_ml, findings.lesion_share_interval_percent),
    )
    for side, burden in (("right", findings.right_lung), ("left", findings.left_lung)):
        values = (burden.lesion_volume_ml, burden.lesion_share_of_lung_percent, burden.lung_volume_ml)
        found += _burden_measurements(*values, _lung(side))
    for zone in findings.zones or ():
        values = (zone.lesion_volume_ml, zone.lesion_share_of_lung_percent, zone.lung_volume_ml)
        found += _burden_measurements(*values, _lung(zone.side, zone.third), share=_ZONE_SHARE)
    return [*found, *_densities(findings)]


def _lung(side: str | None = None, third: str | None = None) -> Any:
    return hd.sr.FindingSite(codes.SCT.Lung, _SIDES[side] if side else None, _THIRDS[third] if third else None)


def _burden_measurements(
    volume_ml: float | None,
    share_percent: float | None,
    lung_ml: float | None,
    site: Any = None,
    share: Code = _SHARE,
    intervals: tuple[Interval | None, Interval | None] = (None, None),
) -> list[Any]:
    """Return volume, share and lung volume of a part of the lungs, without those that are unknown."""
    return [
        hd.sr.Measurement(name, value, unit, finding_sites=[site or _lung()], properties=_uncertainty(interval))
        for name, value, unit, interval in (
            (codes.SCT.Volume, volume_ml, _ML, intervals[0]),
            (share, share_percent, codes.UCUM.Percent, intervals[1]),
            (_LUNG, lung_ml, _ML, None),
        )
        if value is not None
    ]


def _uncertainty(interval: Interval | None) -> Any:
    """State the ends of an interval of 80 % (TID 310: range of the measurement's uncertainty)."""
    if interval is None:
        return None
    return hd.sr.MeasurementProperties(
        lower_measurement_uncertainty=interval[0], upper_measurement_uncertainty=interval[1]
    )


def _densities(findings: Findings) -> list[Any]:
    """Return the mean HU of lesions and lung, and the shares of the lung in bands of HU."""
    means = (
        (Code("lesion-density", _OWN, "Lesions"), findings.mean_intensity.lesion_hu),
        (Code("lung-density", _OWN, "Lung without lesions"), findings.mean_intensity.lung_hu),
    )
    found = [
        hd.sr.Measurement(_DENSITY, hu, _HU, derivation=codes.SCT.Mean, method=what, finding_sites=[_lung()])
        for what, hu in means
        if hu is not None
    ]
    for band in findings.density_bands or ():
        meaning = f"Share of lung from {band.low_hu} to {band.high_hu} HU, {band.name}"
        name = Code(f"band {band.low_hu} {band.high_hu}", _OWN, meaning)
        found.append(hd.sr.Measurement(name, band.share_of_lung_percent, codes.UCUM.Percent, finding_sites=[_lung()]))
    return found


def _evaluations(findings: Findings) -> list[Any]:
    if findings.extent is None:
        return []
    value = Code(f"extent-{findings.extent.name}", _OWN, f"{findings.extent.name} ({findings.extent.range})")
    return [hd.sr.QualitativeEvaluation(_EXTENT, value)]
