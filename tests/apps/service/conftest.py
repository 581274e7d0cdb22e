"""Servers, scans and browser tabs for the tests of the service."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from groundglass.io import nifti
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.browser import Tab, chromium
from helpers.browser import tab as open_tab
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def start_server(grey_band_model: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with further arguments; all of them end with the test.

    Its model needs no time; with `bundled` it is the bundled one, which takes a second for ten slices.
    """
    servers: list[Server] = []

    def start(*arguments: str, folder: Path | None = None, bundled: bool = False) -> Server:
        model = () if bundled else ("--model", str(grey_band_model))
        server = Server(folder or tmp_path / "store", (*model, *arguments), tmp_path / f"log-{len(servers)}")
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def server(grey_band_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server shared by the tests of a module; its model needs no time."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder / "store", ("--model", str(grey_band_model)), folder / "log")
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def scan_file(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as .nii.gz."""
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    nifti.write_scan(phantom.scan, path)
    return path


@pytest.fixture(scope="session")
def long_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan whose processing by the bundled model takes some seconds."""
    path = tmp_path_factory.mktemp("long") / "long.nii.gz"
    nifti.write_scan(chest_phantom(shape=(60, 144, 190)).scan, path)
    return path


@pytest.fixture(scope="module")
def chrome() -> "Iterator[Browser]":
    """Chromium; the test is skipped where it is not installed."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def done(server: Server, scan_file: Path) -> str:
    """The id of a job that is done."""
    return str(server.wait_for_job(server.post(scan_file).json()["id"])["id"])


@pytest.fixture
def tab(chrome: "Browser", server: Server) -> Iterator[Tab]:
    """A tab of the module's server."""
    with open_tab(chrome, server.url) as opened:
        yield opened


@pytest.fixture
def shown(tab: Tab, done: str) -> Tab:
    """A tab that shows the result of a job."""
    tab.open(done)
    tab.wait_until_shown(done)
    return tab
