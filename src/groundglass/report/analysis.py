"""From a scan to its findings and files: the functions that the command line, batches and services call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from groundglass.errors import origin
from groundglass.inference.engine_config import EngineConfig
from groundglass.inference.lung_network import open_lung_network
from groundglass.inference.model_card import ModelCard
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import Progress, SegmentedScan, StageTimer, segment_by_mask, segment_scan
from groundglass.inference.segmenter import Segmenter
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.reader import read_scan
from groundglass.report.dicom_results import DicomResults, make_dicom_results
from groundglass.report.findings import Findings, ModelRef
from groundglass.report.measurement import measure
from groundglass.report.preview import draw_preview
from groundglass.report.results_folder import write_results
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.scan import Mask, Scan


@dataclass(frozen=True, eq=False)
class Analysis:
    """A segmented scan with its findings.

    Attributes:
        segmented: The scan with its lungs and lesions.
        findings: Volumes, shares, and the values that are unknown.
        preview: A montage of the slices with most lesion; None if it could not be drawn.
        card: The card of the model that was used.
    """

    segmented: SegmentedScan
    findings: Findings
    preview: Image.Image | None
    card: ModelCard

    @property
    def scan(self) -> Scan:
        """The scan as it was read."""
        return self.segmented.scan

    @cached_property
    def dicom_results(self) -> DicomResults:
        """The files for a PACS, made on first use, or the reason why there are none."""
        return make_dicom_results(self.segmented, self.findings, self.card)

    @property
    def saved_findings(self) -> Findings:
        """The findings as `save` writes them: with warnings of what the files for a PACS lack."""
        warnings = (*self.findings.warnings, *self.dicom_results.warnings)
        return self.findings.model_copy(update={"warnings": warnings})

    @cached_property
    def lesions(self) -> Mask:
        """Lesion mask on the scan's own grid."""
        return self.segmented.mask(np.asarray(self.segmented.lesions))

    @cached_property
    def classes(self) -> dict[str, Mask]:
        """{class: mask of its part of the lesions} for a model with class maps, otherwise empty."""
        numbers = np.asarray(self.segmented.class_map)
        names = enumerate(self.card.classes[1:], start=1)
        return {name: self.segmented.mask(numbers == number) for number, name in names}


def segment(
    scan: Scan,
    segmenter: Segmenter | None = None,
    intensity: IntensityKind | None = None,
    progress: Progress = lambda *_: None,
    with_identity: bool = False,
) -> Analysis:
    """Find the lesions of a scan, measure them and draw them.

    Args:
        scan: Any orientation; image stacks too.
        segmenter: A loaded model; None: the bundled one.
        intensity: Meaning of the scan's intensities; None: recognise it from the values.
        progress: Called with the number of slices done and the number of all.
        with_identity: Name the source and the patient in findings and preview.

    Raises:
        IntensityError: The numbers are not recognised as CT.
        LungError: No slice shows lung.
        ModelError: The model is missing or damaged.
        EngineError: No engine on this machine can run the model.
    """
    timer = StageTimer()
    with timer.stage("model"):
        segmenter = segmenter or open_model()
    segmented = segment_scan(scan, segmenter, intensity, progress, timer)
    return _analysis(segmented, segmenter.card, timer, with_identity)


def correct(scan: Scan, mask: Scan, card: ModelCard) -> Analysis:
    """Measure and draw a scan's lesions after a person has corrected their mask.

    Args:
        scan: The scan.
        mask: The corrected mask: see `segment_by_mask`.
        card: The card of the model whose mask was corrected.

    Raises:
        FormatError: The mask lies on another grid, or has values that are not the number of a class.
        IntensityError: The scan's numbers are not recognised as CT.
        LungError: No slice of the scan shows lung.
    """
    timer = StageTimer()
    return _analysis(segment_by_mask(scan, mask, card, timer), card, timer, corrected=True)


def read_and_load(
    source: Path, dicom: DicomOptions, model: Path | None, engine: EngineConfig
) -> tuple[Scan, Segmenter]:
    """Read a scan (see `read_scan`) and load a model (see `open_model`) and the lung network at the same time."""
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(open_model, model, engine)
        pool.submit(open_lung_network, engine.threads)  # kept for when it is needed, which raises what fails here
        scan = read_scan(source, dicom=dicom)
        return scan, loading.result()


def analyse(scan: Scan) -> Findings:
    """Return the findings of a scan by the bundled model: burden in ml and % of lung, and why values are unknown.

    Raises:
        InputError: The scan is refused.
    """
    return segment(scan).findings


def save(analysis: Analysis, folder: Path) -> list[Path]:
    """Write mask, findings, preview and report into a folder: all files, or none.

    For a scan that was read from DICOM, a Segmentation and a Structured Report too. They and the preview are left out
    where they cannot be made; a warning in the findings says why.

    The files of an earlier result in the folder are removed; other files stay.

    Returns:
        The files: masks, findings, preview, report.

    Raises:
        OutputError: The folder cannot be written; it is as it was before.
    """
    files = analysis.dicom_results.files
    return write_results(analysis.segmented, analysis.saved_findings, analysis.preview, analysis.card, files, folder)


def _analysis(
    segmented: SegmentedScan, card: ModelCard, timer: StageTimer, with_identity: bool = False, corrected: bool = False
) -> Analysis:
    with timer.stage("measure"):
        model = ModelRef(name=card.name, sha256=card.sha256)
        findings = measure(segmented, model, with_identity, corrected)
    source = segmented.scan.source
    title = f"{source.name}: {findings.summary}" if with_identity and source else findings.summary
    warnings = findings.warnings
    try:
        preview = draw_preview(segmented, title, with_identity)
    except Exception as error:  # the preview must not cost mask and findings
        preview = None
        warnings = (*warnings, f"the preview was left out: {origin(error)}, an internal error of groundglass")
    findings = findings.model_copy(update={"seconds": timer.seconds, "warnings": warnings})
    return Analysis(segmented, findings, preview, card)
