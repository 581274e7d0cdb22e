"""A real Firefox, driven by WebDriver BiDi: Playwright drives only Firefoxes of its own."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

FIREFOX = Path("/usr/bin/firefox-esr")
START_LIMIT_S = 120.0
_PREFERENCES = {  # of a browser that asks nothing and calls nowhere
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.update.enabled": False,
}


class FirefoxTab:
    """The only tab of a Firefox.

    Attributes:
        errors: Errors in the console.
    """

    def __init__(self, socket: Any, downloads: Path) -> None:
        self._socket, self._number = socket, 0
        self._downloads = downloads
        self.errors: list[str] = []
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded"])
        self._context = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, url: str, width: int = 1280, height: int = 800) -> None:
        """Open a page in a window of this size."""
        viewport = {"width": width, "height": height}
        self._call("browsingContext.setViewport", context=self._context, viewport=viewport)
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it is."""
        text = f"(async () => JSON.stringify(await ({expression}) ?? null))()"
        found = self._call("script.evaluate", expression=text, target={"context": self._context}, awaitPromise=True)
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def run(self, script: str) -> None:
        """Run a script in the page."""
        target = {"context": self._context}
        assert self._call("script.evaluate", expression=f"{script};0", target=target, awaitPromise=False)

    def wait_for(self, expression: str, limit_s: float = 240.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + limit_s
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.1)

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        x, y = self.middle_of(selector)
        self.drag((x, y))

    def middle_of(self, selector: str) -> tuple[float, float]:
        """Return (x, y) of the middle of an element, which is scrolled into view."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'nearest'}})")
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the left button at the first point, move over the others, and lift it."""
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in points]
        press, lift = ({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp"))
        self._act("pointer", [moves[0], press, *moves[1:], lift])

    def pinch(self, x: float, y: float, start: float, end: float) -> None:
        """Put two fingers at a distance of `start` to both sides of a point, and move them to `end`."""
        fingers = []
        for number, side in enumerate((-1, 1)):
            move, go = (
                {"type": "pointerMove", "x": round(x + side * at), "y": round(y), "duration": 40} for at in (start, end)
            )
            actions = [move, {"type": "pointerDown", "button": 0}, go, {"type": "pointerUp", "button": 0}]
            parameters = {"pointerType": "touch"}
            fingers.append({"type": "pointer", "id": f"finger {number}", "parameters": parameters, "actions": actions})
        self._call("input.performActions", context=self._context, actions=fingers)

    def wheel(self, x: float, y: float, delta: int) -> None:
        """Turn the wheel at a point."""
        self._act("wheel", [{"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": delta}])

    def press(self, key: str) -> None:
        """Press and release a key."""
        self._act("key", [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}])

    def drop(self, path: Path) -> None:
        """Drop a file onto the page."""
        content = base64.b64encode(path.read_bytes()).decode()
        self.run(
            "const transfer = new DataTransfer();"
            f"const bytes = Uint8Array.from(atob('{content}'), (letter) => letter.charCodeAt(0));"
            f"transfer.items.add(new File([bytes], {json.dumps(path.name)}));"
            "document.querySelector('main').dispatchEvent("
            "new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))"
        )

    def download(self, selector: str) -> tuple[str, bytes]:
        """Click on a link to a file, and return the name and the content of what was saved."""
        before = set(self._downloads.iterdir())
        self.click(selector)
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            new = set(self._downloads.iterdir()) - before
            done = [path for path in new if path.suffix != ".part" and path.stat().st_size]
            if done and len(new) == 1:
                return done[0].name, done[0].read_bytes()
            time.sleep(0.1)
        raise AssertionError(f"nothing was saved within {START_LIMIT_S} s")

    def printed(self) -> bytes:
        """Return the page as a PDF on A4 with the margins of the report."""
        paper = {
            "page": {"width": 21.0, "height": 29.7},
            "margin": {"top": 1.1, "bottom": 1.1, "left": 1.2, "right": 1.2},
        }
        return base64.b64decode(
            self._call("browsingContext.print", context=self._context, background=True, **paper)["data"]
        )

    def screenshot(self) -> NDArray[np.int16]:
        """Return (y, x, rgb) of the page as it is shown, once the last change is on the screen."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        png = base64.b64decode(self._call("browsingContext.captureScreenshot", context=self._context)["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)

    def _act(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        self._call("input.performActions", context=self._context, actions=[source])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(str(message["params"]["text"]))
            if message.get("id") == self._number:
                assert message["type"] == "success", message
                return message["result"]


@contextmanager
def firefox() -> Iterator[FirefoxTab]:
    """Start Firefox; skip the test where it is not installed."""
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    if not FIREFOX.exists():
        pytest.skip(f"{FIREFOX} does not exist: install Debian's package firefox-esr")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        downloads = Path(profile) / "downloads"
        downloads.mkdir()
        preferences = {**_PREFERENCES, "browser.download.folderList": 2, "browser.download.dir": str(downloads)}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in preferences.items()]
        (Path(profile) / "user.js").write_text("\n".join(lines))
        command = [str(FIREFOX), "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        log = Path(profile) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        socket = None
        try:
            address = _address(log, process)
            socket = websocket.create_connection(f"{address}/session", timeout=300, suppress_origin=True)
            yield FirefoxTab(socket, downloads)
        finally:
            if socket is not None:
                socket.close()
            process.terminate()
            process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        found = re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        assert process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.1)
    raise AssertionError(f"Firefox did not start within {START_LIMIT_S} s:\n{log.read_text(errors='replace')}")
