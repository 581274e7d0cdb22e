"""A real Orthanc for the tests that need one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orthanc_server import PLUGIN, PROGRAM, OrthancServer


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., OrthancServer]]:
    """Starts Orthanc with other settings than usual; all of them are stopped in the end."""
    for needed, package in ((PROGRAM, "orthanc"), (PLUGIN, "orthanc-dicomweb"), ("/usr/bin/storescu", "dcmtk")):
        if not Path(needed).exists():
            pytest.skip(f"{needed} is not there (Debian: {package}): no PACS to test the watcher against")
    started: list[OrthancServer] = []

    def start(**settings: Any) -> OrthancServer:
        started.append(OrthancServer(tmp_path / f"orthanc-{len(started)}", **settings))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def orthanc(start_orthanc: Callable[..., OrthancServer]) -> OrthancServer:
    return start_orthanc()
