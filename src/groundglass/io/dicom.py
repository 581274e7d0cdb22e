"""A DICOM series as a scan: its slices sorted along their normal, checked, and in HU.

What would make volumes wrong is refused: slices that are missing, shifted, unevenly far apart, or at one place with
different pixels. What does not is said in the scan's notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGExtended12Bit

from groundglass.errors import FormatError
from groundglass.io.dicom_series import (
    DAMAGE,
    DAMAGED,
    DicomSlice,
    Instance,
    Series,
    SeriesListing,
    content,
    find_series,
    number,
    silence_pydicom,
    syntax,
    text,
)
from groundglass.io.limits import check_count, check_plane, plain_values, shown
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import DicomSeries, Scan

# {transfer syntax: who decodes it}. GDCM ends the whole program on some damaged pictures, so that it gets what no other
# decoder of a free licence reads.
DECODERS = {
    **dict.fromkeys(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"), ""),
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "pillow"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "pyjpegls"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "pylibjpeg"),
    "1.2.840.10008.1.2.5": "pydicom",
}
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
SAME_PLACE_MM = 0.01
# Of the distance between slices. Less than the first is even; up to the second is said, and no slice may lie farther
# from its place on the even grid.
EVEN, JITTER = 0.01, 0.1
SHIFT_MM = 1.0  # of a slice sideways, against a straight stack
TILT_DEGREES = 0.5
PADDING_HU = -1024.0  # what padding is set to: air


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in the order of their normal, on an even grid.

    Attributes:
        planes: One for each slice.
        affine_lps: (4, 4) of the grid, (z, y, x) to (L, P, S) mm.
        notes: What was met, in plain words.
    """

    slices: tuple[DicomSlice, ...]
    affine_lps: NDArray[np.float64]
    notes: tuple[str, ...]


def sample(found: SeriesListing, series: Series, count: int) -> tuple[Stack, Scan]:
    """The slices of a series in order, and some of them evenly apart as a scan: what can be said without all pixels.

    Raises:
        FormatError: As `read_dicom`, for what headers and those slices show.
    """
    _check_kind("the series", series, force_modality=True)
    stack = sort("the series", series.slices)
    chosen = tuple(stack.slices[i] for i in np.unique(np.linspace(0, len(stack.slices) - 1, count).astype(int)))
    size = series.slices[0].size
    values = np.stack([hu for _, hu in _decoded("the series", chosen, size)])
    notes = (*_series_notes(found, series, None), *stack.notes, *_header_notes(series))
    return stack, Scan(values, _geometry("the series", values.shape, stack.affine_lps), notes=notes)


def read_dicom(path: Path, uid: str | None = None, force_modality: bool = False) -> Scan:
    """Read a CT series from a DICOM file, a folder or a ZIP archive.

    Values are after the rescale: int16 where slopes and intercepts are whole, else float32; padding is air.

    Args:
        path: What the user named.
        uid: Of the series, or how it ends; None: chosen by the rule of `dicom_find`.
        force_modality: Take what is no CT by its header for one.

    Raises:
        FormatError: There is no CT series, or it is damaged, packed in a syntax that is not read, incomplete or uneven.
    """
    name = shown(path)
    with silence_pydicom(), find_series(path) as found:
        series = _chosen(name, found, uid, force_modality)
        _check_kind(name, series, force_modality)
        stack = sort(name, series.slices)
        shape = (len(stack.slices), *series.slices[0].size)
        check_count(name, shape)
        geometry = _geometry(name, shape, stack.affine_lps)
        slices, values = _without_repeats(name, stack, shape[1:])
        geometry = Geometry(values.shape, geometry.affine_lps)
        said = (_series_notes(found, series, uid), stack.notes, _repeat_note(stack, slices), _header_notes(series))
        notes = tuple(note for notes in said for note in notes)
        frames = tuple(plane.frame for plane in slices if plane.frame is not None) or None
        if frames and len({id(plane.instance) for plane in slices}) > 1:
            raise FormatError(
                f"{name} holds a series in several multi-frame files, expected one: give one of them, or join them"
            )
        headers = (slices[0].header,) if frames else tuple(plane.header for plane in slices)
        for header in headers:
            _drop_damaged(header)
    return Scan(plain_values(name, values), geometry, path, notes=notes, series=DicomSeries(headers, frames))


def _drop_damaged(header: Dataset) -> None:
    """Take away what cannot be read, so that whoever uses the header later meets no surprise."""
    for tag in list(header.keys()):
        try:
            _ = header[tag]
        except DAMAGE:
            del header[tag]


def _chosen(name: str, found: SeriesListing, uid: str | None, force_modality: bool) -> Series:
    if uid is not None:
        return named(name, found, uid)
    best = found.series[0]
    if not _is_taken(best, force_modality):
        lines = "; ".join(series.line for series in found.series[:5])
        mend = " (--force-modality takes it all the same)" if best.can_be_forced else ""
        raise FormatError(f"{name} holds no CT series but {lines}; give the CT itself{mend}")
    return best


def _is_taken(series: Series, force_modality: bool) -> bool:
    return series.rejection_reason is None or (force_modality and series.can_be_forced)


def named(name: str, found: SeriesListing, uid: str) -> Series:
    """The one series whose UID ends so.

    Raises:
        FormatError: There is none, or several.
    """
    matching = [series for series in found.series if series.uid.endswith(uid)]
    exact = [series for series in matching if series.uid == uid]
    if len(exact or matching) != 1:
        known = "; ".join(series.line for series in found.series)
        raise FormatError(f"{name} holds {len(matching)} series that end in {uid}, expected one of: {known}")
    return (exact or matching)[0]


def _check_kind(name: str, series: Series, force_modality: bool) -> None:
    header = series.header
    if not _is_taken(series, force_modality):
        mend = "--force-modality takes it all the same" if series.can_be_forced else "give the CT itself"
        raise FormatError(f"{name}: the series is no CT ({series.rejection_reason}): {mend}")
    if (number(header, "SamplesPerPixel") or 1) != 1:
        raise FormatError(f"{name} holds colour pictures, expected one grey value a pixel: give the CT itself")
    if series.slices[0].frame is None and (number(header, "NumberOfFrames") or 1) > 1:
        raise FormatError(f"{name} holds frames without positions (a film, no volume): give the CT series itself")
    for plane in series.slices:
        uid = syntax(plane.header)
        twelve_bit = uid == JPEGExtended12Bit and (number(plane.header, "BitsStored") or 0) > 8
        if twelve_bit or uid not in DECODERS:
            known = ", ".join(UID(each).name for each in DECODERS)
            raise FormatError(
                f"{name} is packed as {uid.name} ({uid}{', 12 bits' if twelve_bit else ''}), which is not read: "
                f"send it uncompressed; these are read: {known}"
            )


def sort(name: str, slices: Sequence[DicomSlice]) -> Stack:
    """Order slices along their normal and check that they make an even grid.

    Slices at one place stay side by side; `_without_repeats` looks at their pixels.

    Args:
        name: For messages.
        planes: Of one orientation and matrix.

    Raises:
        FormatError: A place is missing, or the slices make no even grid.
    """
    first = slices[0]
    if first.spacing_mm is None or any(plane.spacing_mm != first.spacing_mm for plane in slices):
        raise FormatError(f"{name} states no pixel spacing, or several, expected one for all slices: export it again")
    if len(slices) == 1:
        return _single(name, first)
    if any(plane.position_mm is None or plane.directions is None for plane in slices):
        missing = sum(plane.position_mm is None or plane.directions is None for plane in slices)
        raise FormatError(
            f"{missing} of {len(slices)} images in {name} state no position or orientation, which gives no order: "
            "export the series again with them"
        )
    directions = _directions(name, first)
    normal = np.cross(*directions)
    positions = np.array([plane.position_mm for plane in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    kept = np.concatenate([[True], np.diff(positions @ normal) > SAME_PLACE_MM])
    places = positions[kept]
    if len(places) == 1:
        return Stack(tuple(slices[i] for i in order), _single(name, first).affine_lps, ())
    step = (places[-1] - places[0]) / (len(places) - 1)
    notes = [*_spacing_notes(name, places @ normal), *_tilt_notes(name, places, step, normal)]
    return Stack(tuple(slices[i] for i in order), _affine(places[0], step, directions, first), tuple(notes))


def _single(name: str, plane: DicomSlice) -> Stack:
    notes = []
    thickness = abs(number(plane.header, "SpacingBetweenSlices") or number(plane.header, "SliceThickness") or 0.0)
    if not thickness:
        thickness = 1.0
        notes.append("the slice states no thickness: 1 mm is assumed, and volumes with it")
    directions = np.array([[1.0, 0, 0], [0, 1, 0]]) if plane.directions is None else _directions(name, plane)
    position = np.zeros(3) if plane.position_mm is None else plane.position_mm
    if plane.directions is None or plane.position_mm is None:
        notes.append("the slice states no position or orientation: an upright axial slice is assumed")
    return Stack((plane,), _affine(position, thickness * np.cross(*directions), directions, plane), tuple(notes))


def _directions(name: str, plane: DicomSlice) -> NDArray[np.float64]:
    """(2, 3) along a row and along a column; unit vectors at right angles."""
    assert plane.directions is not None
    lengths = np.linalg.norm(plane.directions, axis=1)
    if (np.abs(lengths - 1) > 1e-2).any() or abs(plane.directions[0] @ plane.directions[1]) > 1e-2:
        raise FormatError(f"{name} states an orientation whose axes are not at right angles: export it again")
    return np.asarray(plane.directions / lengths[:, None])


def _affine(
    origin: NDArray[np.float64], step: NDArray[np.float64], directions: NDArray[np.float64], plane: DicomSlice
) -> NDArray[np.float64]:
    """(4, 4) from (z, y, x, 1): PS3.3 C.7.6.2.1.1, with the first slice's corner as origin."""
    assert plane.spacing_mm is not None
    between_rows, between_columns = plane.spacing_mm
    affine = np.eye(4)
    affine[:3] = np.stack([step, directions[1] * between_rows, directions[0] * between_columns, origin], axis=1)
    return affine


def _spacing_notes(name: str, places: NDArray[np.float64]) -> list[str]:
    distances = np.diff(places)
    usual = float(np.median(distances))
    off = np.abs(distances - usual) / usual
    gaps = [
        (i, round(d / usual) - 1) for i, d in enumerate(distances) if d > 1.5 * usual and abs(d / usual % 1 - 0.5) > 0.4
    ]
    if gaps and (np.delete(off, [i for i, _ in gaps]) <= JITTER).all():
        missing = sum(count for _, count in gaps)
        at = ", ".join(str(i + 1) for i, _ in gaps[:5])
        raise FormatError(
            f"{name} lacks {missing} slice{'s' if missing > 1 else ''} (behind slice {at} of {len(places)}, "
            f"{usual:.3g} mm apart elsewhere): send the whole series, or the part without the gap"
        )
    if (off > JITTER).any():
        raise FormatError(
            f"{name} has slices {distances.min():.3g} to {distances.max():.3g} mm apart, expected one distance: give a "
            "series of even slices, or resample it, e.g. with dcm2niix"
        )
    adrift = float(np.abs(places - np.linspace(places[0], places[-1], len(places))).max())
    if adrift > JITTER * usual:  # small differences of one kind add up over many slices
        raise FormatError(
            f"{name} has slices {distances.min():.3g} to {distances.max():.3g} mm apart, which puts some "
            f"{adrift:.2g} mm off an even grid: give a series of even slices, or resample it, e.g. with dcm2niix"
        )
    return [f"slice distances vary by up to {100 * off.max():.0f} %: taken as even"] if (off > EVEN).any() else []


def _tilt_notes(
    name: str, places: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]
) -> list[str]:
    sideways = places - places[0] - np.outer((places - places[0]) @ normal, step / (step @ normal))
    worst = float(np.linalg.norm(sideways, axis=1).max())
    if worst > SHIFT_MM:
        raise FormatError(
            f"{name} has slices shifted sideways by up to {worst:.1f} mm, expected a straight stack: "
            "give one series alone"
        )
    cosine = float(step @ normal) / float(np.linalg.norm(step))
    angle = float(np.degrees(np.arccos(min(1.0, cosine))))
    if angle <= TILT_DEGREES:
        return []
    return [f"the gantry was tilted by {angle:.1f} degrees: the grid is sheared, and kept so"]


def _geometry(name: str, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Geometry:
    try:
        geometry = Geometry(shape, affine)
        check_plane(name, geometry)
        return geometry
    except ValueError as error:
        raise FormatError(f"{name} has no usable grid: {error}; export it again") from None


def _without_repeats(name: str, stack: Stack, size: tuple[int, int]) -> tuple[list[DicomSlice], NDArray[Any]]:
    """The slices and their HU, (z, y, x); of several at one place with the same pixels, the first."""
    slices: list[DicomSlice] = []
    values: list[NDArray[Any]] = []
    normal = stack.affine_lps[:3, 0]
    for plane, hu in _decoded(name, stack.slices, size):
        if slices and plane.position_mm is not None and slices[-1].position_mm is not None:
            apart = abs(float((plane.position_mm - slices[-1].position_mm) @ normal) / float(np.linalg.norm(normal)))
            if apart <= SAME_PLACE_MM:
                if not np.array_equal(hu, values[-1]):
                    raise FormatError(
                        f"{name} has several different images at one place (slice {len(slices)}; time points or "
                        "reconstructions in one series?): give one of them alone"
                    )
                continue
        slices.append(plane)
        values.append(hu)
    return slices, np.stack(values)


def _decoded(
    name: str, slices: Sequence[DicomSlice], size: tuple[int, int]
) -> Iterator[tuple[DicomSlice, NDArray[Any]]]:
    """Each slice in HU; of a multi-frame instance every frame is decoded once."""
    whole = all(plane.slope == int(plane.slope) and plane.intercept == int(plane.intercept) for plane in slices)
    held: Instance | None = None
    for plane in slices:
        try:
            if plane.instance is not held:
                held, data = plane.instance, dcmread(content(plane.instance), force=True)
                data.file_meta.TransferSyntaxUID = syntax(plane.header)
            stored = pixel_array(data, index=plane.frame, decoding_plugin=DECODERS[syntax(plane.header)])
            if stored.shape != size:
                raise ValueError("frames of another size")
        except FormatError:
            raise
        except (*DAMAGE, MemoryError):
            packed = syntax(plane.header).name
            raise FormatError(
                f"{name} has an image that is damaged or cut short (packed as {packed}): send the series again"
            ) from None
        hu = stored.astype(np.float32) * np.float32(plane.slope) + np.float32(plane.intercept)
        padding = _padding(plane.header, stored)
        if padding is not None and padding.any():
            if float(hu[padding].max()) > PADDING_HU:  # a value that tissue has, too: only what reaches the edge
                from scipy import ndimage  # here, for a quick start of the program

                padding = ndimage.binary_propagation(padding & _edge(size), mask=padding)
            hu[padding] = PADDING_HU
        fits = whole and float(np.abs(hu).max()) < 1 << 15
        yield plane, hu.astype(np.int16) if fits else hu


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """(y, x): pixels of padding (PS3.3 C.7.5.1.1.2); None where none is stated."""
    ends = []
    for key in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            ends.append(int(header[key].value))
        except DAMAGE:
            continue
    if not ends:
        return None
    if stored.dtype.kind == "i":  # the value may be written as unsigned
        ends = [end - (1 << 16) if end > 32767 else end for end in ends]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _edge(size: tuple[int, int]) -> NDArray[np.bool_]:
    """The outermost pixels of a slice."""
    edge = np.ones(size, dtype=np.bool_)
    edge[1:-1, 1:-1] = False
    return edge


def _series_notes(found: SeriesListing, series: Series, uid: str | None) -> list[str]:
    notes = []
    others = [each.line for each in found.series if each is not series]
    if others and uid is None:
        listed = "; ".join(others[:5]) + (f"; and {len(others) - 5} more" if len(others) > 5 else "")
        notes.append(f"series {series.line} was chosen; others there: {listed} (--series UID takes another)")
    left = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in series.left_out.items()]
    damaged = found.others.get(DAMAGED)
    left += [f"{damaged} damaged file{'s' if damaged > 1 else ''}"] if damaged else []
    if left:
        notes.append(f"left out: {', '.join(left)}")
    if series.modality != "CT":
        notes.append(f"the modality is {series.modality or 'not stated'}, taken for CT as told")
    if not series.is_axial:
        notes.append("the slices are not axial: they are turned, and look coarser")
    return notes


def _repeat_note(stack: Stack, slices: Sequence[DicomSlice]) -> list[str]:
    repeated = len(stack.slices) - len(slices)
    return [f"{repeated} image{'s' if repeated > 1 else ''} of the same place and pixels left out"] if repeated else []


def _header_notes(series: Series) -> list[str]:
    notes = []
    header = series.header
    if series.slices[0].frame is None and any(
        number(each.header, "RescaleIntercept") is None for each in series.slices
    ):
        notes.append("no rescale to HU is stated: the values are taken as they are stored")
    if text(header, "PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the images are meant to be shown inverted (MONOCHROME1): HU are taken as they are stored")
    if text(header, "BurnedInAnnotation") == "YES":
        notes.append("text is burned into the images: it may be marked, and may name the patient")
    lossy = sorted({syntax(plane.header) for plane in series.slices} & set(LOSSY))
    if lossy or text(header, "LossyImageCompression") == "01":
        notes.append("the images were compressed with loss: fine texture is gone")
    return notes
