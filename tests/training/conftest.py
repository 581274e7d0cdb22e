"""Phantoms in the layout of the MedSeg volumes, prepared once for all tests of trainings."""

from pathlib import Path

import pytest

from groundglass.data.prepare import PreparationSettings, prepare
from helpers.medseg_phantoms import write_phantoms


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset folder of three phantoms in HU."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), grey=False)


@pytest.fixture(scope="session")
def prepared(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same phantoms as a prepared folder of 72 x 96 pixels."""
    folder = tmp_path_factory.mktemp("prepared") / "all"
    prepare([phantoms], folder, PreparationSettings((72, 96)))
    return folder
