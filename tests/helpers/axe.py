"""The checks of accessibility by axe-core, which `npm ci` in page/ installs."""

from pathlib import Path

import pytest

AXE = Path(__file__).parents[2] / "page" / "node_modules" / "axe-core" / "axe.min.js"
AXE_RUN = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
  violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(" | ")}`))"""


def axe_source() -> str:
    """Return the script to run in a page; skip the test where it is not installed."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm ci` in page/")
    return AXE.read_text(encoding="utf-8")
