"""References to the instances of several files or series that were read as one."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

from groundglass.io.dicom_header import items, shallow_copy
from groundglass.scan.scan import DicomSeries


def refer_to_origins(segmentation: Dataset, series: DicomSeries) -> None:
    """Replace references to frames of a joined header by references to the instances that hold them.

    Args:
        segmentation: A Segmentation of the joined header; changed in place.
        series: The series, with the origin of each of its slices.
    """
    origins = dict(zip(series.frames or (), series.origins or (), strict=True))
    for frame in items(segmentation, "PerFrameFunctionalGroupsSequence"):
        for derivation in items(frame, "DerivationImageSequence"):
            for image in items(derivation, "SourceImageSequence"):
                uid, index = origins[int(image.ReferencedFrameNumber) - 1]
                image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = uid, index + 1
    for referenced in items(segmentation, "ReferencedSeriesSequence"):
        sop_class = referenced.ReferencedInstanceSequence[0].ReferencedSOPClassUID
        referenced.ReferencedInstanceSequence = [
            _reference(sop_class, uid) for uid in dict.fromkeys(uid for uid, _ in series.origins or ())
        ]


def _reference(sop_class: str, uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, uid
    return reference


def refer_to_series(segmentation: Dataset, sources: Sequence[Dataset]) -> None:
    """Refer to each single-frame instance in its own series, where a scan was joined from several.

    Args:
        segmentation: A Segmentation of the joined series; changed in place.
        sources: The headers of the instances.
    """
    by_series: dict[str, list[Dataset]] = {}
    for source in sources:
        reference = _reference(source.SOPClassUID, source.SOPInstanceUID)
        by_series.setdefault(source.SeriesInstanceUID, []).append(reference)
    segmentation.ReferencedSeriesSequence = [_series_reference(uid, found) for uid, found in by_series.items()]


def _series_reference(uid: str, instances: Sequence[Dataset]) -> Dataset:
    reference = Dataset()
    reference.SeriesInstanceUID, reference.ReferencedInstanceSequence = uid, list(instances)
    return reference


def evidence_of(series: DicomSeries, sources: Sequence[Dataset]) -> list[Dataset]:
    """Return a header for each instance that a report refers to: of a joined header, one for each origin."""
    if not series.origins:
        return list(sources)
    evidence = []
    for uid in dict.fromkeys(uid for uid, _ in series.origins):
        header = shallow_copy(sources[0])
        header.SOPInstanceUID = uid
        evidence.append(header)
    return evidence
