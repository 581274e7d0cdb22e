"""A real Chromium that opens and operates the page of `groundglass serve`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = Path("/usr/bin/chromium")
AXIAL = ".pane[data-plane=axial] canvas"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL2 without a graphics card
)
SCAN_LIMIT_MS = 240_000  # for processing a scan on two busy cores


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skip the test where it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} does not exist: install Debian's package chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab with the page, whose requests and errors are recorded.

    Attributes:
        page: Playwright's page.
        url: Address of the server.
        errors: Errors and warnings in the console, exceptions, violations of the Content-Security-Policy.
        foreign_requests: Addresses of requests to any other origin.
    """

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on(
            "console", lambda message: self._record(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self._record(str(error)))
        self.page.on("request", lambda request: self._check(request.url))

    def _record(self, text: str) -> None:
        if "GPU stall due to ReadPixels" not in text:  # the software renderer warns about every screenshot
            self.errors.append(text)

    def _check(self, address: str) -> None:
        if not address.startswith((self.url, "data:", f"blob:{self.url}")):
            self.foreign_requests.append(address)

    def open(self, job: str = "") -> Page:
        """Open the page, with a job if one is given, and wait until the server has answered."""
        self.page.goto(f"{self.url}/{'#' + job if job else ''}")
        self.page.wait_for_selector("#limits:not(:empty)" if not job else ".job h1", state="attached")
        return self.page

    def drop(self, *paths: Path) -> None:
        """Drop files and folders onto the page."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 640, "y": 400, "data": data})
        session.detach()

    def wait_until_shown(self, job: str = "") -> str:
        """Wait until a scan is shown, and return the id of its job."""
        selector = f'[data-ready="{job}"]' if job else "[data-ready]"
        self.page.wait_for_selector(selector, timeout=SCAN_LIMIT_MS)
        self.wait_for_frame()
        return re.sub(".*#", "", self.page.url)

    def wait_for_frame(self) -> None:
        """Wait until the last change is on the screen."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def stay_when_closing(self) -> list[str]:
        """Close the tab, stay if the browser asks, and return the types of its dialogs; later ones are added."""
        dialogs: list[str] = []

        def stay(dialog: Dialog) -> None:
            dialogs.append(dialog.type)
            dialog.dismiss()

        self.page.on("dialog", stay)
        self.page.close(run_before_unload=True)
        self.page.wait_for_timeout(200)
        return dialogs

    def screenshot(self) -> NDArray[np.int16]:
        """Return (y, x, rgb) of the scan as it is shown."""
        self.wait_for_frame()
        return _pixels(self.page.locator(".panes").screenshot())

    def screenshot_of_page(self) -> NDArray[np.int16]:
        """Return (y, x, rgb) of what is seen of the page."""
        self.wait_for_frame()
        return _pixels(self.page.screenshot())

    def slice_shown(self) -> int:
        """Return the number in the file of the slice that is shown."""
        return int(self.page.input_value("#slice"))

    def go_to(self, number: int) -> None:
        """Show the slice with this number in the file."""
        self.page.fill("#slice", str(number))
        self.wait_for_frame()


def _pixels(png: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)


@contextmanager
def tab(browser: Browser, url: str, **context: Any) -> Iterator[Tab]:
    """Open a tab with a profile of its own; at its end there must be no error and no request to another origin."""
    profile = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    profile.set_default_timeout(SCAN_LIMIT_MS)
    opened = Tab(profile.new_page(), url)
    try:
        yield opened
        assert opened.foreign_requests == [], opened.foreign_requests
        assert opened.errors == [], opened.errors
    finally:
        profile.close()


@dataclass(frozen=True)
class SliceOnScreen:
    """Geometry of an axial slice on the canvas: as large as fits, centred, the patient's right on the left.

    Attributes:
        size: Number of voxels along (y, x), front to back and right to left.
        spacing_mm: Size of a voxel along (y, x).
        canvas: Number of pixels of the canvas along (y, x).
    """

    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    canvas: tuple[int, int]

    @property
    def _scale(self) -> float:
        lengths = [n * mm for n, mm in zip(self.size, self.spacing_mm, strict=True)]
        return min(pixels / length for pixels, length in zip(self.canvas, lengths, strict=True))

    def pixel(self, row: float, column: float) -> tuple[float, float]:
        """Return (x, y) on the canvas of the centre of a voxel."""
        y, x = (
            pixels / 2 + (index + 0.5 - n / 2) * mm * self._scale
            for index, n, mm, pixels in zip((row, column), self.size, self.spacing_mm, self.canvas, strict=True)
        )
        return x, y

    def resample(self, slice_values: NDArray[Any]) -> NDArray[Any]:
        """Return the value at each pixel of the canvas by nearest neighbour; 0 outside the slice."""
        rows, columns = (
            np.floor((np.arange(pixels) + 0.5 - pixels / 2) / (mm * self._scale) + n / 2).astype(int)
            for n, mm, pixels in zip(self.size, self.spacing_mm, self.canvas, strict=True)
        )
        height, width = self.size
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        values = slice_values[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
        return np.asarray(np.where(inside, values, 0))
