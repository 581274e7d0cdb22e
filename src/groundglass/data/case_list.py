"""Lists of cases: a CSV with the columns image, mask and, where known, patient, labels and unrelated_slices.

Its paths are relative to the CSV. `labels` states what the numbers of a mask mean, such as `lesion=2`;
`unrelated_slices` is `yes` for a stack of slices of different patients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from groundglass.data.case import MEDSEG_SOURCES, Case, identifier_of
from groundglass.data.labels import MaskLabels, parse_labels
from groundglass.data.patient_names import is_unknown, same_patients
from groundglass.errors import ConfigError, DatasetError, FormatError
from groundglass.tables.reading import TableRow, TextTable, path_of_cell, read_table

COLUMNS = ("image", "mask", "patient", "labels", "unrelated_slices")
RESERVED_SOURCES = (*MEDSEG_SOURCES, "coronacases", "pairs")
# Also as spreadsheets of other languages write TRUE and FALSE.
_YES = ("yes", "y", "true", "1", "1.0", "ja", "wahr", "oui", "vrai", "si", "sí", "sì", "verdadero", "vero", "sim")
_NO = ("", "no", "n", "false", "0", "0.0", "nan", "nein", "falsch", "non", "faux", "falso", "não")
_OTHER_COMPUTER = re.compile(r"[a-zA-Z]:[\\/]|\\\\")  # a drive, or a share
# Words of columns that state patients, within their names or as the whole of them.
_PERSON = re.compile(
    r"patient|subject|person|participant|proband|paciente|paziente|sujet|(^|[^a-z])pat([^a-z]|$)|^(pid|mrn)$|患者|病人|환자"
)


def read_case_list(path: Path, on_note: Callable[[str], None]) -> Iterator[Case]:
    """Yield the cases of a CSV; a row without a patient is a patient of its own.

    Args:
        path: The CSV.
        on_note: Called with what was assumed.

    Raises:
        DatasetError: It is no CSV, a column is missing, or a file is.
    """
    if path.stem in RESERVED_SOURCES:
        raise DatasetError(
            f"{path} has the name of a public dataset: give it another name, which becomes the source of its cases"
        )
    table = read_csv(path, COLUMNS)
    _check_columns(path, table, on_note)
    for note in table.notes:
        on_note(f"{path}: {note}")
    files = [
        (_file(path, row.line, "image", row.cells), _file(path, row.line, "mask", row.cells)) for row in table.rows
    ]
    _check_repeats(path, table.rows, files, on_note)
    patient_of = same_patients(
        (row.cells.get("patient", "") for row in table.rows), lambda text: on_note(f"{path}: {text}")
    )
    names = distinct_names([image for image, _ in files])
    for row, (image, mask), identifier in zip(table.rows, files, names, strict=True):
        name = f"{path.stem}/{identifier}"
        stated = row.cells.get("patient", "")
        patient = name if is_unknown(stated) else f"{path.stem}/{patient_of[stated]}"
        yield Case(name, patient, image, mask, *_remaining_cells(path, row.line, row.cells))


def distinct_names(images: Sequence[Path]) -> list[str]:
    """Name images after their files, and after as many of the folders above these as tell all apart."""
    folders = [Path(os.path.normpath(image)).parts[1:-1] for image in images]
    for depth in range(max(map(len, folders), default=0) + 1):
        names = [
            "-".join((*above[max(0, len(above) - depth) :], identifier_of(image)))
            for image, above in zip(images, folders, strict=True)
        ]
        if len(set(names)) == len(names):
            break
    return names


def read_csv(path: Path, columns: Sequence[str]) -> TextTable:
    """Read the CSV of a dataset.

    Args:
        path: The CSV.
        columns: Columns that the caller knows, by which the separator is recognised.

    Raises:
        DatasetError: It is no CSV, or cannot be read.
    """
    try:
        return read_table(path.read_bytes(), columns)
    except FormatError as error:
        raise DatasetError(f"{path} cannot be read as a CSV: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as a CSV: {error.strerror}") from error


def _check_columns(path: Path, table: TextTable, on_note: Callable[[str], None]) -> None:
    """Check that a list names images and masks, and no patients in a column that would not be read.

    Raises:
        DatasetError: It does not.
    """
    columns = table.columns
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise DatasetError(
            f"{path} has the columns {', '.join(columns) or 'none'}: expected image,mask and, if known, patient; "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    others = [name for name in columns if name not in COLUMNS]
    patients = next((name for name in others if _PERSON.search(name)), None)
    if patients and all(is_unknown(row.cells.get("patient", "")) for row in table.rows):
        raise DatasetError(
            f"{path} has the column {patients}: call it patient, so that no patient is in two parts of a split"
        )
    if others:
        on_note(f"{path}: not read: column{'s' if len(others) > 1 else ''} {', '.join(others)}")


def _file(path: Path, line: int, column: str, cells: Mapping[str, str]) -> Path:
    """Return the file that a cell names.

    Raises:
        DatasetError: The cell is empty, or names no file.
    """
    cell = cells[column].strip("'\"“”„‘’«»")
    if not cell:
        raise DatasetError(f"{path}, line {line}: no {column} is named: fill it in, or remove the row")
    try:
        file = path_of_cell(path.parent, cell)
    except FormatError as error:
        raise DatasetError(f"{path}, line {line}, {column}: {error}") from error
    if not file.is_file():
        if _OTHER_COMPUTER.match(cell) and not Path(cell).is_absolute():
            raise DatasetError(
                f"{path}, line {line}: {cell} is a path of a computer with Windows: write it as this one names the "
                "file, best from the folder of the CSV"
            )
        raise DatasetError(f"{path}, line {line}: {file} is no file; {_advice_on(file)}")
    return file


def _advice_on(file: Path) -> str:
    """Say what may be meant by a path that is no file."""
    if file.is_dir():
        return "it is a folder: convert a DICOM series to NIfTI, such as with dcm2niix, and name the file"
    try:
        names = sorted(other.name for other in file.parent.iterdir() if other.is_file())
    except OSError:
        return "paths are relative to the CSV"
    alike = [name for name in names if identifier_of(Path(name)).lower() == identifier_of(file).lower()]
    return f"there is {alike[0]}" if alike else "paths are relative to the CSV"


def _check_repeats(
    path: Path, rows: Sequence[TableRow], files: Sequence[tuple[Path, Path]], on_note: Callable[[str], None]
) -> None:
    """Refuse an image that two rows name, and note a mask that rows of different images do.

    Raises:
        DatasetError: Two rows name one image.
    """
    for column, place in (("image", 0), ("mask", 1)):
        lines: dict[Path, list[int]] = {}
        for row, pair in zip(rows, files, strict=True):
            lines.setdefault(pair[place], []).append(row.line)
        repeated = next(((file, found) for file, found in lines.items() if len(found) > 1), None)
        if repeated is None:
            continue
        text = f"lines {repeated[1][0]} and {repeated[1][1]} name one {column}, {repeated[0]}"
        if column == "image":
            raise DatasetError(f"{path}: {text}: remove one of them")
        on_note(f"{path}: {text}, for different images: check that it is the mask of both")


def _remaining_cells(path: Path, line: int, cells: Mapping[str, str]) -> tuple[bool, MaskLabels | None]:
    """Return whether the slices of a case are unrelated, and its labels.

    Raises:
        DatasetError: A cell has another form.
    """
    unrelated = cells.get("unrelated_slices", "").lower()
    if unrelated not in (*_YES, *_NO):
        raise DatasetError(f"{path}, line {line}: unrelated_slices is {unrelated!r}: expected yes or no")
    try:
        labels = parse_labels([cells["labels"]], f"{path}, line {line}") if cells.get("labels") else None
    except ConfigError as error:
        raise DatasetError(str(error)) from error
    return unrelated in _YES, labels
