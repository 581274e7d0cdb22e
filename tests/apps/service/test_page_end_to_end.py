"""All that a reader does with a scan, in one go, in Chromium and in Firefox."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundglass.io import nifti
from groundglass.report.amounts import format_ml
from groundglass.scan.phantom import chest_phantom
from helpers.browser import AXIAL, chromium
from helpers.browser import tab as open_tab
from helpers.either_browser import ChromiumTab, EitherTab, count_pages
from helpers.firefox import firefox
from helpers.served_results import download
from helpers.server import Server

pytestmark = pytest.mark.slow
YELLOW = np.array([255, 226, 122])  # of measurements


@pytest.fixture(params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, server: Server) -> Iterator[EitherTab]:
    """A tab of each of the browsers; the test is skipped where one is not installed."""
    if request.param == "firefox":
        with firefox() as tab:
            yield tab
    else:
        with chromium() as started, open_tab(started, server.url) as tab:
            yield ChromiumTab(tab)


def test_a_scan_is_dropped_seen_measured_corrected_compared_downloaded_and_printed(
    browser: EitherTab, server: Server, scan_file: Path, tmp_path: Path
) -> None:
    prior = _post_prior(server, tmp_path)
    browser.open(server.url)
    browser.wait_for("document.querySelector('#limits').textContent")

    browser.drop(scan_file)
    job = _wait_until_shown(browser)
    assert job != prior
    assert _text(browser, "h1") == "ct.nii.gz"
    found = _findings(server, job)
    assert format_ml(found["lesion_volume_ml"]) in _text(browser, ".facts")

    x, y = browser.middle_of(AXIAL)
    image = browser.screenshot()[round(y) - 150 : round(y) + 150, round(x) - 150 : round(x) + 150]
    assert image.std() > 30  # a slice, not a blank canvas
    assert (image[:, :, 0] - image[:, :, 2] > 80).sum() > 100  # with lesions in their colour

    before = _slice(browser)
    browser.wheel(x, y, -120)
    assert _slice(browser) == before + 1

    browser.click("label[for=tool-ruler]")
    browser.drag((x - 60, y), (x, y), (x + 60, y))
    assert (np.abs(browser.screenshot() - YELLOW).max(axis=2) < 40).sum() > 30

    corrected = _paint_and_save(browser, x, y)
    assert corrected not in (job, prior)
    now = _findings(server, corrected)
    assert now["lesion_volume_ml"] > found["lesion_volume_ml"]
    assert format_ml(now["lesion_volume_ml"]) in _text(browser, ".facts")

    browser.evaluate(f"document.querySelector('[aria-label=\"Scan to compare with\"]').value = '{prior}'")
    browser.click("[aria-labelledby=prior] button")
    browser.wait_for(f"document.querySelector('[data-ready=\"{corrected}:{prior}\"]')")
    assert browser.evaluate("document.querySelectorAll('.side-scan').length") == 2
    assert f"{format_ml(now['lesion_volume_ml'])} ml" in _text(browser, ".change")
    browser.click(".comparison .button")
    browser.wait_for(f"document.querySelector('[data-ready=\"{corrected}\"]')")

    name, content = browser.download(".downloads a[href*='lesions.nii.gz']")
    assert name.endswith("-lesions.nii.gz")
    assert content == download(server, f"{corrected}/files/lesions.nii.gz?download=1")

    browser.open(browser.evaluate(_REPORT))
    browser.wait_for("document.querySelector('#sentence')")
    assert count_pages(browser.printed()) == 2
    assert browser.errors == []


_REPORT = "document.querySelector('.downloads a[target=_blank]').href"


def _post_prior(server: Server, folder: Path) -> str:
    path = folder / "prior.nii.gz"
    nifti.write_scan(chest_phantom(seed=1, shape=(24, 144, 190)).scan, path)
    return str(server.wait_for_job(server.post(path).json()["id"])["id"])


def _paint_and_save(browser: EitherTab, x: float, y: float) -> str:
    """Add lesion with the brush, save the correction, and return the id of its job once it is shown."""
    original = _wait_until_shown(browser)
    browser.click(".top-bar .primary")
    browser.drag((x - 40, y), (x, y), (x + 40, y))
    assert not _text(browser, ".changed").startswith("+0.00 ml")
    browser.click("[aria-label='Save correction']")
    browser.wait_for("document.querySelector('dialog')")
    browser.click("dialog .primary")
    browser.wait_for(f"document.querySelector('[data-ready]:not([data-ready=\"{original}\"])')")
    return _wait_until_shown(browser)


def _wait_until_shown(browser: EitherTab) -> str:
    browser.wait_for("document.querySelector('[data-ready]')")
    return str(browser.evaluate("document.querySelector('[data-ready]').dataset.ready"))


def _slice(browser: EitherTab) -> int:
    return int(browser.evaluate("document.querySelector('#slice').value"))


def _text(browser: EitherTab, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector('{selector}').textContent")).replace("\N{NO-BREAK SPACE}", " ")


def _findings(server: Server, job: str) -> dict[str, Any]:
    return dict(json.loads(download(server, f"{job}/findings")))
