"""Lists of patients: which cases of a dataset are of one patient, where its layout does not tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from groundglass.data.case import Case
from groundglass.data.case_list import read_csv
from groundglass.data.patient_names import is_unknown, same_patients
from groundglass.errors import DatasetError

CASE_COLUMNS, PATIENT_COLUMNS = ("name", "slice", "image"), ("patient", "case")


def with_stated_patients(
    cases: Sequence[Case], path: Path, on_note: Callable[[str], None] = lambda _: None
) -> tuple[Case, ...]:
    """Return the cases with the patients that a CSV states for some of them.

    Args:
        cases: The cases of datasets.
        path: A CSV with a column `name` (or `slice`, `image`), which holds a case's name with or without its source,
            and a column `patient` (or `case`); where that is empty, the patient stays as it was.
        on_note: Called with what was assumed.

    Raises:
        DatasetError: The file is no such CSV, or names no case.
    """
    table = read_csv(path, (*CASE_COLUMNS, *PATIENT_COLUMNS))
    name, patient = (
        next((column for column in wanted if column in table.columns), None)
        for wanted in (CASE_COLUMNS, PATIENT_COLUMNS)
    )
    if name is None or patient is None:
        raise DatasetError(
            f"{path} has the columns {', '.join(table.columns) or 'none'}: expected name,patient, a row for each case"
        )
    patient_of = same_patients((row.cells[patient] for row in table.rows), lambda text: on_note(f"{path}: {text}"))
    stated = {
        row.cells[name]: patient_of[row.cells[patient]] for row in table.rows if not is_unknown(row.cells[patient])
    }
    named = [stated.get(case.name) or stated.get(case.name.partition("/")[2]) for case in cases]
    if not any(named):
        raise DatasetError(
            f"{path} names none of the {len(cases)} cases: expected names such as {cases[0].name} in the column {name}"
        )
    return tuple(
        replace(case, patient=f"{case.source}/{one}") if one else case for case, one in zip(cases, named, strict=True)
    )
