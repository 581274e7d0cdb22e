"""From a scan to its findings and files: the one way that the command line, batches and services take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.errors import FormatError, OutputError
from groundglass.inference.card import ModelCard
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.segmenter import Segmenter
from groundglass.report.findings import Findings, ModelRef, measure
from groundglass.report.page import About, page
from groundglass.report.preview import preview
from groundglass.scan import nifti, picture
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import HuSlices, Intensity, Kind, recognise
from groundglass.scan.lungs import LungField, find_lungs
from groundglass.scan.packed import Packed
from groundglass.scan.reader import read_scan
from groundglass.scan.scan import DicomSeries, Mask, Scan

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a scan.

    Attributes:
        scan: The scan itself.
        findings: The numbers.
        preview: A montage of the slices with most lesion.
        at: Where lungs and lesions are, in the axial view.
        card: The model's.
    """

    scan: Scan
    findings: Findings
    preview: Image.Image
    at: Located
    card: ModelCard

    @cached_property
    def lesions(self) -> Mask:
        """Lesion mask on the scan's own grid."""
        return self.at.mask(np.asarray(self.at.lesions))

    @cached_property
    def classes(self) -> dict[str, Mask]:
        """Of a model with class maps, {class: its part of the lesions}."""
        kinds = np.asarray(self.at.kinds)
        return {name: self.at.mask(kinds == i) for i, name in enumerate(self.card.classes[1:], start=1)}


class Stopwatch:
    """Seconds per stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside `with`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True, eq=False)
class Located:
    """A scan's lungs and lesions in its upright axial view: what `segment` measures and `evaluate` scores.

    Attributes:
        view: From the scan's own grid to the axial view and back.
        intensity: What the numbers were taken for.
        hu: (z, y, x) approximate HU, made slice by slice.
        field: Where the lungs are, lesions counted in.
        kinds: (z, y, x) uint8: 0 where there is no lesion; else 1, or the number of its class.
    """

    view: AxialView
    intensity: Intensity
    hu: HuSlices
    field: LungField
    kinds: Packed

    @cached_property
    def lesions(self) -> Packed:
        """(z, y, x) bool: of whatever class."""
        return _marked(self.kinds)

    def mask(self, voxels: NDArray[np.bool_]) -> Mask:
        """(z, y, x) of the view -> a mask on the scan's own grid."""
        return Mask(self.view.restore(voxels), self.view.source)


def read_and_load(
    source: Path, series: str | None, force_modality: bool, model: Path | None, engine: EngineConfig
) -> tuple[Scan, Segmenter]:
    """Read a scan as `read_scan` does, and load a model as `Segmenter.load` does while it is unpacked."""
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(Segmenter.load, model, engine)
        scan = read_scan(source, series, force_modality)
        return scan, loading.result()


def locate(
    scan: Scan,
    segmenter: Segmenter,
    intensity: Kind | None = None,
    progress: Progress = lambda *_: None,
    watch: Stopwatch | None = None,
) -> Located:
    """Find the lungs of a scan, and the lesions in them. Arguments and errors are those of `segment`."""
    watch = watch or Stopwatch()
    at = _without_lesions(scan, segmenter.card, intensity, watch)
    with watch.stage("lesions"):
        kinds = segmenter.lesions(at.hu, at.field, progress)
        kept = at.field.touching(_marked(kinds))
        kinds = Packed.of(plane * near for plane, near in zip(kinds, kept, strict=True))
        return replace(at, kinds=kinds, field=at.field.with_lesions(_marked(kinds)))


def segment(
    scan: Scan,
    segmenter: Segmenter | None = None,
    intensity: Kind | None = None,
    progress: Progress = lambda *_: None,
    with_identity: bool = False,
) -> Analysis:
    """Find the lesions of a scan, measure them and draw them.

    Args:
        scan: Any orientation; pictures too.
        segmenter: A loaded model; None: the bundled one.
        intensity: What the numbers are; None: recognise it.
        progress: Called with the slices done and their number.
        with_identity: Name the source and the patient in findings and picture.

    Raises:
        IntensityError: The numbers are no CT that is recognised.
        LungError: No slice shows lung.
        ModelError: The model is missing or damaged.
        EngineError: No engine can run it here.
    """
    watch = Stopwatch()
    with watch.stage("model"):
        segmenter = segmenter or Segmenter.load()
    at = locate(scan, segmenter, intensity, progress, watch)
    return _measured(scan, at, segmenter.card, watch, with_identity)


def correct(scan: Scan, mask: Scan, card: ModelCard) -> Analysis:
    """Measure and draw a scan's lesions anew after a person has corrected their mask.

    Args:
        scan: The scan.
        mask: On the scan's grid, its axes in any order and direction: 0 where there is no lesion, else 1, or of a model
            with class maps the number of the class.
        card: Of the model whose mask was corrected.

    Raises:
        FormatError: The mask lies on another grid, or has numbers that name no class.
        IntensityError: The scan's numbers are no CT that is recognised.
        LungError: No slice of it shows lung.
    """
    watch, turned = Stopwatch(), AxialView(mask.geometry)
    at = _without_lesions(scan, card, None, watch)
    if not turned.geometry.matches(at.view.geometry, tolerance_mm=0.01):
        raise FormatError(
            f"the corrected mask lies on {mask.geometry}, expected the scan's grid, {scan.geometry}: "
            "draw on the scan itself"
        )
    values, classes = turned.turn(mask.values), max(1, len(card.classes) - 1)
    if not np.isin(np.unique(values), np.arange(classes + 1)).all():
        raise FormatError(f"the corrected mask has values other than 0 to {classes}: draw with these alone")
    kinds = Packed.of(plane.astype(np.uint8) for plane in values)
    at = replace(at, kinds=kinds, field=at.field.with_lesions(_marked(kinds)))
    return _measured(scan, at, card, watch, corrected=True)


def _marked(kinds: Packed) -> Packed:
    """(z, y, x) bool: where there is any."""
    return Packed.of(plane > 0 for plane in kinds)


def _without_lesions(scan: Scan, card: ModelCard, intensity: Kind | None, watch: Stopwatch) -> Located:
    with watch.stage("intensity"):
        view = AxialView(scan.geometry)
        recognised = recognise(scan, intensity)
        hu = recognised.slices(view.turn(scan.values))
    with watch.stage("lungs"):
        field = find_lungs(hu, view.geometry, scan.sizes, card.field_of_view)
    nothing = np.zeros(hu.shape[1:], dtype=np.uint8)
    return Located(view, recognised, hu, field, Packed.of([nothing] * len(hu)))


def _measured(
    scan: Scan, at: Located, card: ModelCard, watch: Stopwatch, with_identity: bool = False, corrected: bool = False
) -> Analysis:
    with watch.stage("measure"):
        model = ModelRef(name=card.name, sha256=card.sha256)
        findings = measure(
            scan, at.view, at.intensity, at.hu, at.field, at.lesions, model, watch.seconds, with_identity, corrected
        )
    findings = findings.model_copy(update={"seconds": watch.seconds})
    title = f"{scan.source.name}: {findings.summary}" if with_identity and scan.source else findings.summary
    names = scan.names if with_identity else None
    drawn = preview(at.hu, at.view, at.field, at.lesions, title, scan.sizes, names)
    return Analysis(scan, findings, drawn, at, card)


def analyse(scan: Scan) -> Findings:
    """The findings of a scan, by the bundled model: burden in ml and % of lung, and what is unknown, with the reason.

    Raises:
        InputError: The scan is refused.
    """
    return segment(scan).findings


def save(analysis: Analysis, folder: Path) -> list[Path]:
    """Write mask, findings, picture and report into a folder, all or nothing.

    Everything is written into a hidden folder beside them first; only when all of it is there is it moved into place.

    Returns:
        The files: masks, findings, picture, report.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".groundglass-", dir=folder) as hidden:
            staging = Path(hidden)
            if analysis.scan.is_picture:
                picture.write_mask(analysis.lesions, analysis.scan, staging)
            else:
                slices = analysis.at.view.restored_slices(analysis.at.lesions)
                grid, source = analysis.scan.geometry, analysis.scan.source
                nifti.write_mask_slices(slices, grid, staging / "lesions.nii.gz", like=source)
            if analysis.scan.series:
                write_dicom_results(analysis, analysis.scan.series, staging)
            (staging / "findings.json").write_text(analysis.findings.to_json() + "\n", encoding="utf-8")
            analysis.preview.save(staging / "preview.png")
            (staging / "report.html").write_text(_report(analysis), encoding="utf-8")
            files = sorted((path for path in staging.rglob("*") if path.is_file()), key=_reading_order)
            for path in files:
                target = folder / path.relative_to(staging)
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
            return [folder / path.relative_to(staging) for path in files]
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}; name another folder with -o"
        ) from error


def _report(analysis: Analysis) -> str:
    at, card = analysis.at, analysis.card
    tested = card.scores.get("test", {}).get("pooled", {}).get("whole", {}).get("dice")
    about = About(
        name=card.name,
        sha256=card.sha256,
        training_data=card.training_data,
        never_trained_on=card.never_trained_on,
        test_dice=tested,
        intended_use=card.intended_use,
        limits=card.limits,
    )
    return page(analysis.findings, at.hu, at.view, at.field, at.lesions, analysis.preview, about, analysis.scan.sizes)


def write_dicom_results(analysis: Analysis, series: DicomSeries, folder: Path) -> list[Path]:
    """Write what a PACS reads: `lesions.dcm`, a Segmentation, and `findings.dcm`, a Structured Report.

    Args:
        analysis: Of a scan that was read from DICOM.
        series: Where it was read from.
        folder: That is there.

    Returns:
        The files; without the report for a model with classes.

    Raises:
        OutputError: A file cannot be written.
    """
    from groundglass.report import dicom_seg  # highdicom takes its time, and only DICOM needs it

    masks = {name: mask.voxels for name, mask in (analysis.classes or {"lesion": analysis.lesions}).items()}
    segments = dicom_seg.segmentation(series, masks, analysis.findings)
    files = [folder / "lesions.dcm"]
    dicom_seg.write_dicom(segments, files[0])
    if not analysis.classes:  # the report's volumes are those of all lesions, which no segment of a class is
        report = dicom_seg.structured_report(series, segments, analysis.findings)
        files.append(folder / "findings.dcm")
        dicom_seg.write_dicom(report, files[1])
    return files


def _reading_order(path: Path) -> tuple[bool, bool, str]:
    return path.name in ("preview.png", "report.html"), path.stem == "findings", path.name
