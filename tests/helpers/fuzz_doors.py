"""Read a damaged file as the commands do, up to what they make of its header."""

import io
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from groundglass.apps.batch.items import find_items
from groundglass.apps.info import describe_input
from groundglass.data.catalogue import find_cases_with_notes
from groundglass.errors import FormatError, InputError
from groundglass.inference.pipeline import SegmentedScan
from groundglass.io.dicom_completion import complete_series
from groundglass.io.dicom_mask import read_segmentation
from groundglass.io.reader import read_scan
from groundglass.report.findings import ModelRef
from groundglass.report.measurement import measure
from groundglass.scan.geometry import AxialView
from groundglass.scan.lung_field import LungField
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.segmented import segmented_scan

MODEL = ModelRef(name="none", sha256="0" * 64)
IMAGE, OTHER, MASK = "image.nii", "other.nii", "mask.nii"  # files that the lists name


def read_damaged(path: Path) -> Sequence[str]:
    """Read a list of cases, a dataset.json, a DICOM Segmentation as a mask, or a scan, and return the notes.

    DICOM gets a Segmentation. Where its name holds `header`, `info` describes it too, and every eighth file gets a
    Structured Report, which takes as long as all the rest.

    Raises:
        InputError: It is refused.
    """
    if path.suffix == ".csv":
        return _read_list(path)
    if path.suffix == ".json":
        return _read_labels(path)
    if "mask" in path.name:
        return read_segmentation(path, phantom_scan()).classes
    scan = read_scan(path)
    if scan.series is None:
        return scan.notes
    is_header = "header" in path.name
    results_notes = _make_results(scan, with_report=is_header and zlib.crc32(path.read_bytes()) % 8 == 0)
    info_lines = describe_input(path).lines if is_header else []
    return *scan.notes, *results_notes, *info_lines


@cache
def phantom_scan() -> Scan:
    """The scan of which the intact files are, and on which masks are drawn."""
    return chest_phantom(shape=(6, 48, 64)).scan


def _read_list(path: Path) -> Sequence[str]:
    """Read a CSV as `prepare` and as `batch` read it, beside files that it may name."""
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="groundglass-fuzz-") as folder:
        for name, content in ((path.name, path.read_bytes()), (IMAGE, b""), (OTHER, b""), (MASK, b"")):
            (Path(folder) / name).write_bytes(content)
        source = Path(folder) / path.name
        try:
            notes += find_cases_with_notes([source]).notes
        except InputError as error:
            notes.append(str(error))
        find_items(str(source), on_note=notes.append)
    return notes


def _read_labels(path: Path) -> Sequence[str]:
    """Find the cases of a dataset with this dataset.json."""
    with tempfile.TemporaryDirectory(prefix="groundglass-fuzz-") as name:
        folder = Path(name)
        (folder / "dataset.json").write_bytes(path.read_bytes())
        for part, file in (("imagesTr", "case_001_0000.nii.gz"), ("labelsTr", "case_001.nii.gz")):
            (folder / part).mkdir()
            (folder / part / file).touch()
        return find_cases_with_notes([folder]).notes


def write_mask(scan: Scan, path: Path) -> None:
    """Write a DICOM Segmentation of made-up lesions of a scan."""
    from groundglass.report.dicom_seg import make_segmentation, write_dicom

    assert scan.series is not None
    segmented = _segmented(scan)
    lesions = segmented.mask(np.asarray(segmented.lesions)).voxels.astype(np.uint8)
    series = complete_series(scan.series).series
    write_dicom(make_segmentation(series, lesions, ["lesion"], measure(segmented, MODEL)), path)


def _make_results(scan: Scan, with_report: bool) -> Sequence[str]:
    """Measure a scan with made-up lungs and lesions, and make the results for a PACS; every error is raised."""
    from groundglass.report.dicom_seg import make_segmentation, write_dicom
    from groundglass.report.dicom_sr import make_structured_report

    assert scan.series is not None
    segmented = _segmented(scan)
    findings = measure(segmented, MODEL, with_identity=True)
    findings.to_json().encode()
    try:
        completed = complete_series(scan.series)
    except FormatError as error:  # the results are left out
        return (str(error),)
    lesions = segmented.mask(np.asarray(segmented.lesions)).voxels.astype(np.uint8)
    segmentation = make_segmentation(completed.series, lesions, ["lesion"], findings)
    write_dicom(segmentation, io.BytesIO())
    if with_report:
        write_dicom(make_structured_report(completed.series, segmentation, findings), io.BytesIO())
    return completed.notes


def _segmented(scan: Scan) -> SegmentedScan:
    """Take one half of each slice as the right lung and the other as the left one, with a lesion in each."""
    shape = AxialView(scan.geometry).geometry.shape
    right = np.zeros(shape, dtype=np.bool_)
    right[:, :, : shape[2] // 2] = True
    lesions = np.zeros(shape, dtype=np.bool_)
    lesions[:, ::2] = True
    field = LungField(right, ~right, (None,) * shape[0])
    return replace(segmented_scan(scan.geometry, field, lesions), scan=scan)
