"""The scans that a batch finds, and their names."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from groundglass.apps.batch.items import BatchItem, deidentify_message, find_items, select_shard
from groundglass.errors import FormatError, InputError
from groundglass.files import write_atomic
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.scan.scan import Scan
from helpers.deep_folders import make_deep, remove_deep
from helpers.dicom_phantom import write_series


@pytest.fixture(scope="module")
def small_scan() -> Scan:
    return chest_phantom(shape=(8, 40, 48)).scan


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder: Path, source: object = None) -> list[str]:
    return [item.relative_path for item in find_items(str(folder if source is None else source))]


def write_list(folder: Path, *rows: tuple[str, ...]) -> Path:
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "list.csv"


def test_each_volume_and_each_folder_of_slices_in_a_folder_is_an_item(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.MHA", "deep/er/c.nrrd", "packed.zip", "notes.txt", "list.csv", ".hidden.nii")
    touch(tmp_path, "series/1.dcm", "series/2.dcm", "series/part/3.dcm", "pictures/1.png", ".hidden/d.nii")
    touch(tmp_path, "done/findings.json", "done/lesions.nii.gz")
    assert found(tmp_path) == ["a.nii.gz", "b.MHA", "packed.zip", "deep/er/c.nrrd", "pictures", "series"]


def test_slices_without_a_suffix_are_recognised_and_slices_beside_volumes_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "bare/DICOMDIR", "both/ct.nii", "both/slice.png")
    (tmp_path / "bare/IM1").write_bytes(bytes(128) + b"DICM")
    Image.new("L", (20, 20)).save(tmp_path / "drawn", "PNG")
    assert found(tmp_path) == [".", "bare", "both/ct.nii"]
    (tmp_path / "drawn").unlink()
    assert found(tmp_path) == ["bare", "both/ct.nii"]


def test_a_folder_that_links_lead_to_twice_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.nii", "in/b.nii")
    (tmp_path / "in/there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/back").symlink_to(tmp_path / "in")
    assert found(tmp_path / "in") == ["b.nii", "there/a.nii"]


def test_each_match_of_a_glob_is_an_item(tmp_path: Path) -> None:
    touch(tmp_path, "p1/ct.nii", "p2/ct.nii", "p2/other.nii", "p3/series/1.dcm")
    assert found(tmp_path, tmp_path / "*/ct.nii") == ["p1/ct.nii", "p2/ct.nii"]
    assert found(tmp_path, tmp_path / "p3/*") == ["series"]
    assert found(tmp_path, tmp_path / "**/*.nii") == ["p1/ct.nii", "p2/ct.nii", "p2/other.nii"]


def test_a_csv_lists_paths_relative_to_its_folder_and_may_name_the_items(tmp_path: Path) -> None:
    touch(tmp_path, "one/ct.nii", "two/ct.nii")
    table = write_list(tmp_path, ("case", "scan", "age"), ("first", "one/ct.nii", "5"), ("", str(tmp_path / "two"), ""))
    first, second = find_items(str(table))
    assert (first.name, first.named_by_user, first.source) == ("first", True, tmp_path / "one/ct.nii")
    assert (second.named_by_user, second.source, second.relative_path) == (False, tmp_path / "two", "two")
    assert second.name == find_items(str(tmp_path / "tw*"))[0].name  # the name is a hash of the relative path alone


def test_a_csv_may_come_from_a_spreadsheet_and_keeps_the_names_of_its_cases(tmp_path: Path) -> None:
    touch(tmp_path, "one/ct.nii", "two/ct.nii")
    notes: list[str] = []
    for text in (
        b"case , scan \n first , one/ct.nii \n second,two/ct.nii\n",
        b"Scan;Case;Age\r\none\\ct.nii;first;45,5\r\ntwo\\ct.nii;second;\r\n;;\r\n",
        "\ufeffcase\tscan\nfirst\tone/ct.nii\nsecond\ttwo/ct.nii\n".encode("utf-16"),
    ):
        (tmp_path / "list.csv").write_bytes(text)
        items = find_items(str(tmp_path / "list.csv"), on_note=notes.append)
        assert [(item.name, item.relative_path) for item in items] == [
            ("first", "one/ct.nii"),
            ("second", "two/ct.nii"),
        ]
    assert notes == []
    (tmp_path / "list.csv").write_bytes("case;scan\nJosé;one/ct.nii\n".encode("cp1252"))
    (item,) = find_items(str(tmp_path / "list.csv"), on_note=notes.append)
    assert item.name == "José"
    assert notes == ["the CSV: it is not UTF-8: its letters were read as those of Windows-1252"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.csv", "case,scan\n患者,a.nii\n".encode("cp932"), "the CSV cannot be read: its characters are neither"),
        ("list.xlsx", b"PK\x03\x04", "the CSV cannot be read: it is an Excel or OpenDocument workbook"),
        (
            "list.csv",
            b"name;path\na;b\n",
            "has the columns name, path, expected scan and optionally case: scan is missing",
        ),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_with_the_way_to_fix_it(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        find_items(str(tmp_path / name))


def test_a_csv_may_name_scans_by_address_and_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were rows without a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "a scan.nii", "b.nii")
    table = write_list(tmp_path, ("scan",), (f"file://{tmp_path}/a%20scan.nii",), ("~/b.nii",))
    assert [item.source for item in find_items(str(table))] == [tmp_path / "a scan.nii", tmp_path / "b.nii"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("path",), ("a.nii",)], "has the columns path, expected scan"),
        ([], "columns none"),
        ([("scan",)], "no scan was found"),
        ([("scan", "case"), ("a.nii", "x"), ("", "y")], "row 3 of the CSV names no scan"),
        ([("scan",), ("a.nii",), ("./a.nii",)], "row 3 of the CSV names the scan of an earlier row"),
        ([("scan", "case"), ("a.nii", "x"), ("b.nii", "X")], "row 3 of the CSV has a case name that is in use"),
        ([("scan", "case"), ("a.nii", "../x")], "no valid folder name"),
        ([("scan", "case"), ("a.nii", "患" * 67)], "no valid folder name"),  # 201 bytes
        ([("scan", "case"), ("a.nii", "records")], "in use"),
        ([("scan",), ("https://host/a.nii",)], "row 2 of the CSV: an address of the network is given for a path"),
        ([("scan",), ("${DATA}/a.nii",)], "row 2 of the CSV: a path names a variable of the environment"),
    ],
)
def test_a_malformed_csv_is_refused_with_the_row_and_the_reason(
    rows: list[tuple[str, ...]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        find_items(str(write_list(tmp_path, *rows)))


@pytest.mark.parametrize("name", ["empty", "nowhere", "*.nii"])
def test_a_source_without_scans_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no scan was found, expected"):
        find_items(str(tmp_path / name))


def test_pseudonyms_reveal_nothing_and_do_not_change_when_files_are_added(tmp_path: Path) -> None:
    touch(tmp_path, "Doe_Jane/ct.nii.gz")
    (before,) = find_items(str(tmp_path), pseudonyms=True)
    touch(tmp_path, "Abe/ct.nii.gz", "Zoe/ct.nii.gz")
    assert before in find_items(str(tmp_path), pseudonyms=True)
    assert len(before.name) == 12
    assert set(before.name) <= set("0123456789abcdef")
    assert "Doe" not in repr(before)


def test_names_are_those_of_the_files_and_unique(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Doe Jane/ct.nii.gz",
        "Doe_Jane/ct.nii.gz",
        "Doe_Jane/ct.nii",
        "series/1.dcm",
        "records.nii",
        "a/b.nii",
    )
    names = [item.name for item in find_items(str(tmp_path))]
    alike = [name for name in names if name.startswith("Doe_Jane__ct-")]
    assert len(set(alike)) == 3
    (reserved,) = [name for name in names if name.startswith("records-")]
    assert sorted(names) == sorted([*alike, reserved, "a__b", "series"])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_the_shards_of_a_batch_hold_each_item_once(count: int) -> None:
    items = tuple(BatchItem(str(i), Path(str(i)), str(i)) for i in range(10))
    shards = [select_shard(items, (number, count)) for number in range(1, count + 1)]
    assert sorted(item.name for shard in shards for item in shard) == sorted(item.name for item in items)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_fingerprint_changes_with_sizes_and_times_and_not_with_the_folder_above(tmp_path: Path) -> None:
    touch(tmp_path, "a/series/1.dcm", "a/series/2.dcm")
    (before,) = find_items(str(tmp_path / "a"))
    fingerprints = [before.fingerprint]
    os.utime(before.source / "1.dcm", (1, 1))
    fingerprints.append(before.fingerprint)
    touch(tmp_path, "a/series/3.dcm")
    fingerprints.append(before.fingerprint)
    assert len(set(fingerprints)) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    (after,) = find_items(str(tmp_path / "moved"))
    assert after.fingerprint == fingerprints[-1] != before.fingerprint


@pytest.mark.parametrize("header", ["ct.mhd", "ct.nhdr"])
def test_voxels_beside_a_header_are_no_item_and_change_its_fingerprint(tmp_path: Path, header: str) -> None:
    touch(tmp_path, header, "ct.raw")
    (item,) = find_items(str(tmp_path))
    assert item.name == "ct"
    before = item.fingerprint
    os.utime(tmp_path / "ct.raw", (1, 1))
    assert item.fingerprint != before


def test_a_deidentified_message_holds_no_name_of_the_source_or_the_folders_above(tmp_path: Path) -> None:
    touch(tmp_path, "Doe_Jane/study/Doe-1.png")
    item = BatchItem("x", tmp_path / "Doe_Jane", "Doe_Jane")
    for text in (
        f"{item.source} is bad",
        f"{item.source}/study/Doe-1.png is bad",
        "Doe_Jane holds nothing",
        "doe-1.png, Doe-1: damaged",
        str(tmp_path),
    ):
        message = deidentify_message(text, item)
        assert "doe" not in message.casefold()
        assert str(tmp_path) not in message
    assert deidentify_message("2 x 3 of 16 pixels, expected more", item) == "2 x 3 of 16 pixels, expected more"


def spread(scan: Scan, folder: Path, place: Callable[[int], str], **changes: Any) -> list[Path]:
    """Write a series and move each slice into the folder that `place` names for its number."""
    moved = []
    for number, path in enumerate(write_series(scan, folder / "tmp", **changes)):
        target = folder / place(number) / f"{number}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        moved.append(path.rename(target))
    (folder / "tmp").rmdir()
    return moved


def numbers_of(source: Path, notes: list[str] | None = None) -> list[str]:
    collected: list[str] = [] if notes is None else notes
    return [item.relative_path for item in find_items(str(source), on_note=collected.append)]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (lambda n: f"a/{n}", ["a"]),
        (lambda n: f"{n}", ["."]),
        (lambda n: f"a/b/{n}/c", ["a/b"]),
        (lambda n: f"a/{n // 4}", ["a"]),  # halves
        (lambda n: f"a/{n % 2}", ["a"]),  # every second slice
        (lambda n: f"a/{n // 4}/{n % 4}", ["a"]),
        (lambda n: "a/first" if n == 0 else "a/others", ["a"]),
    ],
    ids=["one each", "in the source", "deeper", "halves", "every second", "halves of one each", "one apart"],
)
def test_a_series_whose_slices_lie_in_several_folders_is_one_scan(
    small_scan: Scan, tmp_path: Path, place: Callable[[int], str], expected: list[str]
) -> None:
    spread(small_scan, tmp_path, place)
    notes: list[str] = []
    assert numbers_of(tmp_path, notes) == expected
    assert notes == [
        "1 folder holds a series whose slices lie in several folders: each such folder is read as one scan"
    ]
    assert np.array_equal(read_scan(tmp_path / expected[0]).values, small_scan.values)


def test_each_patient_with_slices_in_folders_of_their_own_is_a_scan(small_scan: Scan, tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        spread(small_scan, tmp_path / patient, str, PatientID=patient)
    notes: list[str] = []
    assert numbers_of(tmp_path, notes) == ["p1", "p2"]
    assert notes[0].startswith("2 folders hold a series each whose slices lie in several folders")


def test_slices_with_a_series_and_a_folder_each_are_one_scan(small_scan: Scan, tmp_path: Path) -> None:
    for number, path in enumerate(spread(small_scan, tmp_path, str)):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = f"1.2.{number}"
        data.save_as(path)
    assert numbers_of(tmp_path) == ["."]
    assert np.array_equal(read_scan(tmp_path).values, small_scan.values)


def test_a_gap_in_slices_with_a_folder_each_is_left_to_the_reader(small_scan: Scan, tmp_path: Path) -> None:
    spread(small_scan, tmp_path, str)[3].unlink()
    assert numbers_of(tmp_path) == ["."]
    with pytest.raises(FormatError, match="lacks 1 slice"):
        read_scan(tmp_path)


@pytest.mark.parametrize("patient", ["same", "own"])
def test_series_with_a_folder_each_stay_scans_of_their_own(small_scan: Scan, tmp_path: Path, patient: str) -> None:
    """Also where an anonymiser gave all patients the same UIDs, and where a series was copied."""
    uid = {"SeriesInstanceUID": "1.2.3"} if patient == "same" else {}
    for name in ("p1", "p2", "p3"):
        identity = {"PatientID": "ANON" if patient == "same" else name, "StudyInstanceUID": "1.2.9"}
        write_series(small_scan, tmp_path / name / "series", **identity, **uid)
    shutil.copytree(tmp_path / "p1" / "series", tmp_path / "p1" / "again")
    notes: list[str] = []
    assert numbers_of(tmp_path, notes) == ["p1/again", "p1/series", "p2/series", "p3/series"]
    assert notes == []


def test_a_whole_series_beside_the_folders_of_another_stays_a_scan(small_scan: Scan, tmp_path: Path) -> None:
    spread(small_scan, tmp_path, str, ConvolutionKernel="LUNG", SeriesNumber=1)
    write_series(small_scan, tmp_path / "whole", ConvolutionKernel="SOFT", SeriesNumber=2)
    assert numbers_of(tmp_path) == [".", "whole"]


def test_a_series_in_folders_beside_a_whole_one_that_ranks_higher_is_one_scan_and_is_read(
    small_scan: Scan, tmp_path: Path
) -> None:
    spread(small_scan, tmp_path, str, ConvolutionKernel="SOFT", SeriesNumber=2)
    other = Scan(small_scan.values + 100, small_scan.geometry)
    write_series(other, tmp_path / "whole", ConvolutionKernel="LUNG", SeriesNumber=1)
    in_folders, whole = find_items(str(tmp_path))
    assert (in_folders.relative_path, whole.relative_path) == (".", "whole")
    assert np.array_equal(read_scan(in_folders.source, in_folders.series).values, small_scan.values)
    assert np.array_equal(read_scan(whole.source, whole.series).values, other.values)


def test_a_volume_beside_the_folders_of_a_series_stays_a_scan(small_scan: Scan, tmp_path: Path) -> None:
    spread(small_scan, tmp_path, str)
    touch(tmp_path, "0.nii.gz", "pictures/1.png")
    assert numbers_of(tmp_path) == ["0.nii.gz", ".", "pictures"]


@pytest.mark.parametrize("beside", ["mask.nii.gz", "scan.zip", "below/ct.nii.gz"])
def test_dicom_beside_a_volume_and_above_one_stays_a_scan(small_scan: Scan, tmp_path: Path, beside: str) -> None:
    """It was left out without a word where a volume lay beside it, and a volume below it was."""
    write_series(small_scan, tmp_path / "p1")
    touch(tmp_path / "p1", beside)
    assert sorted(numbers_of(tmp_path)) == ["p1", f"p1/{beside}"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_dicom_files_above_the_folders_of_patients_do_not_swallow_these(
    small_scan: Scan, tmp_path: Path, count: int
) -> None:
    """The whole tree was one scan, of one of the patients."""
    for name in ("p1", "p2"):
        other = Scan(small_scan.values + len(name), small_scan.geometry)
        write_series(other, tmp_path / name / "series", PatientID=name)
    for path in write_series(small_scan, tmp_path / "tmp", PatientID="stray", ConvolutionKernel="SOFT")[:count]:
        path.rename(tmp_path / path.name)
    shutil.rmtree(tmp_path / "tmp")
    own, *patients = find_items(str(tmp_path))
    assert [item.relative_path for item in patients] == ["p1/series", "p2/series"]
    assert read_scan(own.source, own.series).values.shape[0] == count


def test_dicom_below_the_dicom_of_its_study_is_of_that_scan(small_scan: Scan, tmp_path: Path) -> None:
    files = write_series(small_scan, tmp_path / "p1", StudyInstanceUID="1.2.9")
    (tmp_path / "p1" / "more").mkdir()
    files[0].rename(tmp_path / "p1" / "more" / files[0].name)
    assert numbers_of(tmp_path) == ["p1"]
    assert np.array_equal(read_scan(tmp_path / "p1").values, small_scan.values)


@pytest.mark.thorough
def test_a_tree_deeper_than_python_can_recurse_is_a_row_that_says_so(tmp_path: Path) -> None:
    make_deep(tmp_path, 1500)
    (item,) = find_items(str(tmp_path))
    assert item.fingerprint
    with pytest.raises(FormatError, match="holds no DICOM"):
        read_scan(item.source)
    remove_deep(tmp_path)


@pytest.mark.parametrize("letter", ["患", "𠮷", "Ж"])
def test_long_names_in_any_script_leave_room_for_those_of_the_files_made_of_them(tmp_path: Path, letter: str) -> None:
    for number in range(2):
        path = tmp_path / "in" / (letter * 50) / (letter * 40 + str(number)) / "ct.nii"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    items = find_items(str(tmp_path / "in"))
    assert len({item.name for item in items}) == 2
    for item in items:
        assert item.name.startswith(letter * 40)
        write_atomic(tmp_path / "records" / f"{item.name}.json", b"")  # the longest name of a file


def test_a_listed_link_in_a_circle_is_a_scan_that_cannot_be_read_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "circle.nii").symlink_to("circle.nii")
    (tmp_path / "list.csv").write_text("scan\ncircle.nii\nct.nii\n")
    assert [item.relative_path for item in find_items(str(tmp_path / "list.csv"))] == ["circle.nii", "ct.nii"]
