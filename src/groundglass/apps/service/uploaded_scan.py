"""Reading what was uploaded: the scan, the series that it holds, and a mask in a format of another program."""

from __future__ import annotations

from pydantic import TypeAdapter

from groundglass.apps.service.storage import JobFolder
from groundglass.errors import InputError
from groundglass.files import write_atomic
from groundglass.inference.model_card import ModelCard
from groundglass.io.dicom_choice import choose_series, is_accepted
from groundglass.io.dicom_header import silence_pydicom
from groundglass.io.dicom_mask import read_segmentation
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.dicom_series import ImageSeries, find_series
from groundglass.io.other_files import NoDicomError
from groundglass.io.reader import file_kind, read_scan
from groundglass.scan.scan import Scan
from groundglass.strict_model import StrictModel


class SeriesOfScan(StrictModel):
    """A DICOM series of an upload that holds several.

    Attributes:
        label: Its number, with a letter if others have the same.
        description: Its description; empty if it is not stated.
        kernel: Its reconstruction kernel; empty if it is not stated.
        modality: Its modality.
        slices: Number of its slices.
        slice_distance_mm: Distance between them; None if it is not known.
        axial: Whether they lie across the body.
        chosen: Whether it is the series that was read.
        rejection_reason: Why it cannot be read; None if it can.
    """

    label: str
    description: str
    kernel: str
    modality: str
    slices: int
    slice_distance_mm: float | None
    axial: bool
    chosen: bool
    rejection_reason: str | None


SERIES_LIST: TypeAdapter[tuple[SeriesOfScan, ...]] = TypeAdapter(tuple[SeriesOfScan, ...])


def read_uploaded_scan(folder: JobFolder) -> Scan:
    """Read the scan of a job: the DICOM series that was asked for, or else the one that the rule chooses.

    Where an upload holds several series, they are listed in the job's folder, also if the scan is refused.

    Raises:
        InputError: The scan is refused.
    """
    wanted = folder.wanted_series.read_text(encoding="utf-8") if folder.wanted_series.exists() else None
    options = DicomOptions(series=wanted)
    try:
        scan = read_scan(folder.scan, dicom=options)
    except InputError:
        _list_series(folder, options)
        raise
    if scan.choice is not None:
        _list_series(folder, options)
    return scan


def _list_series(folder: JobFolder, options: DicomOptions) -> None:
    """List the series of an upload in the job's folder if there are several that a person may choose from."""
    try:
        if file_kind(folder.scan) not in ("folder", "ZIP", "DICOM"):
            return
        with silence_pydicom(), find_series(folder.scan) as listing:
            try:
                chosen = choose_series("the upload", listing, options)
            except InputError:
                chosen = None
            found = tuple(_describe(series, series is chosen) for series in listing.series)
    except (NoDicomError, InputError):
        return
    if len(found) > 1:
        write_atomic(folder.series, SERIES_LIST.dump_json(found))


def _describe(series: ImageSeries, is_chosen: bool) -> SeriesOfScan:
    distance_mm = series.slice_distance_mm
    accepted = is_accepted(series, DicomOptions())
    return SeriesOfScan(
        label=series.label,
        description=series.description,
        kernel=series.kernel,
        modality=series.modality,
        slices=len(series.slices),
        slice_distance_mm=None if distance_mm is None else round(distance_mm, 3),
        axial=series.is_axial,
        chosen=is_chosen,
        rejection_reason=None if accepted else series.rejection_reason,
    )


def read_mask(folder: JobFolder, scan: Scan, card: ModelCard) -> tuple[Scan, ModelCard]:
    """Read the mask of a job: NIfTI and the like on the grid of the scan, or a DICOM Segmentation of its series.

    The classes of a mask that was made elsewhere are kept in the job's folder, for masks that are drawn from it: those
    of the Segmentation; of 0 and 1 alone none; of higher numbers those of the model.

    Returns:
        The mask, and the card with the classes that its numbers stand for.

    Raises:
        FormatError: It cannot be read, or is not of this scan.
    """
    if file_kind(folder.mask) == "DICOM":
        found = read_segmentation(folder.mask, scan)
        write_atomic(folder.classes, "\n".join(found.classes).encode())
        mask = found.mask
    else:
        mask = read_scan(folder.mask)
        if folder.classes.exists() and not folder.classes.stat().st_size and mask.values.max() > 1:
            write_atomic(folder.classes, "\n".join(card.classes[1:]).encode())
    if folder.classes.exists():
        names = folder.classes.read_text(encoding="utf-8").splitlines()
        card = card.model_copy(update={"classes": ("lesion", *names)})
    return mask, card
