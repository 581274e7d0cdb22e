"""What groundglass sees in an input before it segments it: series, grid, intensities, and what speaks against it."""

from __future__ import annotations

from pathlib import Path

from nibabel.orientations import aff2axcodes

from groundglass.errors import InputError
from groundglass.io.dicom import named, sample
from groundglass.io.dicom_series import NoDicomError, Series, SeriesListing, find_series, silence_pydicom, syntax, text
from groundglass.io.reader import kind_of, read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import recognise
from groundglass.scan.scan import Scan
from groundglass.strict_model import StrictModel

SAMPLED = 5  # slices of a DICOM series whose pixels are looked at
_TOWARDS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


class SeriesInfo(StrictModel):
    """A DICOM series.

    Attributes:
        uid: Of the series.
        modality: As stated.
        slices: Images that go together: one orientation, one matrix.
        size: Rows and columns.
        spacing_mm: Between rows, and between columns.
        axial: Whether they lie across the body.
        kernel: Of the reconstruction.
        syntax: How its pixels are packed.
        chosen: Whether `segment` would take it.
        why_not: Why it is no candidate; None: it is one.
        description: A free text that may name the patient; None unless asked for.
    """

    uid: str
    modality: str
    slices: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    axial: bool
    kernel: str
    syntax: str
    chosen: bool
    rejection_reason: str | None
    description: str | None


class Info(StrictModel):
    """What is seen of an input.

    Attributes:
        format: `DICOM`, `NIfTI`, `PNG`, ...
        series: Of DICOM, best first.
        shape: Voxels along (z, y, x).
        spacing_mm: Along the same axes; None: not stated.
        axes: Where each of them runs to.
        intensity: What the numbers are taken for, and why.
        notes: What else a reader should know.
        refused: Why `segment` would refuse it; None: nothing speaks against it so far.
    """

    format: str
    series: tuple[SeriesInfo, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    axes: str | None = None
    intensity: str | None = None
    notes: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def lines(self) -> list[str]:
        """For a person."""
        rows = [("format", self.format)]
        for each in self.series:
            taken = "taken" if each.chosen else each.rejection_reason or "not taken"
            size = "{} x {}".format(*each.size)
            what = [
                f"{each.slices} slice{'s' if each.slices > 1 else ''} of {size}",
                each.modality,
                each.kernel,
                each.syntax,
                each.description or "",
            ]
            rows.append(("series", f"{each.uid} ({taken}): {', '.join(word for word in what if word)}"))
        rows += [("shape", " x ".join(map(str, self.shape)) + " (z, y, x)")] if self.shape else []
        if self.shape:
            spacing = self.spacing_mm
            rows.append(("spacing", " x ".join(f"{mm:.3g}" for mm in spacing) + " mm" if spacing else "not stated"))
        rows += [("axes", self.axes)] if self.axes else []
        rows += [("intensity", self.intensity)] if self.intensity else []
        rows += [("note", note) for note in self.notes]
        rows += [("refused", self.refused)] if self.refused else []
        return [f"{name:10}{value}" for name, value in rows]


def describe(path: Path, uid: str | None = None, with_identity: bool = False) -> Info:
    """Look at an input without segmenting it. Of DICOM the headers are read, and the pixels of a few slices.

    Args:
        path: As for `read_scan`.
        uid: Of the DICOM series, or how it ends; None: the one that `segment` takes.
        with_identity: Tell the series' descriptions, which may name the patient.

    Raises:
        InputError: There is nothing that can be read at all, or no series of that UID.
    """
    kind = kind_of(path)
    if kind in ("folder", "DICOM", "ZIP"):
        try:
            with silence_pydicom(), find_series(path) as found:
                return _of_dicom(found, kind, uid, with_identity)
        except NoDicomError:
            if kind != "folder":
                raise
    scan = read_scan(path)
    return _looked_at(Info(format="folder of pictures" if kind == "folder" else kind, notes=scan.notes), scan)


def _of_dicom(found: SeriesListing, kind: str, uid: str | None, with_identity: bool) -> Info:
    chosen = found.series[0] if uid is None else named("the input", found, uid)
    series = tuple(_series(each, each is chosen, with_identity) for each in found.series)
    info = Info(format="DICOM" if kind == "DICOM" else f"DICOM ({kind})", series=series)
    if chosen.rejection_reason:
        return info.model_copy(update={"refused": f"no CT series: {chosen.rejection_reason}"})
    try:
        stack, some = sample(found, chosen, SAMPLED)
    except InputError as error:
        return info.model_copy(update={"refused": str(error)})
    info = _looked_at(info.model_copy(update={"notes": some.notes}), some)
    return info.model_copy(update={"shape": (len(stack.slices), *some.values.shape[1:])})


def _series(each: Series, chosen: bool, with_identity: bool) -> SeriesInfo:
    header = each.header
    return SeriesInfo(
        uid=each.uid,
        modality=each.modality,
        slices=len(each.slices),
        size=each.slices[0].size,
        spacing_mm=each.slices[0].spacing_mm,
        axial=each.is_axial,
        kernel=each.kernel,
        syntax=syntax(header).name,
        chosen=chosen and each.rejection_reason is None,
        rejection_reason=each.rejection_reason,
        description=text(header, "SeriesDescription") or None if with_identity else None,
    )


def _looked_at(info: Info, scan: Scan) -> Info:
    """With the grid, and what the intensities are taken for."""
    geometry = scan.geometry
    z, y, x = (round(mm, 4) for mm in geometry.spacing)
    seen = {"shape": geometry.shape, "spacing_mm": (z, y, x) if geometry.in_mm else None, "axes": _axes(geometry)}
    try:
        return info.model_copy(update=seen | {"intensity": recognise(scan).reason})
    except InputError as error:
        return info.model_copy(update=seen | {"refused": str(error)})


def _axes(geometry: Geometry) -> str | None:
    """Where the array's axes run to, by the nearest direction of the body."""
    if not geometry.in_mm:
        return None
    x, y, z = (_TOWARDS[code] for code in aff2axcodes(geometry.affine_ras))
    return f"z to the {z}, y to the {y}, x to the {x}"
