"""A real Chromium, and what a person does in it with the page of `groundglass serve`."""

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
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL2 without a graphics card
)
SOON_MS = 60_000  # a scan on two busy cores


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; the test is skipped where it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: install Debian's chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=list(_FLAGS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab with the page, watched: what it asks for and what it complains of.

    Attributes:
        page: Playwright's.
        url: Of the server.
        complaints: Errors in the console, exceptions, breaches of the Content-Security-Policy.
        strangers: Requests to any other origin.
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self._complain(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _complain(self, text: str) -> None:
        if "GPU stall due to ReadPixels" not in text:  # of the software renderer, when a screenshot is taken
            self.complaints.append(text)

    def _asked(self, address: str) -> None:
        if not address.startswith((self.url, "data:", f"blob:{self.url}")):
            self.foreign_requests.append(address)

    def open(self, job: str = "") -> Page:
        """Open the page, with a job if one is named; wait until it has spoken with the server."""
        self.page.goto(f"{self.url}/{'#' + job if job else ''}")
        self.page.wait_for_selector("#limits:not(:empty)" if not job else ".job h1", state="attached")
        return self.page

    def drop(self, *paths: Path) -> None:
        """Drop files and folders from the desktop onto the page."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 640, "y": 400, "data": data})
        session.detach()

    def ready(self, job: str = "") -> str:
        """Wait until a scan is shown; the id of its job."""
        chosen = f'[data-ready="{job}"]' if job else "[data-ready]"
        self.page.wait_for_selector(chosen, timeout=SOON_MS)
        self.settle()
        return re.sub(".*#", "", self.page.url)

    def settle(self) -> None:
        """Wait until what was last asked of the viewer is on the screen."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def scan(self) -> NDArray[np.int16]:
        """(y, x, rgb) of the scan as it is shown."""
        self.settle()
        png = self.page.locator(".stage canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)

    def slice_shown(self) -> int:
        """Number of the slice in the file."""
        return int(self.page.input_value("#slice"))

    def go_to(self, number: int) -> None:
        """Show a slice of the file."""
        self.page.fill("#slice", str(number))
        self.settle()


@contextmanager
def tab(browser: Browser, url: str, **context: Any) -> Iterator[Tab]:
    """A tab with a profile of its own; nothing may have gone wrong in it, and nothing gone elsewhere."""
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
    watched = Tab(opened.new_page(), url)
    try:
        yield watched
        assert watched.foreign_requests == [], watched.foreign_requests
        assert watched.complaints == [], watched.complaints
    finally:
        opened.close()


@dataclass(frozen=True)
class OnScreen:
    """Where an axial slice lies on the canvas: as large as fits, in the middle, the patient's right on the left.

    Attributes:
        size: Voxels of the slice along (y, x), front to back and right to left.
        spacing_mm: The same.
        canvas: Pixels along (y, x).
    """

    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    canvas: tuple[int, int]

    @property
    def _scale(self) -> float:
        lengths = [n * mm for n, mm in zip(self.size, self.spacing_mm, strict=True)]
        return min(pixels / length for pixels, length in zip(self.canvas, lengths, strict=True))

    def pixel(self, row: float, column: float) -> tuple[float, float]:
        """(x, y) on the canvas of a voxel's centre."""
        y, x = (
            pixels / 2 + (place + 0.5 - n / 2) * mm * self._scale
            for place, n, mm, pixels in zip((row, column), self.size, self.spacing_mm, self.canvas, strict=True)
        )
        return x, y

    def drawn(self, plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A slice of a mask as it should be seen."""
        places = []
        for n, mm, pixels in zip(self.size, self.spacing_mm, self.canvas, strict=True):
            place = ((np.arange(pixels) + 0.5 - pixels / 2) / (mm * self._scale)) + n / 2
            places.append(np.floor(place).astype(int))
        rows, columns = places
        inside = ((rows >= 0) & (rows < self.size[0]))[:, None] & ((columns >= 0) & (columns < self.size[1]))
        return np.asarray(plane[np.clip(rows, 0, self.size[0] - 1)][:, np.clip(columns, 0, self.size[1] - 1)] & inside)
