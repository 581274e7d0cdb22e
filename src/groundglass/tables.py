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
SEPARATORS = ",;\t|，；、،"  # those of Chinese, Japanese and Arabic keyboards too
_NO_SEPARATOR = "\x1f"  # of a single column, whose cells may hold any of the separators
_AROUND_CELLS = " \t\r\n\xa0\u200b\ufeff"  # blanks, and marks that are not seen
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")  # control characters, and breaks in lines
_STATED_SEPARATOR = re.compile(r'"?sep=(.|\\t)"?[,;\s]*', re.IGNORECASE)  # a line that Excel knows
_WHOLE_ROW_QUOTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"[,;\s]*)?')
_HEADER_WITHIN = 20  # lines; above the header there may be titles and comments
_QUOTATION_MARKS = ("'‘“„«\"", "'’”“»\"")  # that begin a cell, and that end it
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
    Blanks and quotation marks around cells and the case of the header do not count, and control characters are blanks.
    Empty rows, lines that begin with #, and titles above the header are left out.

    Args:
        data: The content of the file.
        columns: Columns that the caller knows, by which the header and its separator are recognised.

    Raises:
        FormatError: The content is no CSV, its characters are unknown, a quotation mark is not closed, a column
            occurs twice, or rows and header do not fit. The message does not name the file.
    """
    text, notes = _decode(data)
    text = _UNSEEN.sub(" ", text)
    lines = _without_outer_quotes(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    begin, separator, titles = _find_header(lines, columns)
    quote = "'" if lines[begin].lstrip(" #").startswith("'") else '"'
    (_, header), *rows = list(_split_rows(lines[begin:], separator, quote, begin + 1)) or [(1, [])]
    names = [_column_name(cell) for cell in header]
    while names and not names[-1]:
        names.pop()
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated:
        raise FormatError(f"the column {repeated} occurs twice: rename or remove one")
    comments = {line for line, _ in rows if _is_comment(lines[line - 1])}
    rows = [(line, cells) for line, cells in rows if any(map(_is_value, cells)) and line not in comments]
    for line, cells in rows:
        _check_separator(line, lines[line - 1], cells, names, separator)
    table = tuple(_table_row(line, cells, names, columns) for line, cells in rows)
    if "\n" in "".join(rows[-1][1] if rows else header) and text.count(quote) % 2:
        raise FormatError(f"line {(rows or [(1, [])])[-1][0]} has a quotation mark that is not closed")
    for count, what in ((titles, "above the header"), (len(comments), "beginning with #")):
        if count:
            notes = (*notes, f"{count} line{'s' if count > 1 else ''} {what} {'were' if count > 1 else 'was'} not read")
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
            'quotation marks (")'
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

    In texts of Western languages no three letters in a row are accented, hardly ever two, in words of small or of
    capital letters, and no quotation mark opens within a word; those of other character sets look so.
    """
    text = data.decode("cp1252", errors="replace")
    if any(not character.isascii() and character not in _WESTERN for character in text):
        return "\0"
    for before, accented, after in re.findall(r"([A-Za-z]?)([^\x00-\x7f\xa0]{2,})([A-Za-z]?)", text):
        word = before + accented + after
        if len(accented) > 2 or word == accented or not (accented.islower() or word.isupper()):
            return "\0"
    return "\0" if re.search(r"[^\W\d_][“„‘]|”[^\W\d_]", text) else text


def _without_outer_quotes(lines: Sequence[str]) -> Sequence[str]:
    """Return lines as they were before a spreadsheet took each for one cell and put it into quotation marks."""
    inner = [_WHOLE_ROW_QUOTED.fullmatch(line) for line in lines]
    rows = [(match[1] or "").replace('""', '"') for match in inner if match]
    first = next(filter(None, rows), "")
    return rows if len(rows) == len(lines) and any(separator in first for separator in SEPARATORS) else lines


def _find_header(lines: Sequence[str], columns: Sequence[str]) -> tuple[int, str, int]:
    """Find the line that names most of the columns that are known, the first such line or else the first of all.

    Returns:
        Its index, its separator, and the number of titles and comments above it.

    Raises:
        FormatError: It names columns that are known, but none of the separators is between them.
    """
    stated, quality = "", {}
    for i, line in enumerate(lines[:_HEADER_WITHIN]):
        if statement := _STATED_SEPARATOR.fullmatch(line.strip(" ")):
            stated = statement[1].replace("\\t", "\t")
        elif line.strip(f" {SEPARATORS}"):
            separator, known = _recognise_separator(line, columns, stated)
            quality[i] = (known, not _is_comment(line), separator)
    begin = max(quality, key=lambda i: quality[i][:2], default=0)
    known, _, separator = quality.get(begin, (0, True, ","))
    words = set(re.findall(r"[^\W_]+", lines[begin].lower()))
    if separator == _NO_SEPARATOR and not known and len(words & set(columns)) > 1:
        raise FormatError("its columns are separated by none of comma, semicolon, tab and bar: separate them by commas")
    return begin, separator, sum(i < begin for i in quality)


def _recognise_separator(header: str, columns: Sequence[str], stated: str) -> tuple[str, int]:
    """Return the separator that splits a header into most of the columns that are known, or else into most cells.

    Returns:
        The separator, and how many columns are known.
    """

    def quality(separator: str) -> tuple[int, int]:
        try:
            cells = next((cells for _, cells in _split_rows([header], separator, '"', 1)), [])
        except FormatError:
            return 0, 0
        return len(set(map(_column_name, cells)) & set(columns)), len(cells)

    best = max((*stated, *SEPARATORS), key=quality)
    return (best if best in header or best in stated else _NO_SEPARATOR), quality(best)[0]


def _check_separator(line: int, text: str, cells: Sequence[str], names: Sequence[str], separator: str) -> None:
    """Check that a row is not separated by something else than the header is.

    Raises:
        FormatError: It is.
    """
    if len(names) > 1 and sum(map(bool, cells)) == 1:
        other = next((each for each in SEPARATORS if each != separator and text.count(each) == len(names) - 1), None)
        if other:
            raise FormatError(f"line {line} is separated by {other!r}, the header by {separator!r}: use one of them")


def _column_name(cell: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", cell).lower().lstrip("#").split())


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_value(cell: str) -> bool:
    """Return whether a cell holds anything but the dashes below the header of a Markdown table."""
    return bool(cell.strip(":-"))


def _split_rows(lines: Sequence[str], separator: str, quote: str, first_line: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row, and its cells.

    Raises:
        FormatError: A row cannot be split.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, quotechar=quote, skipinitialspace=True)
    begin = first_line
    try:
        for cells in reader:
            yield begin, [_plain(cell) for cell in cells]
            begin = first_line + reader.line_num
    except csv.Error as error:
        raise FormatError(f"line {begin} cannot be read: {error}") from error


def _plain(cell: str) -> str:
    """Return what a cell states, without what lies around it."""
    cell = cell.strip(_AROUND_CELLS).replace("\t", " ")
    opening, closing = _QUOTATION_MARKS
    if len(cell) > 1 and cell[0] in opening and cell[-1] in closing:
        cell = cell[1:-1].strip(_AROUND_CELLS)
    return original_cell(cell)


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
