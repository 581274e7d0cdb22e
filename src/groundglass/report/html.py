"""What the pages have in common: a document that fetches nothing, tables, numbers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources


def document(title: str, body: str, script: str | None = None) -> str:
    """A whole page with the shared style sheet.

    Its Content-Security-Policy lets in that style sheet, that script and pictures inside the page, and nothing else.

    Args:
        title: Text.
        body: HTML.
        script: Name of a script beside this module.
    """
    style = _text("style.css")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}"
    run = ""
    if script:
        code = _text(script)
        policy += f"; script-src {_hash(code)}"
        run = f"<script>{code}</script>\n"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
{run}</body>
</html>
"""


def warnings_box(heading: str, warnings: Sequence[str]) -> str:
    """Warnings under a heading; nothing where there are none."""
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<div class="warnings" role="note"><strong>{escape(heading)}</strong><ul>{items}</ul></div>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where it is too wide; the head is text, cells are HTML."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table aria-label="{escape(caption)}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def rounded(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number, or `unknown`."""
    return "unknown" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _text(name: str) -> str:
    return (resources.files("groundglass.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy: this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
