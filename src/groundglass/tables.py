"""Tables as text: CSV for programs, also as spreadsheets write it, and Markdown for people."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import FormatError
from groundglass.plain_text import inert_cell, inert_markdown, original_cell

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")  # workbooks are refused with the way to fix it
SEPARATORS = ",;\t|"
_NO_SEPARATOR = "\x1f"  # of a single column, whose cells may hold any of the separators
_AROUND_CELLS = " \t\r\n\xa0\u200b\ufeff"  # blanks, and marks that are not seen
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")  # control characters, and breaks in lines
_SAVE_AS_UTF8 = "save it as CSV UTF-8 in the spreadsheet"
# The longer marks first: that of UTF-32 begins like that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The letters of Western languages in Windows-1252, and the signs that texts in them hold.
_WESTERN = frozenset(
    "ªºµßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿŠšŽžŒœŸ\xa0¡¿«»°–—‘’“”•…€£§©®±×·"
)
# First bytes of other files that are given for a CSV.
_OTHER_FORMATS = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook"}


@dataclass(frozen=True)
class TableRow:
    """A row of a CSV.

    Attributes:
        line: Number of its line in the file, from 1.
        cells: {column in lower case: text without blanks around it}; "" where the row ends early.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TextTable:
    """The rows of a CSV that are not empty.

    Attributes:
        columns: The header in lower case.
        rows: The rows.
        notes: What was assumed, for the user.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()


def read_table(data: bytes, columns: Sequence[str]) -> TextTable:
    """Read a CSV as programs and spreadsheets write it.

    Separators are commas, semicolons, tabs or bars; the text is UTF-8, UTF-16 or Windows-1252; lines end in any way.
    Blanks around cells and the case of the header do not count, and control characters are blanks. Empty rows are left
    out.

    Args:
        data: The content of the file.
        columns: Columns that the caller knows, by which the separator is recognised.

    Raises:
        FormatError: The content is no CSV, its characters are unknown, a quotation mark is not closed, a column
            occurs twice, or a row has more cells than the header. The message does not name the file.
    """
    text, notes = _decode(data)
    text = _UNSEEN.sub(" ", text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blank = next((number for number, line in enumerate(lines) if line.strip(f" {SEPARATORS}")), 0)
    stated = re.fullmatch(r'"?sep=(.)"?[,;\s]*', lines[blank].strip(" "), re.IGNORECASE)  # a line that Excel knows
    lines = lines[blank + 1 :] if stated else lines[blank:]
    separator = stated[1] if stated else _recognise_separator(lines[0], columns)
    (_, header), *rows = list(_split_rows(lines, separator, blank + 1 + (stated is not None))) or [(1, [])]
    names = [" ".join(name.lower().split()) for name in header]
    while names and not names[-1]:
        names.pop()
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated:
        raise FormatError(f"the column {repeated} occurs twice: rename or remove one")
    table = tuple(_table_row(line, cells, names, columns) for line, cells in rows if any(cells))
    if "\n" in "".join(rows[-1][1] if rows else header) and text.count('"') % 2:
        raise FormatError(f"line {(rows or [(1, [])])[-1][0]} has a quotation mark that is not closed")
    return TextTable(tuple(filter(None, names)), table, notes)


def path_of_cell(folder: Path, cell: str) -> Path:
    """Return the path that a cell names, relative to the folder of its CSV.

    A spreadsheet of another system may have written backslashes, or accented letters in two parts or in one.

    Raises:
        FormatError: No file can have such a name.
    """
    spellings = (cell, cell.replace("\\", "/"))
    composed = (unicodedata.normalize("NFC", text) for text in spellings)
    decomposed = (unicodedata.normalize("NFD", text) for text in spellings)
    paths = [folder / text for text in (*spellings, *composed, *decomposed)]
    try:
        return next((path for path in paths if path.exists()), paths[0])
    except (OSError, ValueError):
        raise FormatError(f"{len(cell)} characters are given for a path, which no file can have") from None


def _table_row(line: int, cells: Sequence[str], names: Sequence[str], columns: Sequence[str]) -> TableRow:
    """Return the cells of a row by column.

    Raises:
        FormatError: The row has more cells than the header, or a known column holds a line break.
    """
    if any(cells[len(names) :]):
        raise FormatError(
            f"line {line} has {len(cells)} cells, the header {len(names)}: put cells that hold the separator in "
            "quotation marks"
        )
    padded = [*cells, *[""] * (len(names) - len(cells))]
    row = {name: cell for name, cell in zip(names, padded, strict=False) if name}
    if any("\n" in row.get(name, "") for name in columns):
        raise FormatError(f"line {line} has a quotation mark that is not closed")
    return TableRow(line, row)


def _decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, and a note where its characters had to be guessed.

    Raises:
        FormatError: It is no text, or its characters are unknown.
    """
    kind = next((kind for magic, kind in _OTHER_FORMATS.items() if data.startswith(magic)), None)
    if kind is not None:
        raise FormatError(f"it is {kind}, not a CSV: {_SAVE_AS_UTF8}")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:
        encoding = "utf-16-le" if data[1:200:2].count(0) >= data[:200:2].count(0) else "utf-16-be"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = _decode_western(data) if encoding is None else "\0"
        if "\0" in text:
            raise FormatError(f"its characters are neither UTF-8 nor Windows-1252: {_SAVE_AS_UTF8}") from None
        return text, ("it is not UTF-8: its letters were read as those of Windows-1252",)
    if "\0" in text:
        raise FormatError(f"it is damaged, or no text: {_SAVE_AS_UTF8}")
    return text, ()


def _decode_western(data: bytes) -> str:
    """Return the text of a file in Windows-1252, which holds Latin-1, or a NUL if it is in another character set.

    In texts of Western languages no three letters in a row are accented; those of other character sets look so.
    """
    text = data.decode("cp1252", errors="replace")
    foreign = any(not character.isascii() and character not in _WESTERN for character in text)
    return "\0" if foreign or re.search(r"[^\x00-\x7f\xa0]{3}", text) else text


def _recognise_separator(header: str, columns: Sequence[str]) -> str:
    """Return the separator that splits a header into most of the columns that are known, or else into most cells."""

    def quality(separator: str) -> tuple[int, int]:
        cells = next((cells for _, cells in _split_rows([header], separator, 1)), [])
        return len({cell.lower() for cell in cells} & set(columns)), len(cells)

    best = max(SEPARATORS, key=quality)
    return best if best in header else _NO_SEPARATOR


def _split_rows(lines: Sequence[str], separator: str, first_line: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its cells.

    Raises:
        FormatError: A row cannot be split.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=True)
    begin = first_line
    try:
        for cells in reader:
            yield begin, [original_cell(cell.strip(_AROUND_CELLS).replace("\t", " ")) for cell in cells]
            begin = first_line + reader.line_num
    except csv.Error as error:
        raise FormatError(f"line {begin} cannot be read: {error}") from error


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = (), digits: int | None = None) -> str:
    r"""Format rows as CSV with lines that end in `\n`; None becomes an empty cell, and no cell a formula.

    Args:
        rows: One mapping for each row.
        columns: The header; by default every key of the rows, in the order of first appearance.
        digits: Decimal places to which floats are rounded; None leaves them as they are.
    """
    rows = list(rows)
    text = io.StringIO()
    header = columns or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if digits is not None:
            row = {key: round(value, digits) if isinstance(value, float) else value for key, value in row.items()}
        writer.writerow({key: inert_cell(value) for key, value in row.items()})
    return text.getvalue()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> Iterator[str]:
    """Yield the lines of a Markdown table; what cells and titles hold is shown as it is.

    Args:
        header: A title for each column.
        rows: Cells as text.
        left: Indices of the columns that are aligned left (-1 is the last one); the others are aligned right.
    """
    columns = range(len(header))
    aligned_left = {index % len(header) for index in left}
    yield f"| {' | '.join(map(inert_markdown, header))} |"
    yield f"|{'|'.join('---' if column in aligned_left else '---:' for column in columns)}|"
    for row in rows:
        yield f"| {' | '.join(map(inert_markdown, row))} |"
