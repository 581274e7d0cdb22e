"""From a scan to its findings and files: the functions that the command line, batches and services call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from groundglass.errors import ConfigError, origin
from groundglass.inference.model_card import ModelCard
from groundglass.inference.open_model import open_model
from groundglass.inference.pipeline import (
    Progress,
    SegmentedScan,
    StageTimer,
    segment_by_mask,
    segment_lesions,
    segment_lungs,
)
from groundglass.inference.segmenter import Segmenter, SlicePrediction
from groundglass.io.in_memory import ScanSource, as_scan
from groundglass.report.dicom_results import DicomResults, make_dicom_results
from groundglass.report.findings import Findings, ModelRef
from groundglass.report.measurement import measure
from groundglass.report.preview import draw_preview
from groundglass.report.results_folder import LUNGS, PROBABILITY, write_results
from groundglass.report.scan_masks import ProbabilityMap, ScanMask, in_given_order
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.scan import Scan


@dataclass(frozen=True, eq=False)
class Analysis:
    """A segmented scan with its findings.

    Attributes:
        segmented: The scan with its lungs and lesions, in upright axial slices.
        findings: Volumes, shares, and the values that are unknown.
        preview: A montage of slices and 3-D views; None if it could not be drawn.
        card: The card of the model that was used, with the threshold that was used.
        predictions: The network's predictions, if they were kept.
    """

    segmented: SegmentedScan
    findings: Findings
    preview: Image.Image | None
    card: ModelCard
    predictions: tuple[SlicePrediction, ...] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Analysis({self.findings.summary}; {self.scan!r})"

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
    def lesions(self) -> ScanMask:
        """The lesions."""
        return self._mask(self.segmented.lesions)

    @cached_property
    def lungs(self) -> ScanMask:
        """Both lungs, lesions included."""
        return self._mask(self.segmented.lung_field.mask)

    @cached_property
    def classes(self) -> dict[str, ScanMask]:
        """{class: its part of the lesions} for a model with class maps, otherwise empty."""
        numbers = np.asarray(self.segmented.class_map)
        names = enumerate(self.card.classes[1:], start=1)
        return {name: self._mask(numbers == number) for number, name in names}

    @cached_property
    def probability(self) -> ProbabilityMap:
        """Probability of lesion of each voxel, which takes four bytes a voxel.

        Raises:
            ConfigError: It was not kept: ask `segment` for it by `keep_probability=True`.
        """
        if self.predictions is None:
            raise ConfigError("the probability was not kept: segment the scan with keep_probability=True")
        axial = np.zeros(self.segmented.hu.shape, dtype=np.float32)
        for prediction in self.predictions:
            box = prediction.box
            axial[prediction.z, box.top : box.bottom, box.left : box.right] = prediction.lesion_probability
        return ProbabilityMap(*in_given_order(self.segmented.view.from_axial(axial), self.scan), self.scan)

    def save(self, folder: str | os.PathLike[str], lungs: bool = False, probability: bool = False) -> list[Path]:
        """Write mask, findings, preview and report into a folder: all files, or none.

        For a scan that was read from DICOM, a Segmentation and a Structured Report too. They and the preview are left
        out where they cannot be made; a warning in the findings says why.

        The files of an earlier result in the folder are removed; other files stay.

        Args:
            folder: Created if it does not exist.
            lungs: Write the mask of the lungs too.
            probability: Write the probability of lesion too.

        Returns:
            The files: masks, findings, preview, report.

        Raises:
            ConfigError: The probability is asked for and was not kept.
            OutputError: The folder cannot be written; it is as it was before.
        """
        maps: dict[str, ScanMask | ProbabilityMap] = {LUNGS: self.lungs} if lungs else {}
        maps |= {PROBABILITY: self.probability} if probability else {}
        files = self.dicom_results.files
        return write_results(
            self.segmented, self.saved_findings, self.preview, self.card, files, Path(folder), maps=maps
        )

    def _mask(self, axial: Any) -> ScanMask:
        """Return a mask from (z, y, x) voxels of upright axial slices."""
        voxels: NDArray[np.bool_] = self.segmented.view.from_axial(np.asarray(axial))
        return ScanMask(*in_given_order(voxels, self.scan), self.scan)


def segment(
    source: ScanSource,
    model: Segmenter | str | os.PathLike[str] | None = None,
    intensity: IntensityKind | str | None = None,
    progress: Progress = lambda *_: None,
    with_identity: bool = False,
    *,
    threshold: float | None = None,
    keep_probability: bool = False,
    label: str | None = None,
    lungs_progress: Progress = lambda *_: None,
    spacing: Sequence[float] | None = None,
    direction: ArrayLike | None = None,
    affine: ArrayLike | None = None,
) -> Analysis:
    """Find the lesions of a scan, measure them and draw them.

    Args:
        source: A path, an array, a nibabel or SimpleITK image, pydicom data sets, a list of paths, or a `Scan`: see
            `as_scan`.
        model: What `open_model` returned, which saves the time of loading it for each scan; an ONNX file with its card
            beside it; a folder of a run; None: the bundled model.
        intensity: Meaning of the scan's numbers, such as "hu"; None: recognise it from the values.
        progress: Called with the number of slices done and the number of all.
        with_identity: Name the source and the patient in findings and preview.
        threshold: Probability from 0 to 1 from which a voxel is lesion; None: the model's own.
        keep_probability: Keep the probability of each voxel for `Analysis.probability`.
        label: What you call the scan, for findings and report; it may name the patient.
        lungs_progress: Called before `progress`, with the same of the slices in which the lungs are looked for.
        spacing: For an array (z, y, x): mm between voxel centres along each of its axes: see `as_scan`.
        direction: For an array (z, y, x): (3, 3) the direction (L, P, S) of each of its axes, in columns.
        affine: For an array: (4, 4) from its indices to (R, A, S, 1) in mm; instead of `spacing` and `direction`.

    Raises:
        FormatError: The source cannot be read.
        IntensityError: The numbers are not recognised as CT.
        LungError: No slice shows lung.
        ConfigError: The threshold is not between 0 and 1, or the intensity is none of `IntensityKind`.
        ModelError: The model is missing or damaged.
        EngineError: No engine on this machine can run the model.
        TypeError: The source is none of the types that `as_scan` takes, or another argument of no type that is taken.
    """
    kind = None if intensity is None else IntensityKind.named(intensity)
    if not callable(progress):
        raise TypeError(f"progress is {progress!r}, expected a function of the number of slices done and of all")
    scan = as_scan(source, spacing=spacing, direction=direction, affine=affine)
    timer = StageTimer()
    kept: list[SlicePrediction] = []
    with timer.stage("model"):
        segmenter = model if isinstance(model, Segmenter) else open_model(model)
        segmenter = segmenter if threshold is None else _with_threshold(segmenter, threshold)
    found = segment_lungs(scan, segmenter.card, kind, timer, segmenter.engine.card.threads, lungs_progress)
    on_prediction = kept.append if keep_probability else lambda _: None
    segmented = segment_lesions(found, segmenter, progress, timer, on_prediction)
    analysis = _analysis(segmented, segmenter.card, timer, with_identity, label, _notes_on_threshold(threshold))
    return replace(analysis, predictions=tuple(kept) if keep_probability else None)


def _with_threshold(segmenter: Segmenter, threshold: float) -> Segmenter:
    """Return a model of another threshold; what its card states of its results was measured at its own one."""
    if not (isinstance(threshold, Real) and 0 < threshold < 1):
        raise ConfigError(f"the threshold is {threshold!r}, expected a probability between 0 and 1")
    if threshold == segmenter.card.threshold:
        return segmenter
    changes = {"threshold": threshold, "burden_interval": None, "repeatability": None, "scores": {}}
    return Segmenter(segmenter.card.model_copy(update=changes), segmenter.engine, segmenter.mirror_engine)


def _notes_on_threshold(threshold: float | None) -> tuple[str, ...]:
    if threshold is None:
        return ()
    return (f"lesions are marked from a probability of {threshold:g} on request, instead of the model's own threshold",)


def correct(
    scan: Scan, mask: Scan, card: ModelCard, label: str | None = None, progress: Progress = lambda *_: None
) -> Analysis:
    """Measure and draw a scan's lesions after a person has corrected their mask.

    Args:
        scan: The scan.
        mask: The corrected mask: see `segment_by_mask`.
        card: The card of the model whose mask was corrected.
        label: What you call the scan, for findings and report.
        progress: Called with the number of slices in which the lungs were looked for and the number of all.

    Raises:
        FormatError: The mask lies on another grid, or has values that are not the number of a class.
        IntensityError: The scan's numbers are not recognised as CT.
        LungError: No slice of the scan shows lung.
    """
    timer = StageTimer()
    return _analysis(segment_by_mask(scan, mask, card, timer, progress), card, timer, label=label, corrected=True)


def _analysis(
    segmented: SegmentedScan,
    card: ModelCard,
    timer: StageTimer,
    with_identity: bool = False,
    label: str | None = None,
    notes: tuple[str, ...] = (),
    corrected: bool = False,
) -> Analysis:
    with timer.stage("measure"):
        model = ModelRef(name=card.name, sha256=card.sha256)
        findings = measure(segmented, model, with_identity, corrected, label, card.classes[1:], card.burden_interval)
    warnings = (*notes, *findings.warnings)
    try:
        preview = draw_preview(segmented, findings, with_identity)
    except Exception as error:  # the preview must not cost mask and findings
        preview = None
        warnings = (*warnings, f"the preview was left out: {origin(error)}, an internal error of groundglass")
    findings = findings.model_copy(update={"seconds": timer.seconds, "warnings": warnings})
    return Analysis(segmented, findings, preview, card)
