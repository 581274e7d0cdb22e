"""CSV and Markdown tables."""

import csv
import io

from groundglass.tables import csv_text, markdown_table


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


def test_any_text_is_read_back_from_csv() -> None:
    rows = [{"name": 'a "quoted", text\nof two lines', "other": "ä | ;"}]
    assert list(csv.DictReader(io.StringIO(csv_text(rows)))) == rows


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
