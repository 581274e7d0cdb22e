"""The page when something is in the way: limits, a full queue, other tabs, a server that dies, a token."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.browser import SOON_MS, Tab
from helpers.browser import tab as watched_tab
from helpers.server import TOKEN, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

FULL = '{"detail": "the queue is full: 32 scans wait"}'


@pytest.mark.slow
def test_what_is_too_large_is_not_sent(chrome: "Browser", start_server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "large.nii.gz").write_bytes(bytes(2 << 20))
    server = start_server("--max-upload", "1")
    with watched_tab(chrome, server.url) as tab:
        page = tab.open()
        assert "Up to 1.0 MB" in page.inner_text("#limits")
        sent = []
        page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
        tab.drop(tmp_path / "large.nii.gz")
        assert "this server takes up to 1.0 MB" in page.inner_text(".uploads .refused")
        page.click("text=Dismiss")
        assert sent == []


@pytest.mark.slow
def test_a_full_queue_is_waited_for(tab: Tab, scan_file: Path) -> None:
    page = tab.open()
    turned_away: list[str] = []

    def answer(route: "Route") -> None:
        if len(turned_away) < 2:
            turned_away.append(route.request.url)
            route.fulfill(status=429, body=FULL, headers={"Retry-After": "3"})
        else:
            route.continue_()

    page.route("**/api/scans", answer)
    tab.drop(scan_file)
    page.wait_for_selector("text=The queue is full: 32 scans wait. Trying again in 3 s")
    page.wait_for_selector("text=Trying again in 1 s")
    page.wait_for_selector("text=Trying again in 3 s")  # turned away again
    page.click("text=Try now")
    tab.ready()
    assert len(turned_away) == 2
    assert all("429" in said for said in tab.complaints)  # which the browser says itself
    tab.complaints.clear()


@pytest.mark.slow
def test_waiting_for_a_full_queue_can_be_given_up(tab: Tab, scan_file: Path) -> None:
    page = tab.open()
    page.route("**/api/scans", lambda route: route.fulfill(status=429, body=FULL, headers={"Retry-After": "60"}))
    tab.drop(scan_file)
    page.wait_for_selector("text=Trying again in")
    page.click("text=Cancel")
    assert page.locator(".uploads .card").count() == 0
    page.wait_for_timeout(300)
    assert page.locator(".uploads .card").count() == 0
    tab.complaints.clear()


def test_two_tabs_see_the_same(chrome: "Browser", tab: Tab, server: Server, long_scan: Path) -> None:
    with watched_tab(chrome, server.url) as other:
        tab.open()
        tab.drop(long_scan)
        tab.page.wait_for_selector(".running")
        other.open()
        other.page.click(".jobs a >> text=long.nii.gz")
        other.page.click("text=Stop and delete")
        other.page.click("dialog button.danger")
        other.page.wait_for_selector(".welcome")
        tab.page.wait_for_selector("text=No such scan")
    tab.complaints.clear()  # 404, which the browser says itself


@pytest.mark.slow
def test_a_killed_server_is_waited_for_and_the_scan_goes_on(
    chrome: "Browser", start_server: Callable[..., Server], long_scan: Path
) -> None:
    server = start_server()
    with watched_tab(chrome, server.url) as tab:
        page = tab.open()
        tab.drop(long_scan)
        page.wait_for_selector("text=/Slice [1-9]/", timeout=SOON_MS)
        server.kill()
        page.wait_for_selector("text=The connection to the server is lost")
        server.start(int(server.url.rsplit(":", 1)[1]))
        page.wait_for_selector("text=The connection to the server is lost", state="hidden")
        tab.ready()
        tab.complaints.clear()  # the browser's own words on lost connections


def test_a_server_that_is_not_there_yet_is_waited_for(tab: Tab) -> None:
    page = tab.page
    page.route("**/api/session", lambda route: route.abort(), times=1)
    page.goto(tab.url)
    page.wait_for_selector("text=The server does not answer")
    page.wait_for_selector("#limits:not(:empty)")
    assert not page.is_visible("text=The server does not answer")
    tab.complaints.clear()


def test_the_token_opens_the_page(
    chrome: "Browser", start_server: Callable[..., Server], scan_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    server = start_server("--token-file", str(file))
    with watched_tab(chrome, server.url) as tab:
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
        tab.ready()
        assert TOKEN not in page.url
        assert page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == (
            '[{},{},""]'
        )
        page.reload()
        tab.ready()
        page.click("text=Sign out")
        page.wait_for_selector("#token")
        assert page.locator(".jobs li").count() == 0
        tab.complaints.clear()  # 401, which the browser says itself


@pytest.mark.parametrize("job", ["0" * 32])
def test_a_job_that_is_not_there_is_said_so(tab: Tab, job: str) -> None:
    page = tab.open(job)
    assert page.inner_text(".job h1") == "No such scan"
    tab.complaints.clear()
