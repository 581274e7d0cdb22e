"""Hooks of MkDocs: generated pages of the reference, and the pages that lie outside this folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from reference import PAGES

ROOT = Path(__file__).parents[2]
REMOTE_SCRIPT = re.compile(
    r'<script src=""> *</script>|<script\b(?:(?!</script>).)*https://(?:(?!</script>).)*</script>', re.DOTALL
)
REMOTE_WORKER = "https://unpkg.com/iframe-worker/shim"  # of the plugin `offline`
LOCAL_WORKER = "javascripts/iframe-worker.js"
OUTSIDE = {"CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add generated pages, and copies of pages that lie in the root of the repository."""
    for uri, make in PAGES.items():
        files.append(File.generated(config, uri, content=make()))
    for name, uri in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to pages in the root of the repository to their copies."""
    up = "../" * page.file.src_uri.count("/")
    for name, uri in (*OUTSIDE.items(), ("README.md", "index.md")):
        markdown = re.sub(rf"\]\((?:\.\./)*{re.escape(name)}(?=[)#])", f"]({up}{uri}", markdown)
    return markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Load no script from elsewhere: the documentation is read without a network."""
    output = output.replace(REMOTE_WORKER, "../" * page.file.src_uri.count("/") + LOCAL_WORKER)
    return REMOTE_SCRIPT.sub("", output) if page.file.src_uri.endswith(".ipynb") else output


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same in pages without a source, such as the one for missing pages."""
    return output_content.replace(REMOTE_WORKER, LOCAL_WORKER)
