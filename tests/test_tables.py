"""CSV and Markdown tables."""

import csv
import io
from pathlib import Path

import pytest

from groundglass.errors import FormatError
from groundglass.tables.reading import path_of_cell, read_table
from groundglass.tables.writing import csv_text, markdown_table


def test_csv_has_every_key_in_order_of_appearance_and_empty_cells_for_none() -> None:
    text = csv_text([{"b": 1, "a": None}, {"b": 2, "c": "x"}])
    assert text == "b,a,c\n1,,\n2,,x\n"


def test_csv_has_the_columns_that_are_given() -> None:
    assert csv_text([{"b": 1, "a": 2}], ("a", "b")) == "a,b\n2,1\n"
    assert csv_text([], ("a", "b")) == "a,b\n"


def test_csv_rounds_floats_alone_and_only_on_request() -> None:
    rows = [{"float": 1 / 3, "integer": 10, "text": "0.123456"}]
    assert csv_text(rows, digits=2) == "float,integer,text\n0.33,10,0.123456\n"
    assert csv_text(rows).splitlines()[1] == "0.3333333333333333,10,0.123456"


def test_any_text_is_read_back_from_csv_on_one_line() -> None:
    rows = [{"name": 'a "quoted", text\nof two lines', "other": "ä | ;"}]
    read_back = [{"name": 'a "quoted", text of two lines', "other": "ä | ;"}]
    assert list(csv.DictReader(io.StringIO(csv_text(rows)))) == read_back


def test_a_markdown_table_aligns_the_first_column_left_and_escapes_bars() -> None:
    assert list(markdown_table(["name", "n"], [["a|b", "1"], ["c", "2"]])) == [
        "| name | n |",
        "|---|---:|",
        r"| a\|b | 1 |",
        "| c | 2 |",
    ]


def test_columns_to_align_left_are_counted_from_either_end() -> None:
    assert list(markdown_table(["a", "b", "c"], [], left=(0, -1)))[1] == "|---|---:|---|"
    assert list(markdown_table(["a", "b"], [], left=()))[1] == "|---:|---:|"


def cells(data: bytes) -> list[list[str]]:
    """The columns and rows of a CSV whose known columns are scan and case."""
    table = read_table(data, ("scan", "case"))
    return [list(table.columns), *(list(row.cells.values()) for row in table.rows)]


PLAIN = [["case", "scan"], ["Ärger, groß", "a b.nii"], ["", "c.nii"]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_csv_is_read_with_any_separator_character_set_and_line_end(separator: str, encoding: str, end: str) -> None:
    rows = (("Case ", " SCAN"), ('"Ärger, groß"', ' "a b.nii" '), ("", "c.nii"))
    text = "".join(f"{one}{separator}{other}{end}" for one, other in rows)
    assert cells(text.encode(encoding)) == PLAIN
    assert cells(text.rstrip().encode(encoding)) == PLAIN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scan;age\na.nii;45,5\n", [["scan", "age"], ["a.nii", "45,5"]]),  # decimal commas
        ("sep=;\nscan;case\na;b\n", [["scan", "case"], ["a", "b"]]),  # a line that Excel understands
        ("scan\na,b;c.nii\n", [["scan"], ["a,b;c.nii"]]),  # one column: nothing separates
        ("scan;case;;\na;b;;\n;;;\n\n", [["scan", "case"], ["a", "b"]]),  # empty columns and rows at the end
        ("\n\nscan,case\na\n", [["scan", "case"], ["a", ""]]),  # empty rows before, a row that ends early
        ('scan,note\na,"two\nlines"\nb,\n', [["scan", "note"], ["a", "two\nlines"], ["b", ""]]),
        ("scan,case\n\xa0a\xa0,\u200bb\n", [["scan", "case"], ["a", "b"]]),  # blanks that a browser copies
        ("", [[]]),
        ("sep=,\nscan;case\na;b\n", [["scan", "case"], ["a", "b"]]),  # stated, and then saved with another one
        ("sep=\t\nscan\tcase\na\tb\n", [["scan", "case"], ["a", "b"]]),
        ("sep=\\t\nscan\tcase\na\tb\n", [["scan", "case"], ["a", "b"]]),
        ('"sep=;"\nscan;case\na;b\n', [["scan", "case"], ["a", "b"]]),
        ("'scan','case'\n'a, b','c'\n", [["scan", "case"], ["a, b", "c"]]),
        ("scan,case\n'a','c'\n", [["scan", "case"], ["a", "c"]]),
        ("“scan”;“case”\n“a”;„c“\n", [["scan", "case"], ["a", "c"]]),  # quotation marks of a word processor
        ("scan，case\na，b\n", [["scan", "case"], ["a", "b"]]),  # full-width separators, and letters
        ("ｓｃａｎ；case\na；b\n", [["scan", "case"], ["a", "b"]]),
        ('"scan,case"\n"a,""b, c"""\n\n', [["scan", "case"], ["a", "b, c"]]),  # each row taken for one cell
        ("| scan | case |\n|:---|---:|\n| a | b |\n", [["scan", "case"], ["a", "b"]]),  # of Markdown
        ("scan|case\n-|--\n", [["scan", "case"], ["-", "--"]]),
    ],
)
def test_what_spreadsheets_add_to_a_csv_does_not_count(text: str, expected: list[list[str]]) -> None:
    assert cells(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("# mine, of 2024\nscan,case\na,b\n", ["1 line above the header was not read"]),
        ("scan,case\n# old, one, more, cells\n#x,y\na,b\n# end\n", ["3 lines beginning with # were not read"]),
        ('scan,case\n# of 5", see "notes\na,b\n', ["1 line beginning with # was not read"]),
        ('scan,case\n#,"open\na,b\n', ["1 line beginning with # was not read"]),
        ("#scan,case\na,b\n", []),
        ("# by me\n# scan,case\na,b\n", ["1 line above the header was not read"]),
        ("My scans,,\n,,\nof 2024,,\nscan,case,\na,b,\n", ["2 lines above the header were not read"]),
        ('scan,case\n"a",b\n', []),
    ],
)
def test_comments_and_titles_are_left_out_and_counted(text: str, notes: list[str]) -> None:
    assert cells(text.encode()) == [["scan", "case"], ["a", "b"]]
    assert list(read_table(text.encode(), ("scan", "case")).notes) == notes


def test_rows_keep_the_numbers_of_their_lines() -> None:
    table = read_table(b'sep=,\nscan,note\na,"x\ny"\n,\nb,\n', ("scan",))
    assert [(row.line, row.cells["scan"]) for row in table.rows] == [(3, "a"), (6, "b")]


@pytest.mark.parametrize("encoding", ["cp932", "gb18030", "cp1251", "koi8-r", "euc-kr", "mac-cyrillic"])
@pytest.mark.parametrize("name", ["患者", "Пациент", "张", "李1", "山田"])
def test_another_character_set_is_refused_and_never_read_as_other_letters(encoding: str, name: str) -> None:
    try:
        data = f"scan,case\na,{name}\n".encode(encoding)
    except UnicodeEncodeError:
        pytest.skip("this character set has no such letters")
    with pytest.raises(FormatError, match="characters are neither UTF-8 nor Windows-1252: save it as CSV UTF-8"):
        read_table(data, ("scan", "case"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"scan,case\na,b,c\n", "line 2 has 3 cells, the header 2: put cells that hold the separator in quotation"),
        (b'scan,case\n"a,b\nc,d\n', "line 2 has a quotation mark that is not closed"),
        (b'scan,case,note\na,b,"c\nd,e,f\n', "line 2 has a quotation mark that is not closed"),
        (b"scan case\na b\n", "separated by none of comma, semicolon, tab and bar: separate them by commas"),
        (b"scan,case\na;b\n", "line 2 is separated by ';', the header by ',': use one of them"),
        (b"scan;case\na\tb\n", r"line 2 is separated by '\\t', the header by ';'"),
        (b"scan,Scan\na,b\n", "the column scan occurs twice"),
        (b"PK\x03\x04rest", "it is an Excel or OpenDocument workbook, not a CSV: save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0rest", "it is an old Excel workbook, not a CSV"),
        (b"\xff\xfea", "neither UTF-8 nor"),
        (b"scan" + bytes(300), "damaged, or no text"),
        (b"scan,case\n" + b"a" * 200_000 + b",b\n", "line 2 cannot be read: field larger than field limit"),
        (b"scan" + b",x%d" * 3000 % tuple(range(3000)) + b"\na" * 2000, "2,000 rows of 3,001 columns are more than"),
    ],
)
def test_what_is_no_csv_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_table(data, ("scan", "case"))


@pytest.mark.parametrize("unseen", ["\t", "\x0b", "\x1b[31m", "\x85", "\u2028"])
def test_control_characters_are_blanks_so_that_messages_stay_on_one_line(unseen: str) -> None:
    table = read_table(f"scan,ca{unseen}se\na{unseen},b\n".encode(), ("scan", "case"))
    assert table.columns == ("scan", f"ca {unseen[1:]}se")
    assert table.rows[0].cells["scan"] == f"a {unseen[1:]}".strip()


def test_a_guessed_character_set_is_noted() -> None:
    assert read_table("scan\né.nii\n".encode("cp1252"), ("scan",)).notes == (
        "it is not UTF-8: its letters were read as those of Windows-1252",
    )
    assert read_table("scan\né.nii\n".encode(), ("scan",)).notes == ()


def test_a_path_is_found_with_backslashes_and_composed_letters(tmp_path: Path) -> None:
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "a.nii").touch()
    assert path_of_cell(tmp_path, "e\u0301\\a.nii") == tmp_path / "é" / "a.nii"
    assert path_of_cell(tmp_path, "absent\\a.nii") == tmp_path / "absent\\a.nii"
    with pytest.raises(FormatError, match="5000 characters are given for a path"):
        path_of_cell(tmp_path, "x" * 5000)


def test_a_header_of_many_columns_is_read_in_a_time_that_grows_with_their_number() -> None:
    names = [f"c{number}" for number in range(40_000)]  # compared with each other, they would take half a minute
    assert len(read_table(",".join(("scan", *names)).encode() + b"\na\n", ("scan",)).columns) == 40_001
