"""The page in a real Firefox: seeing, scrolling, measuring and correcting a scan."""

from collections.abc import Iterator

import numpy as np
import pytest

from helpers.axe import AXE_RUN, axe_source
from helpers.firefox import FirefoxTab, firefox
from helpers.server import Server

pytestmark = pytest.mark.slow
AXIAL = ".pane[data-plane=axial] canvas"


@pytest.fixture(scope="module")
def browser() -> Iterator[FirefoxTab]:
    """A Firefox; the test is skipped where it is not installed."""
    with firefox() as tab:
        yield tab


@pytest.fixture
def shown(browser: FirefoxTab, server: Server, done: str) -> FirefoxTab:
    """A Firefox that shows the result of a job."""
    browser.open("about:blank")  # so that the page is loaded anew, not only its address changed
    browser.open(f"{server.url}/#{done}")
    browser.wait_for("document.querySelector('[data-ready]')")
    return browser


def text(tab: FirefoxTab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector('{selector}').textContent"))


def test_a_scan_is_drawn_scrolled_measured_and_corrected_in_firefox(shown: FirefoxTab) -> None:
    x, y = shown.middle_of(AXIAL)
    image = shown.screenshot()[round(y) - 150 : round(y) + 150, round(x) - 150 : round(x) + 150]
    assert image.std() > 30  # a slice, not a blank canvas
    assert (image[:, :, 0] - image[:, :, 2] > 80).sum() > 100  # with lesions in their colour
    before = int(shown.evaluate("document.querySelector('#slice').value"))
    shown.wheel(x, y, -120)
    assert int(shown.evaluate("document.querySelector('#slice').value")) == before + 1
    for _ in range(6):
        shown.wheel(x, y, 10)  # a trackpad
    assert int(shown.evaluate("document.querySelector('#slice').value")) == before
    shown.drag((x - 50, y), (x + 50, y), (x + 100, y))
    assert "…" in text(shown, "#window option:checked")
    shown.click("label[for=tool-ruler]")
    shown.drag((x - 60, y), (x, y), (x + 60, y))
    assert (np.abs(shown.screenshot() - np.array([255, 226, 122])).max(axis=2) < 40).sum() > 30
    shown.evaluate("document.querySelector('.top-bar .primary').click()")
    shown.drag((x - 30, y), (x + 30, y))
    assert not shown.evaluate("document.querySelector('[aria-label=\"Save correction\"]').disabled")
    assert "+" in text(shown, ".changed")
    shown.evaluate("document.querySelector('[aria-label=Undo]').click()")
    assert shown.evaluate("document.querySelector('[aria-label=\"Save correction\"]').disabled")
    assert shown.errors == []


@pytest.mark.parametrize("layout", ["axial", "3d"])
def test_two_fingers_zoom_in_firefox_and_change_nothing_else(shown: FirefoxTab, layout: str) -> None:
    shown.click(f"label[for='layout-{layout}']")
    canvas = f".pane[data-plane='{layout}'] canvas"
    shown.wait_for("!document.querySelector('.panes').textContent.includes('Building')")
    x, y = shown.middle_of(canvas)
    before, words = shown.screenshot(), text(shown, ".slice-text")
    for start, end, is_other in ((40, 80, True), (80, 40, False)):
        shown.pinch(x, y, start, end)
        for _ in range(50):  # Firefox delivers touches a little later
            if (np.abs(shown.screenshot() - before).mean() > 0.5) == is_other:
                break
        else:
            raise AssertionError(f"two fingers from {start} to {end} pixels apart did not zoom")
    assert text(shown, ".slice-text") == words
    assert shown.errors == []


def test_the_bar_above_the_scan_takes_one_row_in_firefox(shown: FirefoxTab) -> None:
    bar, row = (
        shown.evaluate(f"document.querySelector('{name}').offsetHeight") for name in (".top-bar", ".top-bar .choice")
    )
    assert bar < 2 * row


def test_the_page_has_no_faults_of_accessibility_in_firefox(shown: FirefoxTab) -> None:
    shown.run(axe_source())
    assert shown.evaluate(AXE_RUN) == []
