"""The page under adverse conditions: limits, a full queue, other tabs, a server that dies, a token."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.browser import SCAN_LIMIT_MS, Tab
from helpers.browser import tab as open_tab
from helpers.server import TOKEN, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Route

FULL = '{"detail": "the queue is full: 32 scans wait"}'


def test_a_scan_that_is_too_large_is_not_sent(
    chrome: "Browser", start_server: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "large.nii.gz").write_bytes(bytes(2 << 20))
    server = start_server("--max-upload", "1")
    with open_tab(chrome, server.url) as tab:
        page = tab.open()
        assert "Up to 1.0 MB" in page.inner_text("#limits")
        sent = []
        page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
        tab.drop(tmp_path / "large.nii.gz")
        assert "this server accepts up to 1.0 MB" in page.inner_text(".uploads .refused")
        page.click("text=Dismiss")
        assert sent == []


def test_a_drop_of_nothing_is_answered(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").write_text("of a file manager")
    page = tab.open()
    tab.drop(tmp_path / "empty")
    page.wait_for_selector(".uploads >> text=Nothing to read")
    page.click("text=Dismiss")
    assert not page.is_visible(".uploads .card")


def test_the_page_retries_while_the_queue_is_full(tab: Tab, scan_file: Path) -> None:
    page = tab.open()
    refused: list[str] = []

    def answer(route: "Route") -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=429, body=FULL, headers={"Retry-After": "3"})
        else:
            route.continue_()

    page.route("**/api/scans", answer)
    tab.drop(scan_file)
    page.wait_for_selector("text=The queue is full: 32 scans wait. Trying again in 3 s")
    page.wait_for_selector("text=Trying again in 1 s")
    page.wait_for_selector("text=Trying again in 3 s")  # refused again
    page.click("text=Try now")
    tab.wait_until_shown()
    assert len(refused) == 2
    assert all("429" in error for error in tab.errors)  # logged by the browser itself
    tab.errors.clear()


def test_waiting_for_a_full_queue_can_be_cancelled(tab: Tab, scan_file: Path) -> None:
    page = tab.open()
    page.route("**/api/scans", lambda route: route.fulfill(status=429, body=FULL, headers={"Retry-After": "60"}))
    tab.drop(scan_file)
    page.wait_for_selector("text=Trying again in")
    page.click("text=Cancel")
    assert page.locator(".uploads .card").count() == 0
    page.wait_for_timeout(300)
    assert page.locator(".uploads .card").count() == 0
    tab.errors.clear()


def test_the_page_asks_before_it_ends_an_upload(tab: Tab, scan_file: Path) -> None:
    page = tab.open()
    page.route("**/api/scans", lambda route: route.fulfill(status=429, body=FULL, headers={"Retry-After": "60"}))
    tab.drop(scan_file)
    page.wait_for_selector("text=Trying again in")
    page.click("h1")  # browsers ask only on a page that was used
    dialogs = tab.stay_when_closing()
    assert dialogs == ["beforeunload"]
    page.click("text=Cancel")
    page.reload()
    page.wait_for_selector("#limits:not(:empty)")
    assert dialogs == ["beforeunload"]
    tab.errors.clear()  # 429, logged by the browser itself


def test_signing_out_asks_before_it_ends_an_upload(
    chrome: "Browser", start_server: Callable[..., Server], scan_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    server = start_server("--token-file", str(tmp_path / "token"))
    with open_tab(chrome, server.url) as tab:
        page = tab.page
        page.goto(server.url)
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#limits:not(:empty)")
        page.route("**/api/scans", lambda route: route.fulfill(status=429, body=FULL, headers={"Retry-After": "60"}))
        tab.drop(scan_file)
        page.wait_for_selector("text=Trying again in")
        dialogs: list[Dialog] = []  # of the browser; the page asks by itself
        page.on("dialog", lambda dialog: dialogs.append(dialog))
        page.click("text=Sign out")
        page.wait_for_selector("dialog >> text=Sign out without sending?", timeout=5000)
        page.keyboard.press("Escape")
        assert page.is_visible("text=Trying again in")
        page.click("#sign-out")
        page.click("dialog button.danger")
        page.wait_for_selector("#token")
        assert dialogs == []
        tab.errors.clear()  # 401 and 429, logged by the browser itself


def test_a_job_deleted_in_one_tab_disappears_in_another(
    chrome: "Browser", start_server: Callable[..., Server], long_scan: Path
) -> None:
    server = start_server(bundled=True)
    with open_tab(chrome, server.url) as tab, open_tab(chrome, server.url) as other:
        tab.open()
        tab.drop(long_scan)
        tab.page.wait_for_selector(".running")
        other.open()
        other.page.click(".jobs a >> text=long.nii.gz")
        other.page.click("text=/^(Stop and d|D)elete$/")  # it may have ended meanwhile
        other.page.click("dialog button.danger")
        other.page.wait_for_selector(".welcome")
        tab.page.wait_for_selector("text=No such scan")
        tab.errors.clear()  # 404, logged by the browser itself


def test_the_page_reconnects_to_a_restarted_server(
    chrome: "Browser", start_server: Callable[..., Server], long_scan: Path
) -> None:
    server = start_server(bundled=True)
    with open_tab(chrome, server.url) as tab:
        page = tab.open()
        tab.drop(long_scan)
        page.wait_for_selector("text=/: [1-9]\\d* %/ >> nth=0", timeout=SCAN_LIMIT_MS)
        server.kill()
        page.wait_for_selector("text=The connection to the server is lost")
        server.start(int(server.url.rsplit(":", 1)[1]))
        page.wait_for_selector("text=The connection to the server is lost", state="hidden")
        tab.wait_until_shown()
        tab.errors.clear()  # the browser logs lost connections


def test_the_page_waits_for_a_server_that_is_starting(tab: Tab) -> None:
    page = tab.page
    page.route("**/api/session", lambda route: route.abort(), times=1)
    page.goto(tab.url)
    page.wait_for_selector("text=The server does not answer")
    page.wait_for_selector("#limits:not(:empty)")
    assert not page.is_visible("text=The server does not answer")
    tab.errors.clear()


def test_signing_in_and_out_with_the_token(
    chrome: "Browser", start_server: Callable[..., Server], scan_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    server = start_server("--token-file", str(file))
    with open_tab(chrome, server.url) as tab:
        page = tab.page
        page.goto(server.url)
        page.fill("#token", "not the token")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog .refused:not(:empty)")
        assert "token" in page.inner_text("dialog .refused")
        page.keyboard.press("Escape")
        assert page.is_visible("dialog")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#limits:not(:empty)")
        tab.drop(scan_file)
        tab.wait_until_shown()
        assert TOKEN not in page.url
        assert page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == (
            '[{},{},""]'
        )
        page.reload()
        tab.wait_until_shown()
        page.click("text=Sign out")
        page.wait_for_selector("#token")
        assert page.locator(".jobs li").count() == 0
        tab.errors.clear()  # 401, logged by the browser itself


@pytest.mark.parametrize("job", ["0" * 32])
def test_an_unknown_job_is_reported(tab: Tab, job: str) -> None:
    page = tab.open(job)
    assert page.inner_text(".job h1") == "No such scan"
    tab.errors.clear()
