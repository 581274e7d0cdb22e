"""What a test does in Chromium and in Firefox alike."""

from __future__ import annotations

import re
import time
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from helpers.browser import SCAN_LIMIT_MS, Tab


class EitherTab(Protocol):
    """A tab of one of both browsers; `helpers.firefox.FirefoxTab` says what its methods do."""

    errors: list[str]

    def open(self, url: str, width: int = 1280, height: int = 800) -> None: ...
    def evaluate(self, expression: str) -> Any: ...
    def wait_for(self, expression: str) -> None: ...
    def click(self, selector: str) -> None: ...
    def middle_of(self, selector: str) -> tuple[float, float]: ...
    def drag(self, *points: tuple[float, float]) -> None: ...
    def wheel(self, x: float, y: float, delta: int) -> None: ...
    def drop(self, path: Path) -> None: ...
    def download(self, selector: str) -> tuple[str, bytes]: ...
    def printed(self) -> bytes: ...
    def screenshot(self) -> NDArray[np.int16]: ...


class ChromiumTab:
    """A tab of Chromium with the methods of `FirefoxTab`."""

    def __init__(self, tab: Tab) -> None:
        self._tab, self._page = tab, tab.page
        self.errors = tab.errors

    def open(self, url: str, width: int = 1280, height: int = 800) -> None:
        self._page.set_viewport_size({"width": width, "height": height})
        self._page.goto(url)

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(f"async () => (await ({expression})) ?? null")

    def wait_for(self, expression: str) -> None:
        end = time.monotonic() + SCAN_LIMIT_MS / 1000
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.1)

    def click(self, selector: str) -> None:
        self._page.click(selector)

    def middle_of(self, selector: str) -> tuple[float, float]:
        box = self._page.locator(selector).first.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, *points: tuple[float, float]) -> None:
        mouse = self._page.mouse
        mouse.move(*points[0])
        mouse.down()
        for point in points[1:]:
            mouse.move(*point)
        mouse.up()
        self._tab.wait_for_frame()

    def wheel(self, x: float, y: float, delta: int) -> None:
        before = self.evaluate("document.querySelector('#slice').value")
        self._page.mouse.move(x, y)
        self._page.mouse.wheel(0, delta)
        self.wait_for(f"document.querySelector('#slice').value !== '{before}'")

    def drop(self, path: Path) -> None:
        self._tab.drop(path)

    def download(self, selector: str) -> tuple[str, bytes]:
        with self._page.expect_download() as started:
            self._page.click(selector)
        return started.value.suggested_filename, Path(started.value.path()).read_bytes()

    def printed(self) -> bytes:
        return self._page.pdf(prefer_css_page_size=True)

    def screenshot(self) -> NDArray[np.int16]:
        return self._tab.screenshot_of_page()


def count_pages(pdf: bytes) -> int:
    """Return the number of pages of a PDF, whose list of objects may be compressed."""
    parts = [pdf]
    for found in re.finditer(rb"stream\r?\n", pdf):
        try:
            parts.append(zlib.decompressobj().decompress(pdf[found.end() :]))
        except zlib.error:
            continue  # an image, or none that is compressed
    return sum(len(re.findall(rb"/Type\s*/Page\b", part)) for part in parts)
