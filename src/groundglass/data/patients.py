"""Lists of patients: which cases of a dataset are of one patient, where its layout does not tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from groundglass.data.case import Case
from groundglass.data.case_list import read_csv
from groundglass.data.patient_names import is_unknown, same_patients
from groundglass.errors import DatasetError
from groundglass.plain_text import first_names

SHOWN_NAMES = 4  # in a note
CASE_COLUMNS, PATIENT_COLUMNS = ("name", "slice", "image"), ("patient", "case")


def with_stated_patients(
    cases: Sequence[Case], path: Path, on_note: Callable[[str], None] = lambda _: None
) -> tuple[Case, ...]:
    """Return the cases with the patients that a CSV states for some of them.

    Args:
        cases: The cases of datasets.
        path: A CSV with a column `name` (or `slice`, `image`), which holds a case's name with or without its source,
            and a column `patient` (or `case`); where that is empty, the patient stays as it was. A name without its
            source that fits cases of several is taken for that of the source that has most of the names.
        on_note: Called with what was assumed, and what was not read.

    Raises:
        DatasetError: The file is no such CSV, names no case, states two patients of one, or a name fits cases of
            several sources alike.
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
    stated: dict[str, str] = {}
    for row in table.rows:
        if not is_unknown(row.cells[patient]):
            stated_before = stated.setdefault(row.cells[name], patient_of[row.cells[patient]])
            if stated_before != patient_of[row.cells[patient]]:
                raise DatasetError(
                    f"{path}, line {row.line}: {row.cells[name]} is of {row.cells[patient]}, and above of "
                    f"{stated_before}: state one patient for it"
                )
    names = [row.cells[name] for row in table.rows if row.cells[name]]
    source_of = _sources_of_names(path, names, cases, on_note)
    named = [stated.get(case.name) or _of_identifier(case, stated, source_of) for case in cases]
    if not any(named):
        raise DatasetError(
            f"{path} names none of the {len(cases)} cases: expected names such as {cases[0].name} in the column {name}"
        )
    known = {case.name for case in cases} | source_of.keys()
    if strangers := [each for each in names if each not in known]:
        on_note(
            f"{path}: {len(strangers)} of {len(names)} rows name no case, and are not read: "
            f"{first_names(strangers, SHOWN_NAMES)}; check that the names are those of the cases"
        )
    return tuple(
        replace(case, patient=f"{case.source}/{one}") if one else case for case, one in zip(cases, named, strict=True)
    )


def _of_identifier(case: Case, stated: dict[str, str], source_of: dict[str, str]) -> str | None:
    """Return the patient that is stated for a case's name without its source; None without one."""
    identifier = case.name.partition("/")[2]
    return stated.get(identifier) if source_of.get(identifier) == case.source else None


def _sources_of_names(
    path: Path, names: Sequence[str], cases: Sequence[Case], on_note: Callable[[str], None]
) -> dict[str, str]:
    """Return the source that each name without one stands for, of the names that a case has.

    Raises:
        DatasetError: A name fits cases of several sources, of which none has more of the names.
    """
    sources: dict[str, list[str]] = {}
    for case in cases:
        sources.setdefault(case.name.partition("/")[2], []).append(case.source)
    named = Counter(source for name in names for source in sources.get(name, ()))
    found, in_several = dict[str, str](), list[str]()
    for name in dict.fromkeys(names):
        best, *others = sorted(sources.get(name, ()), key=lambda source: -named[source]) or [""]
        if others and named[best] == named[others[0]]:
            raise DatasetError(
                f"{path} names {name}, which may be {best}/{name} or {others[0]}/{name}: write the source in front"
            )
        if best:
            found[name] = best
            in_several += [name] if others else []
    if in_several:
        on_note(
            f"{path}: names of cases of several sources ({first_names(in_several, SHOWN_NAMES)}) are taken for those "
            f"of {found[in_several[0]]}, which has most of the names; for others write the source in front"
        )
    return found
