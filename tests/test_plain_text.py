"""Text from files: harmless on the terminal, in spreadsheets and in Markdown."""

import csv
import io
import os
from pathlib import Path

import pytest

from groundglass.apps.batch.items import find_items
from groundglass.apps.batch.summary import write_key
from groundglass.io import nifti
from groundglass.plain_text import inert_cell, inert_markdown, original_cell, printable
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.tables.reading import read_table
from groundglass.tables.writing import csv_text, markdown_table
from helpers.command import run_command

BLANKS = "王\u3000小东\xa0J"
FORMULAS = (
    *('=HYPERLINK("http://evil.example";"a")', "+1+2", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", " =1", "=", "-a"),
    *("--", "-1 to =2", "-1,2,=3", "\uff1d1+1", "\uff0b1+1", "\uff0d1-1", "\uff20SUM(A1)", "\ufeff=1", "\u200b=1"),
)
NUMBERS = ("-1", "+1.5", "-1e-05", "-0.5 to 3", "-0.5 to -0.2", "-inf", "-1,024")
ESCAPES = "\x1b[2J\x1b]0;title\x07\u202egnp.exe\u2028\x9b31m"


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_is_a_formula_and_it_is_read_back(text: str) -> None:
    written = csv_text([{"name": text}])
    ((cell,),) = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert cell == f"'{text}"
    assert original_cell(cell) == text
    if text.strip() == text:
        assert read_table(written.encode(), ("name",)).rows[0].cells["name"] == text


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_part_of_a_cell_is_a_formula_where_semicolons_separate_cells(formula: str) -> None:
    text = f"B60f;{formula};; {formula}"
    written = csv_text([{"name": text, "other": "x"}])
    ((cell, _),) = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert original_cell(cell) == text
    parts = written.splitlines()[1].split(";")  # as a spreadsheet of another language reads it
    assert len(parts) >= 4
    assert not any(part.strip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20\ufeff\u200b")) for part in parts)


@pytest.mark.parametrize("text", ["a; b", "warned; 3 slices; -; x", ";;;", "a;'b", "lung; 0 to -3"])
def test_semicolons_of_other_texts_are_read_back(text: str) -> None:
    assert original_cell(str(inert_cell(text))) == text


def test_no_cell_begins_a_row() -> None:
    assert csv_text([{"name": "a\r=1+1", "other": "b\n=2"}]) == "name,other\na =1+1,b =2\n"
    assert csv_text([{"name": "\t=1"}]) == "name\n' =1\n"


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x202E, 0x2028, 0x2066])
def test_a_csv_holds_no_control_character_but_the_ends_of_its_lines(number: int) -> None:
    written = csv_text([{"case": f"a{chr(number)}b", "reason": f"{chr(number)}[2J"}])
    assert written.count("\n") == 2
    assert chr(number) not in written.replace("\n", "")
    assert "[2J" in written


def test_other_letters_and_blanks_of_a_cell_are_kept() -> None:
    assert inert_cell("Müller\xa0王 é") == "Müller\xa0王 é"


@pytest.mark.parametrize("value", [*NUMBERS, "a=1", "'", "'a", "", None, -1, -1.5, True])
def test_numbers_and_other_cells_are_written_as_they_are(value: object) -> None:
    assert inert_cell(value) == value
    assert original_cell(str(value)) == str(value)


def test_the_key_of_a_batch_names_the_scans_as_they_are_called(phantom: Phantom, tmp_path: Path) -> None:
    name = "=HYPERLINK(1).nii.gz"
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    nifti.write_scan(phantom.scan, tmp_path / "in" / name)
    previous = Path.cwd()
    os.chdir(tmp_path / "in")
    try:
        items = find_items(name)
    finally:
        os.chdir(previous)
    for _ in range(2):  # the second time, the key is read and completed
        write_key(items, tmp_path / "out")
    ((_, scan),) = list(csv.reader(io.StringIO((tmp_path / "out" / "key.csv").read_text())))[1:]
    assert original_cell(scan) == str(items[0].source)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("[a](http://evil.example)", r"[a]\(http://evil.example)"),
        ("![a](http://evil.example)", r"![a]\(http://evil.example)"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("[a\\](b)", r"[a\\]\(b)"),
        ("\\<b>", r"\\&lt;b>"),
        ("a\n\n# b", "a??# b"),
        ("0.71 [0.6, 0.8]", "0.71 [0.6, 0.8]"),
        ("< 0.1", "< 0.1"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert inert_markdown(text) == shown
    assert list(markdown_table(["a"], [[text]]))[-1] == f"| {shown} |"


def test_nothing_that_a_terminal_obeys_is_printable() -> None:
    shown = printable(ESCAPES)
    assert shown.isprintable()
    assert len(shown) == len(ESCAPES)
    assert printable("Müller 王 é") == "Müller 王 é"
    assert printable(BLANKS) == BLANKS


@pytest.mark.parametrize("command", ["info", "segment", "batch", "follow", "evaluate", "prepare"])
@pytest.mark.thorough
def test_escape_sequences_in_names_do_not_reach_the_terminal(
    grey_band_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    folder = tmp_path / f"in{ESCAPES}"
    folder.mkdir()
    nifti.write_scan(chest_phantom(shape=(6, 72, 96)).scan, folder / f"ct{ESCAPES}.nii.gz")
    (folder / f"bad{ESCAPES}.nii").write_bytes(b"text")
    scan, bad, out = folder / f"ct{ESCAPES}.nii.gz", folder / f"bad{ESCAPES}.nii", tmp_path / f"out{ESCAPES}"
    arguments: dict[str, list[object]] = {
        "info": [bad],
        "segment": [scan, "-o", out, "--model", grey_band_model],
        "batch": [folder, "-o", out, "--with-identity", "--model", grey_band_model, "--workers", 1],
        "follow": [scan, bad, "-o", out, "--model", grey_band_model],
        "evaluate": ["--data", folder],
        "prepare": [folder, "-o", out],
    }
    _, *outputs = run_command(monkeypatch, capfd, command, *arguments[command])
    output = "".join(outputs)
    assert output
    for character in ESCAPES:
        assert character.isprintable() or character not in output, (character, output)
