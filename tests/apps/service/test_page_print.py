"""The page on paper: the scan as wide as the sheet, the numbers on the next one, two scans on a sheet across."""

import re
from typing import TYPE_CHECKING

import pytest

from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.browser import Tab
from helpers.either_browser import count_pages
from helpers.firefox import firefox
from helpers.server import Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
SHEET_PX = 703  # width of A4 within its margins


def sheets(pdf: bytes) -> list[tuple[float, float]]:
    """Return the (width, height) of each page in points."""
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", pdf)
    return [(float(width), float(height)) for width, height in boxes]


@pytest.mark.parametrize("layout", ["axial", "multiplanar"])
def test_the_scan_takes_the_width_of_the_sheet_and_the_numbers_the_next_one(shown: Tab, layout: str) -> None:
    page = shown.page
    page.click(f"label[for=layout-{layout}]")
    shown.wait_for_frame()
    assert len(sheets(page.pdf(prefer_css_page_size=True))) == 2
    page.emulate_media(media="print")
    page.set_viewport_size({"width": SHEET_PX, "height": 1000})
    shown.wait_for_frame()
    panes = page.locator(".panes").bounding_box()
    assert panes is not None
    assert panes["width"] > 0.97 * SHEET_PX
    assert panes["height"] > 0.5 * SHEET_PX
    for control in (".tools", ".top-bar", ".side", ".downloads", "text=Correct the mask"):
        assert not page.is_visible(control)


def test_two_scans_are_printed_on_one_sheet_across(tab: Tab, server: Server, done: str, tmp_path: "Path") -> None:
    nifti.write_scan(chest_phantom(seed=1, shape=(24, 96, 128)).scan, tmp_path / "prior.nii.gz")
    prior = server.wait_for_job(server.post(tmp_path / "prior.nii.gz").json()["id"])["id"]
    tab.page.goto(f"{tab.url}/#{done}:{prior}")
    tab.page.wait_for_selector(f"[data-ready='{done}:{prior}']")
    tab.wait_for_frame()
    [(width, height)] = sheets(tab.page.pdf(prefer_css_page_size=True))
    assert width > height


def test_the_page_is_printed_on_two_sheets_in_firefox(server: Server, done: str) -> None:
    with firefox() as tab:
        tab.open(f"{server.url}/#{done}")
        tab.wait_for("document.querySelector('[data-ready]')")
        assert count_pages(tab.printed()) == 2
