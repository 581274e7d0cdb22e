"""Read any supported path as a `Scan`; raise `FormatError` with the reason if that is not possible."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from groundglass.errors import FormatError
from groundglass.files import walk
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.image_slices import natural_order, read_image_slices
from groundglass.io.limits import read_bytes, shown
from groundglass.io.metaimage import read_mha
from groundglass.io.nifti import read_nifti
from groundglass.io.nifti_header import is_nifti
from groundglass.io.nrrd import read_nrrd
from groundglass.io.other_files import (
    ARCHIVE,
    DEAD_LINK,
    FOLDER_LINK,
    HIDDEN_IMAGE,
    RAR,
    SEVEN_ZIP,
    TAR,
    UNREADABLE_FILE,
    UNREADABLE_FOLDER,
    NoDicomError,
    begins_with_elements,
    is_pointer,
    is_web_page,
    list_losses,
)
from groundglass.io.other_formats import ANALYZE_HEADER, advice_on_pair, is_analyze_header
from groundglass.plain_text import printable
from groundglass.scan.scan import Scan

_EXPECTED = (
    "expected a CT as DICOM (a file, folder or ZIP), NIfTI (.nii, .nii.gz), MHA, NRRD, a PNG or JPEG slice, or a "
    "folder of such slices"
)
# Files of a result that a folder of pictures, or one that is given by mistake, may hold; they are no part of its scan.
FINDINGS_FILE = "findings.json"
RESULT_FILES = (
    *(f"{name}{suffix}" for name in ("lesions", "lungs", "probability") for suffix in (".nii.gz", ".png")),
    *("classes.nii.gz", "preview.png", "report.html"),
)
_ARCHIVE = "archive (unpack it, and give what is inside)"
_DISCS = (".iso", ".nrg", ".mdf", ".toast", ".dmg")
_VOLUMES = {"NIfTI": read_nifti, "MHA": read_mha, "NRRD": read_nrrd}
_PICTURES = ("PNG", "JPEG")
_LOST_IMAGES = (DEAD_LINK, HIDDEN_IMAGE, UNREADABLE_FILE, UNREADABLE_FOLDER)
_DICOM = ("DICOM", "ZIP")
_KIND_BY_SUFFIX = {
    **{".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "MHA", ".mhd": "MHA", ".nrrd": "NRRD", ".nhdr": "NRRD"},
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"},
}
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"NRRD000", "NRRD"),
    (128, b"DICM", "DICOM"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"%PDF", "a PDF"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array, which groundglass.segment takes in Python"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"jP  \r\n", "a JPEG 2000 picture"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftypmif", "a HEIC picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (0, b"\0\0\0\1\0\0", "an MGH file of FreeSurfer (convert it to NIfTI, as with mri_convert)"),
    (4, b"ftyp", "a film"),
    (*TAR, f"a tar {_ARCHIVE}"),
    (0, SEVEN_ZIP, f"a 7z {_ARCHIVE}"),
    (0, RAR, f"a RAR {_ARCHIVE}"),
    (0, b"BZh", f"a bzip2 {_ARCHIVE}"),
    (0, b"\xfd7zXZ\0", f"an xz {_ARCHIVE}"),
    (0, b"\x28\xb5\x2f\xfd", f"a Zstandard {_ARCHIVE}"),
)


def read_scan(
    path: str | os.PathLike[str],
    series: str | int | None = None,
    force_modality: bool = False,
    dicom: DicomOptions | None = None,
) -> Scan:
    """Read a CT scan: DICOM, NIfTI, MHA, NRRD, one PNG or JPEG slice, or a folder of them.

    The content of a file decides its format. A name with the extension of another kind is refused; an extension may be
    missing.

    Args:
        path: A file; a ZIP archive or folder of DICOM, searched with all folders below it; or a folder of pictures
            without DICOM, read in natural order. Other and hidden files are ignored.
        series: Number or UID of the DICOM series to read, or the end of its UID; None: chosen by the rule of
            `dicom_series`.
        force_modality: Read a DICOM series of another modality than CT.
        dicom: What else may be asked for where the input is DICOM; `series` and `force_modality` come first.

    Returns:
        The scan (z, y, x) on its grid, with values after the file's own slope and intercept.

    Raises:
        FormatError: There is nothing to read, or it is damaged or in a format that is not read; the message says which.
        TypeError: The path is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"read_scan takes a path; as_scan and segment may take a {type(path).__name__}")
    path = Path(path)
    dicom = dicom or DicomOptions()
    wanted = dicom.series if series is None else str(series)
    dicom = replace(dicom, series=wanted, force_modality=force_modality or dicom.force_modality)
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return _read_folder(path, dicom)
    if not stat.S_ISREG(mode):
        raise FormatError(f"{shown(path)} is no regular file (a pipe, socket or device), {_EXPECTED}")
    kind = _kind(read_bytes(path, 4096))
    _check_kind(path, kind)
    if kind in _DICOM:
        return _read_dicom(path, dicom)
    return read_image_slices([path], path) if kind in _PICTURES else _VOLUMES[kind](path)


def _read_dicom(path: Path, options: DicomOptions) -> Scan:
    from groundglass.io.dicom import read_dicom  # here: pydicom's import takes longer than reading other formats

    return read_dicom(path, options)


def file_kind(path: Path) -> str:
    """Return the format of a file by its first bytes: `DICOM`, `NIfTI`, `ZIP`, ...; `folder` for a folder.

    Raises:
        FormatError: The path cannot be read.
    """
    if stat.S_ISDIR(_mode(path)):
        return "folder"
    return _kind(read_bytes(path, 4096))


def _mode(path: Path) -> int:
    """Return the type bits of a path, links followed."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "its name is no path"
        if isinstance(error, FileNotFoundError):
            reason = "its link leads nowhere" if path.is_symlink() else "there is no such file or folder"
        elif isinstance(error, OSError) and error.errno == errno.ELOOP:
            reason = "its links go in a circle"
        raise FormatError(f"{shown(path)} cannot be read: {reason}; check the path") from None


def _check_kind(path: Path, kind: str) -> None:
    """Refuse a kind that is not read, and a picture named as a volume or the other way round."""
    name, named = shown(path), _kind_by_name(path)
    if kind not in (*_VOLUMES, *_PICTURES, *_DICOM):
        if advice := advice_on_pair(path, kind):
            raise FormatError(advice)
        if kind.endswith(" picture"):
            kind += " (save it as PNG)"
        elif path.suffix.lower() in _DISCS:
            kind = "the image of a disc (open it, and give the folder of the CT in it)"
        raise FormatError(f"{name} is {kind}, {_EXPECTED if named is None else f'expected {named} as its name says'}")
    if named is not None and (named in _PICTURES) != (kind in _PICTURES):
        raise FormatError(
            f"{name} is {kind} by its content, expected {named} as its name says: rename it if it is a CT"
        )


def _kind_by_name(path: Path) -> str | None:
    """Return the kind that a file's extension stands for; None without a known one."""
    name = path.name.lower()
    return next((kind for suffix, kind in _KIND_BY_SUFFIX.items() if name.endswith(suffix)), None)


def _kind(head: bytes) -> str:
    """Return the kind of a file by its first bytes, as it completes the sentence `the file is ...`."""
    if not head:
        return "empty (0 bytes)"
    if head[:2] == b"\x1f\x8b":
        try:
            unpacked = zlib.decompressobj(wbits=31).decompress(head, 1024)
            inside = _kind(unpacked)
        except zlib.error:
            return "a damaged gzip file"
        if inside == "DICOM":
            return f"DICOM in a gzip {_ARCHIVE}"
        if unpacked.startswith(TAR[1], TAR[0]):
            return f"a packed tar {_ARCHIVE}"
        if is_nifti(unpacked):
            return inside
        return f"a gzip file with no NIfTI inside ({'but another gzip file' if inside == 'NIfTI' else inside})"
    if is_nifti(head):
        return "NIfTI"
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    if is_analyze_header(head):
        return ANALYZE_HEADER
    if begins_with_elements(head):
        return "DICOM"
    if b"ElementDataFile" in head and b"NDims" in head:
        return "MHA"
    if is_pointer(head):
        return (
            "a pointer to a file that is not here (fetch it first, as by `git annex get` or `git lfs pull`, or give "
            "the file itself)"
        )
    if is_web_page(head):
        return "a web page (of a download that failed, or that asks to log in; download the file again)"
    if not head.strip(b"\0"):
        return "nothing but zeros (its download or copy was not finished)"
    return "text" if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head) else "of an unknown kind"


def _read_folder(folder: Path, dicom: DicomOptions) -> Scan:
    """Read the DICOM in a folder and all folders below it; if there is none, the pictures directly in it."""
    entries = _entries(folder)
    try:
        scan = _read_dicom(folder, dicom)
    except NoDicomError as error:
        return _read_pictures(folder, entries, error)
    return replace(scan, notes=(*scan.notes, *note_on_pictures(folder)))


def note_on_pictures(folder: Path) -> tuple[str, ...]:
    """Return a note on the pictures directly in a folder of DICOM, by their content; none without any."""
    named = [entry for entry in _entries(folder) if _kind_by_name(entry) in _PICTURES and entry.is_file()]
    ignored = sum(file_kind(entry) in _PICTURES for entry in named)
    return (f"{ignored} PNG or JPEG picture{'s' if ignored > 1 else ''} beside the DICOM ignored",) if ignored else ()


def _entries(folder: Path) -> list[Path]:
    """Return what lies directly in a folder and is not hidden."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise FormatError(f"{shown(folder)} cannot be read: {error.strerror}; check its permissions") from None


def _read_pictures(folder: Path, entries: list[Path], no_dicom: NoDicomError) -> Scan:
    """Read the pictures of a folder, in which no DICOM image was found."""
    results = [entry for entry in entries if entry.name in RESULT_FILES] if (folder / FINDINGS_FILE).is_file() else []
    files = [entry for entry in entries if entry.is_file() and entry not in results]
    kinds = {file: _kind(read_bytes(file, 4096)) for file in files}
    pictures = [file for file, kind in kinds.items() if kind in _PICTURES or _kind_by_name(file) in _PICTURES]
    for picture in pictures:
        _check_kind(picture, kinds[picture])
    losses = list_losses(no_dicom.others)
    others = Counter(kind for kind in kinds.values() if kind.endswith(" picture"))
    left_out = [
        *([losses] if losses else []),
        *(f"{n} {text}" for text, n in _pictures_elsewhere(folder).items() if n),
        *(f"{n} x {kind}, save it as PNG" for kind, n in sorted(others.items())),
        *([f"{len(results)} files of an earlier result"] if results else []),
    ]
    if pictures:
        scan = read_image_slices(sorted(pictures, key=natural_order), folder)
        return replace(scan, notes=(*scan.notes, f"left out: {', '.join(left_out)}")) if left_out else scan
    if "DICOM" in kinds.values() or any(kind in no_dicom.others for kind in _LOST_IMAGES):
        raise no_dicom
    what = f"{shown(folder)} holds no DICOM, PNG or JPEG slice but {_listed(entries)}"
    volumes = sorted(file.name for file, kind in kinds.items() if kind in _VOLUMES)
    if results and not volumes:
        raise FormatError(f"{shown(folder)} holds results of groundglass and no scan: give the scan they were made of")
    if volumes:
        raise FormatError(
            f"{what}: give one file, such as {printable(volumes[0])}, or the folder to `groundglass batch`"
        )
    pair = next(filter(None, (advice_on_pair(file, kind) for file, kind in sorted(kinds.items()))), None)
    if pair:
        raise FormatError(f"{what}: {pair}")
    named_dicom = {kind for file, kind in kinds.items() if file.suffix.lower() == ".dcm"}
    if len(named_dicom) == 1:
        raise FormatError(f"{what}, of which those named .dcm hold none: each is {named_dicom.pop()}; {_EXPECTED}")
    if FOLDER_LINK in no_dicom.others:
        raise FormatError(f"{what}: links to folders are not followed, give the folder to which the link leads")
    if ARCHIVE in no_dicom.others:
        raise FormatError(f"{what}: unpack the archive, and give what is inside")
    raise FormatError(f"{what}: {_EXPECTED}")


def _pictures_elsewhere(folder: Path) -> dict[str, int]:
    """Count the pictures of a folder that are not read, by what they are called."""
    hidden = [path for path in folder.iterdir() if path.name.startswith(".") and path.is_file()]
    below = (Path(name) for parent, _, names in walk(folder) if parent != folder for name in names)
    return {
        "hidden PNG or JPEG": sum(_kind(read_bytes(path, 4096)) in _PICTURES for path in hidden),
        "PNG or JPEG in folders below": sum(_kind_by_name(path) in _PICTURES for path in below),
    }


def _listed(entries: list[Path]) -> str:
    """Describe the entries of a folder by extension: `3 .nii.gz, 1 folder`."""
    counts = Counter(
        "folder"
        if e.is_dir()
        else (".nii.gz" if e.name.lower().endswith(".nii.gz") else e.suffix.lower() or "without extension")
        for e in entries
    )
    return ", ".join(f"{n} {kind}" for kind, n in counts.most_common(6)) or "nothing"
