"""CSV as programs, spreadsheets and people write it."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from groundglass.errors import FormatError
from groundglass.plain_text import original_cell
from groundglass.tables.characters import decode_table

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")  # workbooks are refused with the way to fix it
SEPARATORS = ",;\t|，；、،"  # those of Chinese, Japanese and Arabic keyboards too
_NO_SEPARATOR = "\x1f"  # of a single column, whose cells may hold any of the separators
# Blanks, and marks that are not seen, such as those that Windows puts around a path which is copied.
_AROUND_CELLS = " \t\r\n\xa0\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")  # control characters, and breaks in lines
_STATED_SEPARATOR = re.compile(r'"?sep=([^"\'\w]|\\t)"?[,;\s]*', re.IGNORECASE)  # a line that Excel knows
_WHOLE_ROW_QUOTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"[,;\s]*)?')
_MARKDOWN_RULE = re.compile(":?-{3,}:?")
_MAX_CELLS = 5_000_000  # of rows of all columns, also where they end early; some bytes of text may state millions
_HEADER_WITHIN = 20  # lines; above the header there may be titles and comments
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*|%[A-Za-z_]\w*%")
_QUOTATION_MARKS = ("'‘“„«\"", "'’”“»\"")  # that begin a cell, and that end it


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
    """Read a CSV as programs, spreadsheets and people write it.

    Separators are commas, semicolons, tabs or bars, full-width ones too; the text is UTF-8, UTF-16 or Windows-1252;
    lines end in any way. Blanks and quotation marks around cells and the case of the header do not count, and control
    characters are blanks. Empty rows, lines that begin with #, and titles above the header are left out.

    Args:
        data: The content of the file.
        columns: Columns that the caller knows, by which the header and its separator are recognised.

    Raises:
        FormatError: The content is no CSV, its characters are unknown, a quotation mark is not closed, a column
            occurs twice, rows and header do not fit, or they are too many. The message does not name the file.
    """
    text, notes = decode_table(data)
    text = _UNSEEN.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = _without_outer_quotes(text.split("\n"))
    begin, separator, titles = _find_header(lines, columns)
    comments = sum(map(_is_comment, lines[begin + 1 :]))
    # A quotation mark in a comment must not take the lines after it along.
    lines = [*lines[: begin + 1], *("" if _is_comment(line) else line for line in lines[begin + 1 :])]
    quote = "'" if lines[begin].lstrip(" #").startswith("'") else '"'
    (_, header), *rows = list(_split_rows(lines[begin:], separator, quote, begin + 1)) or [(1, [])]
    names = [_column_name(cell) for cell in header]
    while names and not names[-1]:
        names.pop()
    repeated = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if repeated:
        raise FormatError(f"the column {repeated} occurs twice: rename or remove one")
    rows = [(line, cells) for line, cells in rows if any(cells) and not (separator == "|" and _is_rule(cells))]
    if len(rows) * len(names) > _MAX_CELLS:
        raise FormatError(
            f"{len(rows):,} rows of {len(names):,} columns are more than {_MAX_CELLS:,} cells: remove columns, or "
            "split it"
        )
    for line, cells in rows:
        _check_separator(line, lines[line - 1], cells, names, separator)
    table = tuple(_table_row(line, cells, names, columns) for line, cells in rows)
    if "\n" in "".join(rows[-1][1] if rows else header) and "".join(lines[begin:]).count(quote) % 2:
        raise FormatError(f"line {rows[-1][0] if rows else begin + 1} has a quotation mark that is not closed")
    for count, what in ((titles, "above the header"), (comments, "beginning with #")):
        if count:
            notes = (*notes, f"{count} line{'s' if count > 1 else ''} {what} {'were' if count > 1 else 'was'} not read")
    return TextTable(tuple(filter(None, names)), table, notes)


def path_of_cell(folder: Path, cell: str) -> Path:
    """Return the path that a cell names, relative to the folder of its CSV; also by `~` and by `file://`.

    A spreadsheet of another system may have written backslashes, or accented letters in two parts or in one.

    Raises:
        FormatError: No file can have such a name. The message does not repeat it.
    """
    try:
        if cell.lower().startswith("file:"):
            cell = unquote(urlsplit(cell).path)
        elif cell.startswith("~"):
            cell = str(Path(f"~/{cell[2:]}" if cell.startswith("~\\") else cell).expanduser())
    except (RuntimeError, ValueError):
        raise FormatError("a path begins with no home folder, or is no address: write the whole path") from None
    if _ADDRESS.match(cell):
        raise FormatError("an address of the network is given for a path: download the file, and write where it is")
    spellings = (cell, cell.replace("\\", "/"))
    composed = (unicodedata.normalize("NFC", text) for text in spellings)
    decomposed = (unicodedata.normalize("NFD", text) for text in spellings)
    paths = [folder / text for text in (*spellings, *composed, *decomposed)]
    try:
        found = next((path for path in paths if path.exists()), None)
    except (OSError, ValueError):
        raise FormatError(f"{len(cell)} characters are given for a path, which no file can have") from None
    if found is None and _VARIABLE.search(cell):
        raise FormatError("a path names a variable of the environment, which is not replaced: write the whole path")
    return found or paths[0]


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


def _is_rule(cells: Sequence[str]) -> bool:
    """Return whether a row is the dashes below the header of a Markdown table."""
    return all(_MARKDOWN_RULE.fullmatch(cell) for cell in filter(None, cells))


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
