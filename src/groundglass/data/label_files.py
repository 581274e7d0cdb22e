"""Files that tell what the numbers of masks mean: dataset.json, ITK-SNAP's label descriptions, 3D Slicer's headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from groundglass.data.case import SLICER_SUFFIX, identifier_of
from groundglass.data.labels import LAYER, MaskLabels, labels_of_names, read_dataset_json
from groundglass.errors import FormatError
from groundglass.io.limits import read_bytes
from groundglass.plain_text import printable

_HEAD_BYTES = 1 << 16
_ITK_SNAP = b"ITK-SnAP Label Description File"
_ITK_SNAP_ROW = re.compile(r'^[ \t]*(\d{1,5})(?:[ \t]+[\d.]+){6}[ \t]+"(.*)"[ \t\r]*$', re.MULTILINE)
_SEGMENT_NUMBER = re.compile(r"[0-9]{1,5}")
_UNNAMED = re.compile(r"(label|segment)[ _]?\d+", re.IGNORECASE)  # the names that programs give
_SEGMENT = re.compile(r"^Segment(\d+)_(Name|LabelValue|Layer):=(.*)$", re.MULTILINE)
_MAY_STATE_LABELS = re.compile(
    r".*(label|class|categor|legend|lut|colou?r).*\.(json|txt|csv|tsv|ya?ml|xml|ctbl|label|lut)", re.IGNORECASE
)


def labels_beside(mask: Path, read: Callable[[Path], MaskLabels | None]) -> MaskLabels | None:
    """Return the labels that a mask's own header states, or a file in its folder or in the one above; None without.

    Args:
        mask: The mask.
        read: `labels_in`, which may remember its answers.

    Raises:
        DatasetError: A file is damaged, or it is not known what one of its names means.
    """
    if mask.name.lower().endswith(SLICER_SUFFIX):
        return _labels_of_segments(mask)
    return next(filter(None, map(read, _folders(mask))), None)


def unread_label_files(masks: Iterable[Path]) -> list[Path]:
    """Return the files beside masks whose names say that they may state labels, and that are not read."""
    masks = list(masks)
    folders = dict.fromkeys(folder for mask in masks for folder in _folders(mask))
    of_one_mask = {f"{identifier_of(mask)}.json" for mask in masks}  # how it was made
    return [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if _MAY_STATE_LABELS.fullmatch(file.name) and file.name not in of_one_mask and file.is_file()
    ]


def _folders(mask: Path) -> tuple[Path, Path]:
    return mask.absolute().parent, mask.absolute().parent.parent


def labels_in(folder: Path) -> MaskLabels | None:
    """Return the labels that a file in a folder states; None without one.

    Raises:
        DatasetError: It is damaged, or it is not known what one of its names means.
    """
    files = sorted(folder.glob("[Dd]ataset.json"))
    if file := next((file for file in files if file.is_file()), None):
        return read_dataset_json(file)
    for file in sorted((*folder.glob("*.txt"), *folder.glob("*.label"))):
        head = _head(file) if file.is_file() else b""
        if _ITK_SNAP in head[:1000]:
            rows = _ITK_SNAP_ROW.findall(head.decode("utf-8", "replace"))
            return labels_of_names(file, {int(value): [name] for value, name in rows if not _UNNAMED.fullmatch(name)})
    return None


def _labels_of_segments(mask: Path) -> MaskLabels | None:
    """Return the labels of a segmentation of 3D Slicer by the names in its header."""
    fields: dict[str, dict[str, str]] = {}
    text = _head(mask).partition(b"\n\n")[0].decode("utf-8", "replace").replace("\r", "")
    for number, key, value in _SEGMENT.findall(text):
        fields.setdefault(number, {})[key] = value.strip()
    names: dict[int, list[str]] = {}
    for number, segment in fields.items():
        name, value = printable(segment.get("Name", "")), segment.get("LabelValue", "1")
        layer = segment.get("Layer", "0" if "LabelValue" in segment else number)  # each has its own in old files
        if all(map(_SEGMENT_NUMBER.fullmatch, (value, layer))) and not _UNNAMED.fullmatch(name):
            names.setdefault(int(value) + LAYER * int(layer), []).append(name)
    return labels_of_names(mask, names)


def _head(file: Path) -> bytes:
    try:
        return read_bytes(file, _HEAD_BYTES)
    except FormatError:
        return b""
