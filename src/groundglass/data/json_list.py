"""Lists of cases in JSON, as MONAI and the Medical Segmentation Decathlon write them: the files of images and masks.

{"training": [{"image": "scans/a.nii.gz", "label": "masks/a.nii.gz"}, …], "validation": […]}, or the list alone. The
keys have other names too. Paths are relative to the list, or end in a path that is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundglass.data.bids import subject_of
from groundglass.data.case import SCAN_SUFFIXES, Case, identifier_of
from groundglass.data.case_list import distinct_names
from groundglass.data.labels import read_dataset_json
from groundglass.data.patient_names import is_unknown, same_patients
from groundglass.errors import DatasetError
from groundglass.files import read_file

_LARGEST_BYTES = 64 << 20  # of a file that is looked into for a list
_IMAGE_KEY = re.compile(r"(image|img|ct|scan|volume|input)(_?(path|file|name))*s?", re.IGNORECASE)
_MASK_KEY = re.compile(
    r"(label|mask|seg|segmentation|lesion|infection|annotation|target|gt|ground_?truth)(_?(path|file|name|mask))*s?",
    re.IGNORECASE,
)
_PATIENT_KEY = re.compile(r"((patient|subject|participant|person)[ _-]?(id|name)?|pid|mrn)", re.IGNORECASE)


def json_lists_in(folder: Path) -> list[Path]:
    """Return the JSON files in a folder that hold a list of images and masks."""
    files = [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
    return [path for path in files if any(_value(entry, _MASK_KEY) for entry in _entries(path))]


def read_json_list(path: Path, on_note: Callable[[str], None]) -> Iterator[Case]:
    """Yield the cases of a list; an entry without a patient is one of its own, or the subject that its image names.

    Args:
        path: The list.
        on_note: Called with what was assumed, and what was left out.

    Raises:
        DatasetError: It holds no list of images and masks, or a file is missing.
    """
    entries = _entries(path)
    with_mask = [entry for entry in entries if _value(entry, _MASK_KEY)]
    if not with_mask:
        raise DatasetError(
            f'{path} holds no list of images and masks: expected such as {{"training": [{{"image": "a.nii.gz", '
            '"label": "a_mask.nii.gz"}]}, or a CSV with image,mask,patient'
        )
    if len(with_mask) < len(entries):
        on_note(f"{path}: entries without a mask are left out, {len(entries) - len(with_mask)} of {len(entries)}")
    files = [(_file(path, entry, _IMAGE_KEY), _file(path, entry, _MASK_KEY)) for entry in with_mask]
    images = [image for image, _ in files]
    if same := next((image for image, mask in files if image == mask), None):
        raise DatasetError(f"{path} names {same} as an image and as its mask: paths are relative to the list")
    if len(set(images)) < len(images):
        repeated = next(image for image in images if images.count(image) > 1)
        raise DatasetError(f"{path} names {repeated} more than once: remove one of the entries")
    labels = read_dataset_json(path)
    patients = [_patient(entry) for entry in with_mask]
    patient_of = same_patients(patients, lambda text: on_note(f"{path}: {text}"))
    for patient, (image, mask), identifier in zip(patients, files, distinct_names(images), strict=True):
        stated = subject_of(identifier_of(image)) or identifier if is_unknown(patient) else patient_of[patient]
        yield Case(f"{path.stem}/{identifier}", f"{path.stem}/{stated}", image, mask, labels=labels)


def _entries(path: Path) -> list[Mapping[str, Any]]:
    """Return the entries of all lists in a file that name an image; none if it holds something else."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return []
        content = json.loads(read_file(path).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return []
    lists = content.values() if isinstance(content, dict) else [content]
    entries = [entry for found in lists if isinstance(found, list) for entry in found if isinstance(entry, dict)]
    return [entry for entry in entries if _value(entry, _IMAGE_KEY)]


def _patient(entry: Mapping[str, Any]) -> str:
    """Return the patient that an entry states, by a name or a number, which may be 0; "" without one."""
    stated = (value for key, value in entry.items() if _PATIENT_KEY.fullmatch(key))
    return next((str(value) for value in stated if isinstance(value, str | int | float) and value != ""), "")


def _value(entry: Mapping[str, Any], key: re.Pattern[str]) -> list[str]:
    """Return the files under the first key that matches and names any."""
    for name, value in entry.items():
        texts = value if isinstance(value, list) else [value]
        files = [text for text in texts if isinstance(text, str) and text.lower().endswith(SCAN_SUFFIXES)]
        if files and key.fullmatch(name):
            return files
    return []


def _file(path: Path, entry: Mapping[str, Any], key: re.Pattern[str]) -> Path:
    """Return the file that an entry names, by its whole path or by as much of its end as leads to a file.

    Raises:
        DatasetError: There is none, or several are named.
    """
    text, *others = _value(entry, key)
    if others:
        raise DatasetError(f"{path} names {text} and {others[0]} in one entry: expected one image and one mask each")
    parts = [part for part in re.split(r"[\\/]+", text) if part != "."]
    ends = (path.parent.joinpath(*parts[start:]) for start in range(len(parts)))
    file = next((file for file in (path.parent / text, *ends) if _is_file(file)), None)
    if file is None:
        raise DatasetError(f"{path} names {text}, which is no file: paths are relative to the list")
    return file


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
