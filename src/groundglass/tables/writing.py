"""Tables as text: CSV for programs, and Markdown for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from groundglass.plain_text import inert_cell, inert_markdown


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
