"""Advice on files that hold a CT in a form that is not read: one of two files, archives without DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundglass.io.limits import shown
from groundglass.plain_text import printable

ANALYZE_HEADER = "the header of a pair (.hdr with .img)"
_HEADER_BYTES = 348  # of Analyze and NIfTI-1, stated in the first four bytes
_BY_NIBABEL = "nibabel.save(nibabel.load({!r}), {!r})"
_BY_ITK = "SimpleITK.WriteImage(SimpleITK.ReadImage({!r}), {!r})"
_VOXELS_ALONE = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")
_HEADERS = (".hdr", ".mhd", ".nhdr")
_KINDS = {  # {what people call a kind of file: the ends of its names}
    "NIfTI file": (".nii", ".nii.gz"),
    "MHA or NRRD file": (".mha", ".nrrd"),
    "header whose voxels lie in another file": _HEADERS,
    "PNG or JPEG picture": (".png", ".jpg", ".jpeg"),
    "ZIP archive": (".zip",),
}
# ZIP archives that are files of a program, by the ends of names of what they hold.
_PROGRAMS = {
    ".npy": "a NumPy archive: give one of its arrays to groundglass.segment in Python",
    "[content_types].xml": "an Office document: save each of its pictures as PNG, and give their folder",
    "/data.pkl": "a file of PyTorch: give its array to groundglass.segment in Python",
}


def is_analyze_header(head: bytes) -> bool:
    """Return whether a file begins as an Analyze or NIfTI header whose voxels lie in an .img file."""
    states_length = head[:4] in (_HEADER_BYTES.to_bytes(4, "little"), _HEADER_BYTES.to_bytes(4, "big"))
    is_whole = len(head) >= _HEADER_BYTES
    return is_whole and (head[4:8] == b"ni2\0" or (states_length and head[344:348] != b"n+1\0"))


def join_advice(header: str) -> str:
    """Return how to make one file of a header and the voxels that it names, by the header's name."""
    stem = header.rsplit(".", 1)[0]
    command = (_BY_NIBABEL if header.lower().endswith(".hdr") else _BY_ITK).format(header, f"{stem}.nii.gz")
    return f"make one file of both, in Python with {command}, and give that"


def advice_on_pair(path: Path, kind: str) -> str | None:
    """Return the sentence on a file that is one half of a pair; None for other files.

    Args:
        path: The file.
        kind: Its kind by its first bytes.
    """
    name = shown(path)
    if kind == ANALYZE_HEADER:
        has_voxels = any(path.with_suffix(suffix).is_file() for suffix in (".img", ".IMG", ".img.gz"))
        mend = "expected both in one file: " if has_voxels else "whose .img is not beside it: find that first, then "
        return f"{name} is {kind}, {mend}{join_advice(name)}"
    suffix = next((suffix for suffix in _VOXELS_ALONE if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        return None
    stem = path.name[: -len(suffix)]
    beside = [path.with_name(stem + end) for end in _HEADERS]
    header = next((shown(candidate) for candidate in beside if candidate.is_file()), None)
    if header is None:
        return (
            f"{name} holds voxels alone, expected a header that states their number, type and spacing: "
            "find the header (.hdr, .mhd, .nhdr), or export the CT again as DICOM or NIfTI"
        )
    mend = f"expected both in one file: {join_advice(header)}" if header.lower().endswith(".hdr") else f"give {header}"
    return f"{name} holds the voxels of {header}: {mend}"


def advice_on_archive(archive: str, names: Sequence[str]) -> str | None:
    """Return the sentence on a ZIP archive without DICOM; None if nothing is known of it.

    Args:
        archive: Its name.
        names: The names of its files.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        kind = next((kind for kind, ends in _KINDS.items() if name.lower().endswith(ends)), None)
        if kind:
            found.setdefault(kind, []).append(printable(name.replace("\\", "/").rsplit("/", 1)[-1]))
    if not found:
        programs = (text for name in names for end, text in _PROGRAMS.items() if name.lower().endswith(end))
        program = next(programs, None)
        return None if program is None else f"{archive} is {program}"
    kind, files = next((kind, found[kind]) for kind in _KINDS if kind in found)
    contents = ", ".join(f"{len(files)} {kind}{'s' if len(files) > 1 else ''}" for kind, files in found.items())
    if kind.startswith("PNG"):
        give = f"give their folder ({files[0]} ...)" if len(files) > 1 else f"give {files[0]}"
    elif len(files) > 1:
        give = f"give one of them, such as {files[0]}, or their folder to `groundglass batch`"
    else:
        give = f"give {files[0]}"
    return f"{archive} holds no DICOM image but {contents}: unpack it, and {give}"
