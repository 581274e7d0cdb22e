from pathlib import Path

import pytest

from groundglass.data.catalogue import find_cases, find_cases_with_notes, select
from groundglass.errors import DatasetError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_layouts_are_found_below_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "medseg/dataset1/images/010.png", "medseg/dataset1/masks/010.png")
    touch(tmp_path, "medseg/dataset2/rp_im/2.nii.gz", "medseg/dataset2/rp_msk/2.nii.gz")
    touch(tmp_path, "coronacases/ct/001.nii.gz", "coronacases/lesion/001.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["coronacases/001", "slices/010", "volumes/2"]


def test_medseg_as_published_is_a_stack_and_nine_volumes(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz")
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk", "rp_lung_msk") for n in range(1, 10)))
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["stack/tr", *(f"volumes/{n}" for n in range(1, 10))]
    assert [case.unrelated_slices for case in cases] == [True] + [False] * 9


def test_volumes_2_and_3_and_volumes_6_and_7_are_one_patient_each(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk") for n in range(1, 10)))
    patient = {case.name: case.patient for case in find_cases(tmp_path)}
    assert patient["volumes/2"] == patient["volumes/3"]
    assert patient["volumes/6"] == patient["volumes/7"]
    assert len(set(patient.values())) == 7


def test_pictures_2_and_3_are_different_patients_unlike_volumes_2_and_3(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.png" for folder in ("images", "masks") for n in (2, 3)))
    assert len({case.patient for case in find_cases(tmp_path)}) == 2


def test_pairs_are_found_in_folders_of_images_and_masks_in_nnunet_folders_and_by_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a/images/p 1.nii.gz", "a/masks/p 1.nii.gz")
    touch(tmp_path, "b/imagesTr/case_7_0000.nii.gz", "b/labelsTr/case_7.nii.gz")
    touch(tmp_path, "c/x.mha", "c/x_mask.mha", "c/y.png", "c/y-seg.png", "c/without_mask.png")
    cases = {case.name: (case.image.name, case.mask.name) for case in find_cases(tmp_path)}
    assert cases == {
        "pairs/p 1": ("p 1.nii.gz", "p 1.nii.gz"),
        "pairs/case_7": ("case_7_0000.nii.gz", "case_7.nii.gz"),
        "pairs/x": ("x.mha", "x_mask.mha"),
        "pairs/y": ("y.png", "y-seg.png"),
    }


def test_a_list_names_image_mask_and_patient(tmp_path: Path) -> None:
    touch(tmp_path, "ct/one.nii.gz", "ct/two.nii.gz", "ct/three.nii.gz", "truth/1.nii.gz")
    rows = ("image,mask,patient", "ct/one.nii.gz,truth/1.nii.gz,7", "ct/two.nii.gz,truth/1.nii.gz,7")
    (tmp_path / "mine.csv").write_text("\n".join([*rows, "ct/three.nii.gz,truth/1.nii.gz,"]))
    cases = find_cases(tmp_path / "mine.csv")
    assert [(case.name, case.patient) for case in cases] == [
        ("mine/one", "mine/7"),
        ("mine/two", "mine/7"),
        ("mine/three", "mine/three"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,truth\na,b\n", "has the columns picture, truth: expected image,mask and"),
        ("Image;Truth\na;b\n", "has the columns image, truth: expected image,mask and.*; mask is missing"),
        ("image,mask,patient_id\na,b,1\n", "has the column patient_id: call it patient, so that no patient is in two"),
        *(
            (f"image,mask,{name}\na,b,1\n", f"has the column {name}: call it patient")
            for name in ("participant_id", "pid", "mrn", "pat. nr", "subject", "proband", "患者id")
        ),
        ("image,mask,patient,patient_id\na,b,,1\n", "has the column patient_id: call it patient"),
        ("image,mask\n$DATA/a.nii,b\n", "line 2, image: a path names a variable of the environment"),
        ("image,mask\nlist.csv,%DATA%\\b.nii\n", "line 2, mask: a path names a variable of the environment"),
        ("image,mask\ns3://bucket/a.nii,b\n", "line 2, image: an address of the network is given for a path"),
        ("image,mask\nlist.csv,\n", "line 2: no mask is named: fill it in, or remove the row"),
        ("image,mask\na.nii,b.nii\n", r"line 2: .*a\.nii is no file"),
        ("image,mask\n.,.\n", "line 2: .* is no file"),
        ("image,mask\n", "holds no dataset"),
        (b"\xff\xfe\x00", "cannot be read as a CSV"),
    ],
)
def test_a_csv_with_wrong_columns_or_files_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path / "list.csv")


@pytest.mark.parametrize("unknown", ["NA", "n/a", "-", "?", "unknown", "<NA>", "\u2013", "unbekannt"])
def test_rows_without_a_known_patient_are_patients_of_their_own(tmp_path: Path, unknown: str) -> None:
    """All of them were one patient."""
    touch(tmp_path, "a.nii", "b.nii", "m.nii", "n.nii")
    (tmp_path / "mine.csv").write_text(f"image,mask,patient\na.nii,m.nii,{unknown}\nb.nii,n.nii,{unknown}\n")
    assert [case.patient for case in find_cases(tmp_path / "mine.csv")] == ["mine/a", "mine/b"]


def test_a_path_may_hold_the_signs_of_a_variable(tmp_path: Path) -> None:
    touch(tmp_path, "$a.nii", "%b%.nii")
    (tmp_path / "mine.csv").write_text("image,mask\n$a.nii,%b%.nii\n")
    (case,) = find_cases(tmp_path / "mine.csv")
    assert (case.image.name, case.mask.name) == ("$a.nii", "%b%.nii")


def test_a_list_may_contain_spaces_and_equal_file_names_in_different_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"p{i}/{part}.nii.gz" for i in (1, 2) for part in ("ct", "mask")))
    rows = ("\ufeffimage, mask, patient ", "p1/ct.nii.gz, p1/mask.nii.gz, a ", "p2/ct.nii.gz,p2/mask.nii.gz,a")
    (tmp_path / "mine.csv").write_text("\n".join(rows), encoding="utf-8")
    cases = find_cases(tmp_path / "mine.csv")
    assert [(case.name, case.patient) for case in cases] == [("mine/p1-ct", "mine/a"), ("mine/p2-ct", "mine/a")]


def test_a_list_may_come_from_a_spreadsheet_of_another_system(tmp_path: Path) -> None:
    touch(tmp_path, "Müller/ct.nii", "Müller/mask.nii")
    for text in (
        "Image;Mask;Patient;Größe\r\nMüller\\ct.nii; Müller\\mask.nii ;7;1,85\r\n;;;\r\n".encode("cp1252"),
        "sep=;\nimage;mask;patient\nMüller/ct.nii;Müller/mask.nii;7".encode("utf-16"),
        'image\tmask\tpatient\n"Müller/ct.nii"\t"Müller/mask.nii"\t 7\n'.encode(),
        "image,mask,patient\nMu\u0308ller/ct.nii,Mu\u0308ller/mask.nii,7\n".encode(),  # u and its dots
    ):
        (tmp_path / "mine.csv").write_bytes(text)
        (case,) = find_cases(tmp_path / "mine.csv")
        assert (case.name, case.patient) == ("mine/ct", "mine/7")
        assert (case.image, case.mask) == (tmp_path / "Müller/ct.nii", tmp_path / "Müller/mask.nii")


def test_columns_that_are_not_read_and_guessed_letters_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "é.nii", "m.nii")
    (tmp_path / "mine.csv").write_bytes("image;mask;age\né.nii;m.nii;50,5\n".encode("cp1252"))
    notes = find_cases_with_notes([tmp_path / "mine.csv"]).notes
    assert [note.partition(": ")[2] for note in notes] == [
        "not read: column age",
        "it is not UTF-8: its letters were read as those of Windows-1252",
    ]


def test_a_list_named_like_a_public_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "volumes.csv").write_text("image,mask\n")
    with pytest.raises(DatasetError, match="has the name of a public dataset"):
        find_cases(tmp_path / "volumes.csv")


def test_a_colon_in_a_file_name_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "10:30.nii", "10:30_mask.nii")
    with pytest.raises(DatasetError, match="has a colon in its name"):
        find_cases(tmp_path)


def test_a_stack_without_its_mask_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii.gz")
    with pytest.raises(DatasetError, match=r"has no mask: expected .*tr_mask"):
        find_cases(tmp_path)


def test_two_files_of_one_case_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "ct/a.nii", "ct/a.nii.gz", "lesion/a.nii.gz")
    with pytest.raises(DatasetError, match="keep one of them"):
        find_cases(tmp_path)


def test_an_image_without_a_mask_is_refused_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "rp_im/1.nii.gz", "rp_im/2.nii.gz", "rp_msk/1.nii.gz")
    with pytest.raises(DatasetError, match=r"2\.nii\.gz has no mask: expected .*rp_msk"):
        find_cases(tmp_path)


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(DatasetError, match="holds no dataset"):
        find_cases(tmp_path)
    with pytest.raises(DatasetError, match="is no folder"):
        find_cases(tmp_path / "absent")


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        touch(tmp_path / copy, "ct/001.nii.gz", "lesion/001.nii.gz")
    with pytest.raises(
        DatasetError, match=r"two cases are called coronacases/001, .*/a/ct/001.nii.gz and .*/b/ct/001.nii.gz"
    ):
        find_cases(tmp_path)


def test_select_returns_the_cases_that_match_and_refuses_a_pattern_without_a_match(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{n}.nii.gz" for folder in ("rp_im", "rp_msk") for n in range(1, 10)))
    cases = find_cases(tmp_path)
    assert [case.name for case in select(cases, ["volumes/[45]", "volumes/8"])] == [
        "volumes/4",
        "volumes/5",
        "volumes/8",
    ]
    with pytest.raises(DatasetError, match="no case matches 'volumes/10'"):
        select(cases, ["volumes/10"])


@pytest.mark.parametrize("empty", ["", "nan", "None", "NULL", "#N/A"])
def test_a_patient_that_a_program_wrote_as_empty_is_unknown(empty: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "m.nii")
    (tmp_path / "list.csv").write_text(f"image,mask,patient\na.nii,m.nii,{empty}\nb.nii,m.nii,{empty}\n")
    assert {case.patient for case in find_cases(tmp_path / "list.csv")} == {"list/a", "list/b"}


@pytest.mark.parametrize(
    "cells",
    [
        *[("001", "1"), ("1.0", "1"), ('"1,0"', "1"), ("P01", "p01"), ('"=""007"""', "7")],
        ("M\u00fcller", "Mu\u0308ller"),
    ],
)
def test_patients_that_a_spreadsheet_wrote_in_two_ways_are_one(cells: tuple[str, str], tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "ma.nii", "mb.nii", "mc.nii")
    rows = [f"{name}.nii,m{name}.nii,{cell}" for name, cell in zip("abc", (*cells, "8"), strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask,patient", *rows]), encoding="utf-8")
    found = find_cases_with_notes([tmp_path / "list.csv"])
    first, second, other = (case.patient for case in found.cases)
    assert first == second != other
    assert len(found.notes) == 1
    assert "taken for one patient each: " in found.notes[0]


def test_patients_that_a_spreadsheet_rounded_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "m.nii", "n.nii", "o.nii")
    rows = "a.nii,m.nii,1.23E+10\nb.nii,n.nii,12300000000\nc.nii,o.nii,1.24E+10\n"
    (tmp_path / "list.csv").write_text(f"image,mask,patient\n{rows}")
    found = find_cases_with_notes([tmp_path / "list.csv"])
    first, second, other = (case.patient for case in found.cases)
    assert first == second != other
    assert any("the patient 1.23E+10 was probably rounded by a spreadsheet" in note for note in found.notes)


@pytest.mark.parametrize("cell", ["\u202aa.nii\u202c", "\u200ea.nii", "\u2066a.nii\u2069"])
def test_marks_around_a_copied_path_do_not_count(cell: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "m.nii")
    (tmp_path / "list.csv").write_text(f"image,mask\n{cell},m.nii\n", encoding="utf-8")
    assert find_cases(tmp_path / "list.csv")[0].image == tmp_path / "a.nii"


@pytest.mark.parametrize(("cell", "unrelated"), [("WAHR", True), ("y", True), ("Vrai", True), ("FALSCH", False)])
def test_yes_and_no_may_be_those_of_a_spreadsheet_in_another_language(
    cell: str, unrelated: bool, tmp_path: Path
) -> None:
    touch(tmp_path, "a.nii", "m.nii")
    (tmp_path / "list.csv").write_text(f"image;mask;unrelated_slices\na.nii;m.nii;{cell}\n", encoding="utf-8")
    assert find_cases(tmp_path / "list.csv")[0].unrelated_slices is unrelated


def test_a_home_folder_may_be_written_with_a_backslash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "home", "a.nii", "m.nii")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "list.csv").write_text("image,mask\n~\\a.nii,~/m.nii\n")
    assert find_cases(tmp_path / "list.csv")[0].image == tmp_path / "home" / "a.nii"


def test_an_image_in_two_rows_is_refused_and_a_mask_in_two_rows_is_noted(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "m.nii")
    (tmp_path / "list.csv").write_text("image,mask\na.nii,m.nii\nb.nii,m.nii\n")
    (note,) = find_cases_with_notes([tmp_path / "list.csv"]).notes
    assert note.endswith(
        f"lines 2 and 3 name one mask, {tmp_path / 'm.nii'}, for different images: check that it is the mask of both"
    )
    (tmp_path / "list.csv").write_text("image,mask\na.nii,m.nii\n\na.nii,m.nii\n")
    with pytest.raises(DatasetError, match=r"lines 2 and 4 name one image, .*a\.nii: remove one of them"):
        find_cases(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("d/a.nii", r"a\.nii is no file; there is a\.nii\.gz$"),
        ("d", "d is no file; it is a folder: convert a DICOM series to NIfTI"),
        ("d/b.nii", "is no file; paths are relative to the CSV"),
        ("~nobody-here/a.nii", "line 2, image: a path begins with no home folder, or is no address: write the whole"),
        ("C:\\data\\a.nii", r"line 2: C:.data.a\.nii is a path of a computer with Windows: write it as this one"),
        ("\\\\server\\data\\a.nii", "is a path of a computer with Windows"),
    ],
)
def test_a_path_that_is_no_file_is_refused_with_what_may_be_meant(cell: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path / "d", "a.nii.gz", "m.nii.gz")
    (tmp_path / "list.csv").write_text(f"image,mask\n{cell},d/m.nii.gz\n")
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path / "list.csv")


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "\u201c{0}\u201d", "'{0}'"])
def test_paths_may_be_whole_quoted_or_of_a_browser(form: str, tmp_path: Path) -> None:
    touch(tmp_path / "d x", "a.nii.gz", "m.nii.gz")
    cells = [
        form.format(tmp_path / "d x" / name).replace("d x", "d%20x" if "file" in form else "d x")
        for name in ("a.nii.gz", "m.nii.gz")
    ]
    (tmp_path / "list.txt").write_text(f"image,mask\n{','.join(cells)}\n", encoding="utf-8")
    (case,) = find_cases(tmp_path / "list.txt")
    assert (case.image, case.mask) == (tmp_path / "d x" / "a.nii.gz", tmp_path / "d x" / "m.nii.gz")
