"""The scans that a batch finds, and their names."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

from groundglass.apps.batch.items import BatchItem, deidentify_message, find_items, select_shard
from groundglass.errors import InputError


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
        ([("scan", "case"), ("a.nii", "records")], "in use"),
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


def test_hashed_names_reveal_nothing_and_do_not_change_when_files_are_added(tmp_path: Path) -> None:
    touch(tmp_path, "Doe_Jane/ct.nii.gz")
    (before,) = find_items(str(tmp_path))
    touch(tmp_path, "Abe/ct.nii.gz", "Zoe/ct.nii.gz")
    assert before in find_items(str(tmp_path))
    assert len(before.name) == 12
    assert set(before.name) <= set("0123456789abcdef")
    assert "Doe" not in repr(before)


def test_with_identity_names_are_readable_and_unique(tmp_path: Path) -> None:
    touch(tmp_path, "Doe Jane/ct.nii.gz", "Doe_Jane/ct.nii.gz", "Doe_Jane/ct.nii", "series/1.dcm")
    names = [item.name for item in find_items(str(tmp_path), with_identity=True)]
    assert [name[:-7] for name in names] == ["Doe_Jane__ct"] * 3 + ["series"]
    assert len(set(names)) == 4


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
