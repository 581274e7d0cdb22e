"""Patients that a list states."""

from pathlib import Path

import pytest

from groundglass.data.case import Case
from groundglass.data.patients import with_stated_patients
from groundglass.errors import DatasetError


def cases() -> tuple[Case, ...]:
    names = ("slices/000", "slices/001", "slices/002", "volumes/1")
    return tuple(Case(name, name, Path(f"{name}.png"), Path(f"{name}-mask.png")) for name in names)


def write(folder: Path, text: str) -> Path:
    path = folder / "patients.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", ["slice,case", "name,patient", "Image;Patient"])
def test_cases_of_one_patient_are_joined_and_the_others_stay(tmp_path: Path, header: str) -> None:
    rows = ["000,p7", "001,p7", "002,"]
    text = "\n".join([header, *(row.replace(",", ";") if ";" in header else row for row in rows)])
    found = with_stated_patients(cases(), write(tmp_path, text))
    assert [case.patient for case in found] == ["slices/p7", "slices/p7", "slices/002", "volumes/1"]


def test_names_may_have_their_source(tmp_path: Path) -> None:
    found = with_stated_patients(cases(), write(tmp_path, "name,patient\nslices/002,a\nvolumes/1,a\n"))
    assert [case.patient for case in found[2:]] == ["slices/a", "volumes/a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slice,age\n000,50\n", "expected name,patient"),
        ("name,patient\nother,1\n", "names none of the 4 cases: expected names such as slices/000"),
        ("", "has the columns none"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        with_stated_patients(cases(), write(tmp_path, text))


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read as a CSV: No such file"):
        with_stated_patients(cases(), tmp_path / "none.csv")


def test_patients_that_a_spreadsheet_wrote_in_two_ways_are_one(tmp_path: Path) -> None:
    notes: list[str] = []
    found = with_stated_patients(cases(), write(tmp_path, "name,patient\n000,007\n001,7\n002,8"), notes.append)
    assert [case.patient for case in found[:3]] == ["slices/007", "slices/007", "slices/8"]
    assert notes == [f"{tmp_path / 'patients.csv'}: taken for one patient each: 7 and 007"]


def test_a_name_of_two_sources_is_that_of_the_source_with_most_of_the_names(tmp_path: Path) -> None:
    scans = tuple(Case(f"coronacases/{n}", f"coronacases/{n}", Path(n), Path(n)) for n in ("000", "001"))
    notes: list[str] = []
    path = write(tmp_path, "slice,case\n000,p7\n001,p7\n002,\n")
    found = with_stated_patients((*cases(), *scans), path, notes.append)
    assert [case.patient for case in found[:2]] == ["slices/p7", "slices/p7"]
    assert [case.patient for case in found[-2:]] == ["coronacases/000", "coronacases/001"]
    assert notes == [
        f"{path}: names of cases of several sources (000, 001) are taken for those of slices, which has most of the "
        "names; for others write the source in front"
    ]


def test_a_name_that_may_be_of_two_sources_alike_is_refused(tmp_path: Path) -> None:
    scan = Case("coronacases/000", "coronacases/000", Path("a"), Path("b"))
    with pytest.raises(DatasetError, match="may be slices/000 or coronacases/000: write the source in front"):
        with_stated_patients((*cases(), scan), write(tmp_path, "slice,case\n000,p7\n"))


def test_rows_that_name_no_case_are_noted(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path, "name,patient\n000,a\n1,a\n2,a\n")  # a spreadsheet took the zeros in front
    with_stated_patients(cases()[:3], path, notes.append)
    assert notes == [
        f"{path}: 2 of 3 rows name no case, and are not read: 1, 2; check that the names are those of the cases"
    ]


def test_two_patients_of_one_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 3: 000 is of b, and above of a: state one patient for it"):
        with_stated_patients(cases(), write(tmp_path, "name,patient\n000,a\n000,b\n"))
