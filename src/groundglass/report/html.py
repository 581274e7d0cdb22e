"""Rendering the HTML reports: Jinja2 templates with autoescape, in documents that load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from groundglass.report.amounts import true_minus


def render(template: str, title: str, script: str | None = None, **context: Any) -> str:
    """Render a template of `report/templates` as a self-contained document.

    Its Content-Security-Policy allows only the shared style sheet, the script, and images inside the document.

    Args:
        template: File name of a template that extends `document.html`.
        title: Title of the document.
        script: File name of a script beside the template.
        **context: Values that the template shows; each is escaped.
    """
    style, code = _read("style.css"), _read(script) if script else ""
    policy = f"default-src 'none'; img-src data:; style-src {_csp_hash(style)}"
    if script:
        policy += f"; script-src {_csp_hash(code)}"
    icon = base64.b64encode(_read("icon.svg").strip().encode()).decode()
    document = {"title": title, "policy": Markup(policy), "style": Markup(style), "script": Markup(code), "icon": icon}
    return _environment().get_template(template).render(document | context)


def with_heading(html: str, heading: str) -> str:
    """Return a report under another heading, which its title begins with too."""
    stated = html.partition("<h1>")[2].partition("</h1>")[0]
    other = escape(heading)
    return html.replace(f"<title>{stated}", f"<title>{other}", 1).replace(f"<h1>{stated}<", f"<h1>{other}<", 1)


def bind(text: str) -> str:
    """Return a text whose numbers are not parted from their units at the end of a line."""
    return re.sub(r"(?<=\d) (?=%|mm|ml|percentage)", "\N{NO-BREAK SPACE}", text)


@cache
def _environment() -> Environment:
    """Return the environment of all templates, each of which is compiled once in a process."""
    environment = Environment(
        loader=PackageLoader("groundglass.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bind": bind, "true_minus": true_minus}
    return environment


def _read(name: str) -> str:
    return (resources.files("groundglass.report") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows only this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
