"""The lesions as a DICOM Segmentation (PS3.3 A.51), and functions that the Structured Report uses too.

Both belong to the study of the segmented series, so they name its patient as the series does. Their UIDs are derived
from the series, the model and the mask: the same input gives the same instances, so a PACS keeps one copy of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from groundglass.io.dicom_completion import complete_series, derived_uid, distance_along_normal
from groundglass.io.dicom_header import items, shallow_copy, silence_pydicom
from groundglass.report.colours import CLASSES
from groundglass.report.dicom_references import refer_to_origins, refer_to_series
from groundglass.report.findings import Findings
from groundglass.scan.scan import DicomSeries

SEGMENT_TYPES = {
    "lesion": codes.SCT.Lesion,
    "ground-glass": codes.DCM.GroundGlassOpacity,
    "consolidation": Code("9656002", "SCT", "Consolidation"),
    "effusion": Code("60046008", "SCT", "Pleural effusion"),
}
SERIES_NUMBER = 9000  # far above the series numbers of scanners


def make_segmentation(
    series: DicomSeries, class_map: NDArray[np.uint8 | np.bool_], names: Sequence[str], findings: Findings
) -> Dataset:
    """Make a DICOM Segmentation: binary, uncompressed, one segment for each class, without empty frames.

    Args:
        series: The series that the scan was read from.
        class_map: (z, y, x) in the order of the scan: 0 without lesion, otherwise the number of the class, from 1.
        names: Those of the classes: `lesion`, `ground-glass`, ...; of a class there may be nothing.
        findings: The scan's findings, which name model and version.
    """
    sources = complete_series(series).series.headers
    ordered = class_map[np.argsort(series.frames)] if series.frames else class_map
    numbers: NDArray[np.uint8] = np.ascontiguousarray(ordered, dtype=np.uint8)
    by_hand = " corrected by hand" if findings.corrected_by_hand else ""  # another instance, though of the same voxels
    uid = make_uid_function(sources[0], findings, hashlib.sha256(numbers.data).hexdigest() + by_hand)
    with silence_pydicom():
        segmentation = hd.seg.Segmentation(
            source_images=_in_one_series(sources),
            pixel_array=numbers,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            omit_empty_frames=bool(numbers.any()),
            segment_descriptions=[_segment(number, name, findings, uid) for number, name in enumerate(names, start=1)],
            series_instance_uid=uid("segmentation series"),
            series_number=SERIES_NUMBER,
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
        _state_distance(segmentation, sources)
        if series.origins:
            refer_to_origins(segmentation, series)
        else:
            refer_to_series(segmentation, sources)
    return segmentation


def _state_distance(segmentation: Dataset, sources: Sequence[Dataset]) -> None:
    """State the distance of slices that vary by more than highdicom takes for even, or that lie askew.

    Without it, some programs place slices by their thickness.
    """
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures:
        return
    places, orientation = sources, sources[0]
    if frames := items(sources[0], "PerFrameFunctionalGroupsSequence"):
        places = [frame.PlanePositionSequence[0] for frame in frames]
        orientation = sources[0].SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    distance_mm = distance_along_normal(places, orientation)
    if distance_mm is not None:
        measures.SpacingBetweenSlices = DSfloat(distance_mm, auto_format=True)


def _in_one_series(sources: Sequence[Dataset]) -> list[Dataset]:
    """Copy headers of several series as if they were of the first one: highdicom wants it so."""
    if all(source.SeriesInstanceUID == sources[0].SeriesInstanceUID for source in sources):
        return list(sources)
    copies = [shallow_copy(source) for source in sources]
    for copied in copies:
        copied.SeriesInstanceUID = sources[0].SeriesInstanceUID
    return copies


def write_dicom(dataset: Dataset, target: Path | BinaryIO) -> None:
    """Write an instance as a DICOM file, in Explicit VR Little Endian."""
    with silence_pydicom():
        dcmwrite(target, dataset, enforce_file_format=True)


def _segment(number: int, name: str, findings: Findings, uid: Callable[[str], hd.UID]) -> Any:
    algorithm_types = hd.seg.SegmentAlgorithmTypeValues
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=SEGMENT_TYPES[name],
        algorithm_type=algorithm_types.SEMIAUTOMATIC if findings.corrected_by_hand else algorithm_types.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=findings.model.name, family=codes.DCM.ArtificialIntelligence, version=model_version(findings)
        ),
        tracking_id=f"COVID-19 {name}",
        tracking_uid=uid(name),
        anatomic_regions=[codes.SCT.Lung],
        display_color=hd.color.CIELabColor.from_rgb(*CLASSES[name]),
    )


def model_version(findings: Findings) -> str:
    """Return the versions of groundglass and of the model."""
    return f"{findings.version}, model {findings.model.sha256[:12]}"


def make_uid_function(source: Dataset, findings: Findings, content: str) -> Callable[[str], hd.UID]:
    """Return a function from names to UIDs, which depend on the series, the model, the version and the content."""
    base = source.SeriesInstanceUID, findings.model.sha256, findings.version, content
    return lambda name: hd.UID(derived_uid(*base, name))
