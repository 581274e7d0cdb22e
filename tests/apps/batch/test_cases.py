"""Which scans a batch is made of, and what each is called."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

from groundglass.apps.batch.items import BatchItem, find_items, scrubbed, shard
from groundglass.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder: Path, source: object = None) -> list[str]:
    return [case.relative for case in find_items(str(folder if source is None else source))]


def listed(folder: Path, *rows: tuple[str, ...]) -> Path:
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "list.csv"


def test_of_a_folder_each_volume_and_each_folder_of_slices_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.MHA", "deep/er/c.nrrd", "packed.zip", "notes.txt", "list.csv", ".hidden.nii")
    touch(tmp_path, "series/1.dcm", "series/2.dcm", "series/part/3.dcm", "pictures/1.png", ".hidden/d.nii")
    touch(tmp_path, "done/findings.json", "done/lesions.nii.gz")
    assert found(tmp_path) == ["a.nii.gz", "b.MHA", "packed.zip", "deep/er/c.nrrd", "pictures", "series"]


def test_slices_are_known_by_their_content_too_and_passed_over_beside_volumes(tmp_path: Path) -> None:
    touch(tmp_path, "bare/DICOMDIR", "both/ct.nii", "both/slice.png")
    (tmp_path / "bare/IM1").write_bytes(bytes(128) + b"DICM")
    Image.new("L", (20, 20)).save(tmp_path / "drawn", "PNG")
    assert found(tmp_path) == [".", "bare", "both/ct.nii"]
    (tmp_path / "drawn").unlink()
    assert found(tmp_path) == ["bare", "both/ct.nii"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.nii", "in/b.nii")
    (tmp_path / "in/there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/back").symlink_to(tmp_path / "in")
    assert found(tmp_path / "in") == ["b.nii", "there/a.nii"]


def test_of_a_glob_each_match_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "p1/ct.nii", "p2/ct.nii", "p2/other.nii", "p3/series/1.dcm")
    assert found(tmp_path, tmp_path / "*/ct.nii") == ["p1/ct.nii", "p2/ct.nii"]
    assert found(tmp_path, tmp_path / "p3/*") == ["series"]
    assert found(tmp_path, tmp_path / "**/*.nii") == ["p1/ct.nii", "p2/ct.nii", "p2/other.nii"]


def test_a_csv_names_scans_from_its_folder_and_cases_if_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "one/ct.nii", "two/ct.nii")
    table = listed(tmp_path, ("case", "scan", "age"), ("first", "one/ct.nii", "5"), ("", str(tmp_path / "two"), ""))
    first, second = find_items(str(table))
    assert (first.name, first.named, first.source) == ("first", True, tmp_path / "one/ct.nii")
    assert (second.named, second.source, second.relative) == (False, tmp_path / "two", "two")
    assert second.name == find_items(str(tmp_path / "tw*"))[0].name  # the path makes the name, not the way there


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("path",), ("a.nii",)], "has the columns path, expected scan"),
        ([], "columns none"),
        ([("scan",)], "no scan was found"),
        ([("scan", "case"), ("a.nii", "x"), ("", "y")], "row 3 of the CSV names no scan"),
        ([("scan",), ("a.nii",), ("./a.nii",)], "row 3 of the CSV names a scan that an earlier one names"),
        ([("scan", "case"), ("a.nii", "x"), ("b.nii", "X")], "row 3 of the CSV has a case name that is taken"),
        ([("scan", "case"), ("a.nii", "../x")], "no folder's name"),
        ([("scan", "case"), ("a.nii", "records")], "taken"),
    ],
)
def test_a_csv_that_is_not_as_it_should_be_is_refused(
    rows: list[tuple[str, ...]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        find_items(str(listed(tmp_path, *rows)))


@pytest.mark.parametrize("name", ["empty", "nowhere", "*.nii"])
def test_nothing_to_do_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no scan was found, expected"):
        find_items(str(tmp_path / name))


def test_names_tell_nothing_and_stay_when_files_are_added(tmp_path: Path) -> None:
    touch(tmp_path, "Doe_Jane/ct.nii.gz")
    (before,) = find_items(str(tmp_path))
    touch(tmp_path, "Abe/ct.nii.gz", "Zoe/ct.nii.gz")
    assert before in find_items(str(tmp_path))
    assert len(before.name) == 12
    assert set(before.name) <= set("0123456789abcdef")
    assert "Doe" not in repr(before)


def test_with_identity_names_are_readable_and_differ(tmp_path: Path) -> None:
    touch(tmp_path, "Doe Jane/ct.nii.gz", "Doe_Jane/ct.nii.gz", "Doe_Jane/ct.nii", "series/1.dcm")
    names = [case.name for case in find_items(str(tmp_path), with_identity=True)]
    assert [name[:-7] for name in names] == ["Doe_Jane__ct"] * 3 + ["series"]
    assert len(set(names)) == 4


@pytest.mark.parametrize("of", [1, 2, 3, 7, 12])
def test_shards_cover_all_cases_once(of: int) -> None:
    cases = tuple(BatchItem(str(i), Path(str(i)), str(i)) for i in range(10))
    parts = [shard(cases, (number, of)) for number in range(1, of + 1)]
    assert sorted(case.name for part in parts for case in part) == sorted(case.name for case in cases)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_fingerprint_changes_with_size_and_time_and_not_with_the_place(tmp_path: Path) -> None:
    touch(tmp_path, "a/series/1.dcm", "a/series/2.dcm")
    (before,) = find_items(str(tmp_path / "a"))
    seen = [before.fingerprint]
    os.utime(before.source / "1.dcm", (1, 1))
    seen.append(before.fingerprint)
    touch(tmp_path, "a/series/3.dcm")
    seen.append(before.fingerprint)
    assert len(set(seen)) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    (after,) = find_items(str(tmp_path / "moved"))
    assert after.fingerprint == seen[-1] != before.fingerprint


def test_a_reason_is_scrubbed_of_every_name_on_the_way(tmp_path: Path) -> None:
    touch(tmp_path, "Doe_Jane/study/Doe-1.png")
    case = BatchItem("x", tmp_path / "Doe_Jane", "Doe_Jane")
    for text in (
        f"{case.source} is bad",
        f"{case.source}/study/Doe-1.png is bad",
        "Doe_Jane holds nothing",
        "doe-1.png, Doe-1: damaged",
        str(tmp_path),
    ):
        told = scrubbed(text, case)
        assert "doe" not in told.casefold()
        assert str(tmp_path) not in told
    assert scrubbed("2 x 3 of 16 pixels, expected more", case) == "2 x 3 of 16 pixels, expected more"
